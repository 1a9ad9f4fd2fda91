"""Several networks, or several orientations of a patch, as one: mean, spread, and the variance that follows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise, write
from p3d_regression.model.contract import Contract, mapping, trained_with
from p3d_regression.prediction.orientations import Orientation
from p3d_regression.prediction.spec import ENSEMBLE
from p3d_regression.text import as_yaml
from p3d_regression.upstream import checkpoints, introspection, transforms

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One checkpoint of an ensemble.

    Attributes:
        path: of the checkpoint.
        section: the ``model`` section that its network is built from.
        contract: of its training; None if it is not known.
    """

    path: Path
    section: Mapping[str, Any]
    contract: Contract | None


def members_of(config: Mapping[str, Any], paths: Sequence[str]) -> list[Member]:
    """The members of an ensemble; without paths the one checkpoint of the config.

    Args:
        config: of the prediction.
        paths: of the checkpoints; ``model_path`` has to be one of them.

    Raises:
        ConfigError: one cannot be read, or they do not predict the same from the same.
    """
    own = config.get("model_path")
    if not paths:
        # it is loaded already, and rules have checked it
        with suppress(ConfigError):
            return [_member(config, Path(own), 0)] if isinstance(own, str) else []
        return []
    given = [Path(path) for path in paths]
    members = [_member(config, path, index) for index, path in enumerate(given)]
    if isinstance(own, str) and Path(own).is_file() and not any(path.samefile(own) for path in given):
        message = f"{own} is not a member of the ensemble, so that it would not be used."
        raise ConfigError("model_path", message, write("model_path", str(paths[0])))
    for index, member in enumerate(members):
        if members[0].path.samefile(member.path) and index:
            message = f"{member.path} is named twice."
            raise ConfigError(f"{ENSEMBLE}[{index}]", message, write(ENSEMBLE, list(dict.fromkeys(paths))))
        _compare(members[0], member, index)
    return members


def _member(config: Mapping[str, Any], path: Path, index: int) -> Member:
    place = f"{ENSEMBLE}[{index}]"
    try:
        weights = checkpoints.checkpoint_weights(str(path))
        trained = trained_with(str(path), checkpoints.metadata_of(weights))
    except Exception as error:
        why = "does not exist" if not path.is_file() else f"cannot be read as a checkpoint ({type(error).__name__})"
        message = f"{path} {why}."
        raise ConfigError(place, message, advise(f"name a checkpoint of train3dunet as {place}")) from error
    section = mapping(config.get("model"))
    if trained and trained.is_ours and trained.is_certain:
        # its final activation and its scaling come with its weights
        section = trained.contract.model
    return Member(path, section, trained.contract if trained else None)


def _compare(first: Member, other: Member, index: int) -> None:
    """Refuse a member that predicts something else than the first, or from something else."""
    a, b = first.contract, other.contract
    pairs: dict[str, tuple[object, object]] = {
        f"model.{key}": (first.section.get(key), other.section.get(key)) for key in ("in_channels", "out_channels")
    }
    if a is not None and b is not None:
        pairs["the transforms of the labels, so that its unit is another one"] = (
            _decisive(a.label),
            _decisive(b.label),
        )
        pairs["the transforms of the raw volume"] = (_decisive(a.raw), _decisive(b.raw))
        pairs["global_normalization"] = (a.global_normalization, b.global_normalization)
        if a.targets is not None and b.targets is not None:
            pairs["the meaning of the output channels"] = (_plain(a.targets), _plain(b.targets))
    for what, (wanted, found) in pairs.items():
        if wanted != found:
            message = (
                f"{other.path} was trained with {as_yaml(found)}, {first.path} with {as_yaml(wanted)}: they differ in "
                f"{what}."
            )
            raise ConfigError(f"{ENSEMBLE}[{index}]", message, advise("predict with checkpoints of equal trainings"))


def _decisive(steps: Sequence[Mapping[str, Any]] | None) -> object:
    return None if steps is None else [transforms.decisive(step) for step in steps]


def _plain(targets: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(target) for target in targets]


def networks_of(members: Sequence[Member], config: Mapping[str, Any], own: Any) -> Iterator[Any]:
    """The networks of the members, on the device of the one that pytorch-3dunet has loaded.

    Args:
        members: of the ensemble.
        config: of the prediction.
        own: the network of ``model_path``, as pytorch-3dunet uses it.
    """
    for member in members:
        if member.path.samefile(config["model_path"]):
            yield own
            continue
        network = introspection.module_of("pytorch3dunet.unet3d.model").get_model(dict(member.section))
        introspection.module_of("pytorch3dunet.unet3d.utils").load_checkpoint(str(member.path), network)
        # several GPUs
        network = type(own)(network) if hasattr(own, "module") else network
        yield network.to(next(own.parameters()).device)


def variances(contract: Contract | None) -> dict[int, int]:
    """For each output channel that is a variance the output channel of its mean.

    >>> variances(Contract({}, targets=[[0, False], [0, True]]))
    {1: 0}
    """
    targets = [tuple(target) for target in contract.targets or ()] if contract else []
    means = {label: output for output, (label, is_variance) in enumerate(targets) if not is_variance}
    return {output: means[label] for output, (label, is_variance) in enumerate(targets) if is_variance}


@dataclass(frozen=True)
class Combined:
    """Networks and orientations whose outputs are averaged.

    A channel that is a variance becomes the total variance: mean of the variances plus variance of the means.

    Attributes:
        networks: of pytorch-3dunet.
        orientations: in which each of them sees a patch.
        variances: see :func:`variances`.
        is_2d: for each network whether it takes planes, shape (N, C, H, W).
    """

    networks: Sequence[Any]
    orientations: Sequence[Orientation]
    variances: Mapping[int, int] = field(default_factory=dict)
    is_2d: Sequence[bool] = (False,)

    def __call__(self, raw: "Tensor") -> tuple["Tensor", "Tensor | None"]:
        """Predict patches.

        Args:
            raw: shape (N, C, D, H, W).

        Returns:
            The prediction, shape (N, C', D, H, W), and of several outputs the variance of each channel among them, in
            their units squared.
        """
        outputs = self._outputs(raw)
        mean = next(outputs)
        number = len(self.networks) * len(self.orientations)
        if number == 1:
            return mean, None
        squares = mean.new_zeros(mean.shape)
        for count, output in enumerate(outputs, 2):
            # Welford: a sum of squares would lose a small spread around a large mean
            change = output - mean
            mean = mean + change / count
            squares += change * (output - mean)
        spread = squares / number
        for variance, channel in self.variances.items():
            mean[:, variance] += spread[:, channel]
        return mean, spread

    def _outputs(self, raw: "Tensor") -> Iterator["Tensor"]:
        for network, is_2d in zip(self.networks, self.is_2d, strict=True):
            for orientation in self.orientations:
                seen = orientation.turn(raw) if len(self.orientations) > 1 else raw
                output = network(seen.squeeze(-3)).unsqueeze(-3) if is_2d else network(seen)
                yield orientation.back(output.float()) if len(self.orientations) > 1 else output.float()

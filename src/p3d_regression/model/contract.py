"""The contract of a training: all that makes the same weights another function, and what a config says against it.

With the same weights, another ``num_groups`` or another normalisation of the raw volume gives other numbers, and no
error. A checkpoint therefore holds the network and the transforms of its training, as plain data in the metadata of its
``state_dict``, under a key of its own: versions that do not know it ignore it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p3d_regression._version import __version__
from p3d_regression.errors import ConfigError
from p3d_regression.model.memory import METADATA_KEY as MEMORY
from p3d_regression.text import as_yaml
from p3d_regression.upstream import checkpoints, datasets, introspection, transforms
from p3d_regression.upstream.logs import training_configs_beside

#: The key of the contract in the metadata of the U-Net.
METADATA_KEY = "p3d_regression_training"

#: Environment variable: ``off``, ``warn`` or ``error``; see :mod:`p3d_regression.checks.at_start`.
SETTING = "P3D_REGRESSION_CHECKS"

#: They describe the last layer, which is compared by itself.
_LAST_LAYER = ("final_sigmoid", "is_segmentation")

#: They change nothing about a prediction, and a training may change them.
FREE = ("dropout_prob",)


@dataclass(frozen=True)
class Contract:
    """What a checkpoint was trained with.

    Attributes:
        model: class and arguments of the network, those included that its config left at their defaults.
        raw: the transforms of raw volumes, without random ones.
        label: the same of the labels, which decide the unit of the predictions.
        global_normalization: whether their statistics are those of a volume, not of a patch.
        patch_shape: of the training.
        targets: for each output channel the channel of the labels that it is about, and whether it predicts the
            variance of that instead; None if the loss does not tell.
        units: of the labels, where their files say so and no transform changes them.
        ignore_index: the label of voxels that did not count; None if all did.
        versions: of the packages of the training.
    """

    model: Mapping[str, Any]
    raw: Sequence[Mapping[str, Any]] | None = None
    label: Sequence[Mapping[str, Any]] | None = None
    global_normalization: bool = False
    patch_shape: Sequence[int] | None = None
    targets: Sequence[Sequence[Any]] | None = None
    units: str | None = None
    ignore_index: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {
            "model": dict(self.model),
            "raw": self.raw,
            "label": self.label,
            "global_normalization": self.global_normalization,
            "patch_shape": self.patch_shape,
            "targets": self.targets,
            "units": self.units,
            "ignore_index": self.ignore_index,
            "versions": dict(self.versions),
        }


@dataclass(frozen=True)
class Trained:
    """A contract, and where it was found.

    Attributes:
        contract: of the training.
        source: of the contract, for messages.
        is_certain: whether nothing speaks for another one.
        is_ours: whether the checkpoint was trained with a key of this project.
    """

    contract: Contract
    source: str
    is_certain: bool
    is_ours: bool


def contract_of(config: Mapping[str, Any]) -> Contract:
    """The contract of a training with this config.

    Raises:
        UnknownUpstreamError: pytorch-3dunet is built differently.
    """
    import torch

    loaders = mapping(config.get("loaders"))
    phases = [mapping(mapping(loaders.get(name)).get("transformer")) for name in ("val", "train")]
    raw, label = (deterministic(next((p[kind] for p in phases if kind in p), None)) for kind in ("raw", "label"))
    patch = mapping(mapping(loaders.get("train")).get("slice_builder")).get("patch_shape")
    versions = {"p3d-regression": __version__, "torch": torch.__version__}
    versions["pytorch3dunet"] = str(getattr(introspection.module_of("pytorch3dunet"), "__version__", "unknown"))
    return Contract(
        model=network_of(mapping(config.get("model"))),
        raw=None if raw is None else plain(raw),
        label=None if label is None else plain(label),
        global_normalization=bool(loaders.get("global_normalization", False)),
        patch_shape=plain(patch) if isinstance(patch, list) else None,
        targets=_targets(mapping(config.get("loss")), mapping(config.get("model")).get("out_channels")),
        units=None if any(transforms.scales(step) for step in label or ()) else datasets.units_of_labels(loaders),
        ignore_index=_number(mapping(config.get("loss")).get("ignore_index")),
        versions={name: str(version) for name, version in versions.items()},
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _targets(loss: Mapping[str, Any], channels: object) -> list[list[Any]] | None:
    from p3d_regression.losses import build

    if type(channels) is not int:
        return None
    try:
        found = build.described(loss) or build.resolve(loss, channels)
    except ConfigError:
        return None  # one of pytorch-3dunet's, or a rule reports it
    return [list(target) for target in found.targets(channels)]


def trained_with(path: str, metadata: Mapping[str, Any]) -> Trained | None:
    """The contract that a checkpoint holds, or the training config next to it; None if there is neither.

    Args:
        path: of the checkpoint.
        metadata: of the U-Net in it.

    Raises:
        UnknownUpstreamError: pytorch-3dunet is built differently.
    """
    if held := held_by(metadata):
        return held
    configs = [(where, contract_of(config)) for where, config in training_configs_beside(Path(path))]
    if not configs:
        return None
    where, newest = configs[0]
    functions = [(c.model, c.raw, c.global_normalization) for _, c in configs]
    return Trained(newest, str(where), all(function == functions[0] for function in functions), MEMORY in metadata)


def held_by(metadata: Mapping[str, Any]) -> Trained | None:
    """The contract in the metadata of a U-Net's ``state_dict``; None if there is none."""
    held = metadata.get(METADATA_KEY)
    if not isinstance(held, Mapping) or not isinstance(held.get("model"), Mapping):
        return None
    # of a later version, which may hold more
    known = {key: held[key] for key in Contract.__dataclass_fields__ if key in held}
    return Trained(Contract(**known), "its memory", True, MEMORY in metadata)


def _is_default(contract: Contract, key: str, value: object) -> bool:
    cls = introspection.model_class(contract.model.get("name"))
    return cls is not None and key != "name" and introspection.default(cls, key) == value


@dataclass(frozen=True)
class Adopted:
    """What a config has taken from its checkpoint.

    Attributes:
        trained: the checkpoint's contract.
        model: the arguments of the network that the config left out.
        forgotten: those of them that a config which describes its network should have.
    """

    trained: Trained
    model: Mapping[str, Any] = field(default_factory=dict)
    forgotten: Sequence[str] = ()

    @property
    def line(self) -> str:
        """For the log: what was taken that is not the default; empty if nothing was."""
        taken = {key: value for key, value in self.model.items() if not _is_default(self.trained.contract, key, value)}
        return f"network as in the checkpoint ({self.trained.source}): model: {as_yaml(taken)}" if taken else ""

    @property
    def warning(self) -> str:
        """What plain pytorch-3dunet would compute in another way; empty if it would not."""
        if not self.forgotten:
            return ""
        listed = ", ".join(f"model.{key}: {as_yaml(self.model[key])}" for key in self.forgotten)
        return (
            f"the config has no {listed}; these values are taken from the checkpoint. Without p3d-regression, "
            "pytorch-3dunet would use its defaults, and the predictions would be wrong. Write them into the config."
        )

    @property
    def units(self) -> str:
        """For the log of a prediction: what its units are, where the training has scaled the labels; else empty."""
        steps = [step for step in self.trained.contract.label or () if transforms.scales(step)]
        if not steps:
            return ""
        return (
            f"predictions are in the units of the transformed labels, not in those of the label files: the training "
            f"applied {as_yaml(steps)} to the labels"
        )


def adopt(config: dict[str, Any], mode: str) -> Adopted | None:
    """Complete the model section of a config from the checkpoint that it starts from, in place.

    Args:
        config: of a training or a prediction.
        mode: ``train`` or ``predict``.

    Returns:
        None if there is no checkpoint, or it was trained without a key of this project.

    Raises:
        Exception: the file is not one of pytorch-3dunet's checkpoints.
    """
    path = checkpoints.checkpoint_of(config, mode)
    section = config.get("model") or {}
    if path is None or not isinstance(section, Mapping):
        return None
    trained = trained_with(path, checkpoints.checkpoint_metadata(path))
    if trained is None or not (trained.is_ours and trained.is_certain):
        return None
    section = with_levels(section, trained)
    missing = completed(section, trained)
    config["model"] = {**section, **missing}
    return Adopted(trained, missing, tuple(forgotten(section, missing)))


def network_of(section: Mapping[Any, Any]) -> dict[str, Any]:
    """Class and arguments of the network of a model section, defaults included; what is ignored is left out."""
    cls = introspection.model_class(section.get("name"))
    if cls is None:
        return {}
    names = [name for name in introspection.arguments(cls) if name not in _LAST_LAYER]
    found = {name: section.get(name, introspection.default(cls, name)) for name in names}
    found = {name: value for name, value in found.items() if value is not None or name in section}
    if isinstance(f_maps := found.get("f_maps"), int):
        levels = found.get("num_levels")
        found["f_maps"] = [f_maps * 2**k for k in range(levels if isinstance(levels, int) and levels < 64 else 0)]
    found.pop("num_levels", None)  # pytorch-3dunet reads it where f_maps is a number
    return {"name": section["name"], **plain(found)}


def completed(section: Mapping[str, Any], trained: Trained) -> dict[str, Any]:
    """The arguments of the network that a model section leaves out and its checkpoint has."""
    cls = introspection.model_class(section.get("name", trained.contract.model.get("name")))
    known = introspection.arguments(cls) if cls else []
    # a key without a value says nothing either
    missing = {k: v for k, v in trained.contract.model.items() if section.get(k) is None and k in ("name", *known)}
    if "num_levels" in section and isinstance(section["num_levels"], int):
        fits = len(missing.get("f_maps", [])) == section["num_levels"]
        missing = missing if fits else {key: value for key, value in missing.items() if key != "f_maps"}
    return missing


def with_levels(section: Mapping[str, Any], trained: Trained | None) -> Mapping[str, Any]:
    """A section whose ``f_maps`` is a number, with the levels of the checkpoint where it says none."""
    f_maps = trained.contract.model.get("f_maps") if trained else None
    if isinstance(section.get("f_maps"), int) and "num_levels" not in section and isinstance(f_maps, list):
        return {**section, "num_levels": len(f_maps)}
    return section


def forgotten(section: Mapping[str, Any], missing: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that a section which describes the network has forgotten: pytorch-3dunet alone uses another value."""
    cls = introspection.model_class(section.get("name"))
    described = set(section) & set(introspection.arguments(cls) if cls else ()) - {"in_channels", "out_channels"}
    if cls is None or not described - set(_LAST_LAYER):
        return
    alone = network_of(section)
    yield from (key for key, value in missing.items() if key not in FREE and alone.get(key) != value)


def deterministic(steps: object) -> list[Mapping[str, Any]] | None:
    """The transforms of a list that are not random; None where there is no list."""
    if not isinstance(steps, list):
        return None
    return [step for step in steps if isinstance(step, Mapping) and not transforms.is_random(step)]


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def plain(value: Any) -> Any:
    """Data that a weights-only load accepts, whatever YAML has made of a config."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)

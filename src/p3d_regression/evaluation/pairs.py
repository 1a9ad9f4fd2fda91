"""What is compared: predictions, truth, raw volumes and masks, and whether they fit each other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from p3d_regression.errors import EvaluationError
from p3d_regression.model.contract import mapping
from p3d_regression.prediction.files import output_path, partial_path
from p3d_regression.prediction.settings import difference, settings_of
from p3d_regression.prediction.spec import SPREAD, format_of
from p3d_regression.upstream import datasets
from p3d_regression.volumes.opening import find, names, opened


@dataclass(frozen=True)
class Source:
    """A dataset of an HDF5 file, or an array of Zarr.

    Attributes:
        path: of the file.
        key: of the dataset in it.
        shape: (D, H, W) or (C, D, H, W).
        attributes: of the dataset.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, path: str | Path, key: str) -> "Source":
        """Look at a dataset.

        Raises:
            EvaluationError: there is none, or it is no volume of numbers.
        """
        path = Path(path)
        try:
            with opened(path) as file:
                found = find(file, key)
                if found is None:
                    held = ", ".join(names(file)) or "none"
                    raise EvaluationError(f"{path} has no dataset {key}; it has {held}. Write {path}:DATASET.")
                if found.ndim not in (3, 4) or found.dtype.kind not in "fiu":
                    raise EvaluationError(
                        f"{path}:{key} has the shape {found.shape} and the type {found.dtype}; a volume consists of "
                        "numbers and has the shape (Z, Y, X) or (C, Z, Y, X)."
                    )
                return cls(path, key, found.shape, dict(found.attrs))
        except OSError as error:
            why = "does not exist" if not path.exists() else f"cannot be read as HDF5 ({error})"
            raise EvaluationError(f"{path} {why}.") from error

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[-3:]

    @property
    def channels(self) -> int:
        return self.shape[0] if len(self.shape) == 4 else 1

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


@dataclass(frozen=True)
class Pair:
    """A predicted volume and the truth.

    Attributes:
        prediction: shape (C, D, H, W).
        truth: the same shape, or (D, H, W).
        raw: the volume that was predicted from; None if it is not known.
        mask: voxels above 0 count; None for all.
        spread: the standard deviation among the members of an ensemble; None if there is none.
    """

    prediction: Source
    truth: Source
    raw: Source | None = None
    mask: Source | None = None
    spread: Source | None = None

    @property
    def name(self) -> str:
        return self.prediction.path.stem.removesuffix("_predictions")

    @property
    def variances(self) -> dict[int, int]:
        """For each channel of the prediction that is a variance the channel of its mean."""
        names = [str(name) for name in self.prediction.attributes.get("channel_names", ())]
        means = {name.partition(" ")[2]: channel for channel, name in enumerate(names) if name.startswith("mean")}
        ends = {channel: name.partition(" ")[2] for channel, name in enumerate(names) if name.startswith("variance")}
        return {channel: means[end] for channel, end in ends.items() if end in means}

    @property
    def means(self) -> list[int]:
        """The channels of the prediction that are compared with those of the truth."""
        return [channel for channel in range(self.prediction.channels) if channel not in self.variances]

    def check(self) -> "Pair":
        """Refuse volumes that do not lie on each other.

        Raises:
            EvaluationError: their shapes differ.
        """
        for other in filter(None, (self.truth, self.raw, self.mask, self.spread)):
            if other.spatial != self.prediction.spatial:
                raise EvaluationError(_difference(self.prediction, other))
        if len(self.means) != self.truth.channels:
            raise EvaluationError(
                f"{self.prediction} has {len(self.means)} channel(s) to compare, but {self.truth} has "
                f"{self.truth.channels}."
            )
        if self.prediction.path.samefile(self.truth.path) and self.prediction.key == self.truth.key:
            raise EvaluationError(f"{self.truth} would be compared with itself.")
        return self


def _difference(one: Source, other: Source) -> str:
    start = f"{one} has the shape {one.spatial} (Z, Y, X), {other} has {other.spatial}"
    for order in permutations(range(3)):
        if tuple(other.spatial[axis] for axis in order) == one.spatial:
            names = ", ".join("ZYX"[axis] for axis in order)
            return f"{start}: its axes are in another order. Transpose it so that its axes {names} become Z, Y, X."
    if other.shape[:3] == one.spatial:
        return f"{start}: its channels come last. Write them first, as (C, Z, Y, X)."
    return f"{start}: it is another volume."


def source_of(text: str, key: str) -> Source:
    """A dataset that is named as ``PATH`` or ``PATH:DATASET``.

    Raises:
        EvaluationError: see :meth:`Source.open`.
    """
    path, colon, named = text.rpartition(":")
    # a path may have a colon itself
    return Source.open(path, named) if colon and not Path(text).exists() else Source.open(text, key)


def pair_of_files(prediction: str, truth: str, mask: str | None = None) -> Pair:
    """Two files that are named.

    Raises:
        EvaluationError: they cannot be compared.
    """
    predicted = source_of(prediction, "predictions")
    return _pair(predicted, source_of(truth, "label"), source_of(mask, "mask") if mask else None).check()


def pairs_of_config(config: Mapping[str, Any], truths: Sequence[str], masks: Sequence[str]) -> Iterator[Pair]:
    """The predictions of a config, and the truth for each.

    Args:
        config: of the prediction.
        truths: one for each volume, or one ``:DATASET`` in the input files; without them the dataset
            ``predictor.gt_internal_path`` or ``loaders.label_internal_path`` of the input files.
        masks: the same; without them all voxels count.

    Raises:
        EvaluationError: something is missing, or does not fit.
    """
    loaders, predictor = mapping(config.get("loaders")), mapping(config.get("predictor"))
    inputs = [Path(path) for path in datasets.files(loaders, "test")]
    if not inputs:
        raise EvaluationError("the config names no volumes in loaders.test.file_paths.")
    own = predictor.get("gt_internal_path") or loaders.get("label_internal_path") or "label"
    wanted = _for_each(inputs, truths or [f":{own}"], "--truth")
    counted = _for_each(inputs, masks, "--mask") if masks else [None] * len(inputs)
    for source, truth, mask in zip(inputs, wanted, counted, strict=True):
        path = output_path(source, loaders.get("output_dir"), format_of(predictor))
        if not path.exists():
            is_partial = partial_path(path).is_dir()
            more = "Run predict3dunet with predictor: {resume: true}" if is_partial else "Run predict3dunet first"
            raise EvaluationError(f"{path}, the prediction of {source}, does not exist. {more}.")
        predicted = Source.open(path, str(predictor.get("output_dataset", "predictions")))
        raw = _if_there(source, str(loaders.get("raw_internal_path", "raw")))
        yield _pair(predicted, source_of(truth, own), source_of(mask, "mask") if mask else None, raw).check()


def stale(config: Mapping[str, Any], pair: Pair) -> str | None:
    """How a prediction was made in another way than its config says now, in words; None if it was not, or is not known.

    Args:
        config: of the prediction, completed from its checkpoint.
        pair: of the prediction, which names its raw volume.
    """
    held = pair.prediction.attributes
    paths = mapping(config.get("predictor")).get("ensemble") or [config.get("model_path")]
    if "config" not in held or pair.raw is None or not all(isinstance(p, str) and Path(p).is_file() for p in paths):
        return None
    settings = settings_of(config, pair.raw.path, [Path(path) for path in paths])
    return difference({name: part for name, part in settings.items() if name != "versions"}, held)


def _for_each(inputs: Sequence[Path], given: Sequence[str], option: str) -> list[str]:
    if len(given) == 1 and given[0].startswith(":"):
        return [f"{path}{given[0]}" for path in inputs]
    if len(given) != len(inputs):
        raise EvaluationError(
            f"{option} is given {len(given)} time(s), but the config has {len(inputs)} volumes. Give it once for each, "
            "in their order, or once as :DATASET for a dataset of the input files."
        )
    return list(given)


def _if_there(path: Path, key: str) -> Source | None:
    """A raw volume, which an evaluation can do without."""
    with suppress(EvaluationError):
        return Source.open(path, key)
    return None


def _pair(prediction: Source, truth: Source, mask: Source | None, raw: Source | None = None) -> Pair:
    held, spread = prediction.attributes, None
    if raw is None and isinstance(path := held.get("raw"), str):
        raw = _if_there(Path(path), str(held.get("raw_internal_path", "raw")))
    with opened(prediction.path) as file:
        if SPREAD in file and prediction.key != SPREAD:
            spread = Source.open(prediction.path, SPREAD)
    return Pair(prediction, truth, raw, mask, spread)

"""The keys of this project in the ``predictor`` section: pure data, nothing is predicted."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from p3d_regression.errors import ConfigError
from p3d_regression.fix import delete, write
from p3d_regression.model.precision import FULL, KEY, checked
from p3d_regression.text import fold

SECTION = "predictor"

BLEND = f"{SECTION}.blend"
COMPRESSION = f"{SECTION}.compression"
RESUME = f"{SECTION}.resume"
TTA = f"{SECTION}.tta"
ENSEMBLE = f"{SECTION}.ensemble"
OUTPUT = f"{SECTION}.output"
PRECISION = f"{SECTION}.{KEY}"

_PLACES = (BLEND, OUTPUT, COMPRESSION, RESUME, TTA, ENSEMBLE, PRECISION)

#: The keys of the section that are this project's.
KEYS = tuple(place.removeprefix(f"{SECTION}.") for place in _PLACES)

#: The dataset of the standard deviations among the members of an ensemble and the orientations.
SPREAD = "spread"

#: With ``none`` the last one of overlapping patches stays, as in pytorch-3dunet.
Blend = Literal["gaussian", "mean", "none"]
Format = Literal["hdf5", "zarr"]
Compression = Literal["gzip", "lzf", "zstd"]

_BLENDS = ("gaussian", "mean", "none")
_OUTPUTS = ("hdf5", "zarr")
_COMPRESSIONS = ("gzip", "lzf", "zstd", "none")
_TTAS = ("flips", "rotations", "none")

#: The axes of a volume, as ``directions`` names them.
AXES = "zyx"


@dataclass(frozen=True)
class Tta:
    """Test-time augmentation: in which orientations a patch is predicted.

    Attributes:
        rotates: whether axes are exchanged as well as mirrored.
        directions: for an axis of the volume (0 to 2 for Z, Y, X) the output channel that is the component of a vector
            along it; it changes its sign where the axis is mirrored.
    """

    rotates: bool
    directions: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a ``predictor`` section says with the keys of this project.

    Attributes:
        blend: how overlapping patches are weighted.
        output: the format of the prediction.
        compression: of the prediction; None for none.
        resume: whether an interrupted prediction goes on.
        tta: test-time augmentation.
        ensemble: paths of checkpoints.
        precision: of the layers of the network, see :mod:`p3d_regression.model.precision`.
    """

    blend: Blend = "gaussian"
    compression: Compression | None = "gzip"
    resume: bool = False
    tta: Tta | None = None
    ensemble: Sequence[str] = ()
    output: Format = "hdf5"
    precision: str = FULL

    @property
    def averages(self) -> bool:
        """Whether overlapping patches are averaged; else the last one stays."""
        return self.blend != "none"

    @property
    def has_spread(self) -> bool:
        """Whether each voxel is predicted several times, so that there is a spread."""
        return self.tta is not None or len(self.ensemble) > 1


def format_of(section: Mapping[Any, Any]) -> Format:
    """The format of the predictions of a ``predictor`` section; of a value that is not understood, HDF5.

    >>> format_of({"output": "Zarr"}), format_of({})
    ('zarr', 'hdf5')
    """
    value = section.get("output")
    return "zarr" if isinstance(value, str) and fold(value) == "zarr" else "hdf5"


def options_of(section: Mapping[Any, Any]) -> Options | None:
    """What a ``predictor`` section says with the keys of this project; None where pytorch-3dunet predicts in its way.

    Raises:
        ConfigError: a value is not understood, or two contradict each other.

    >>> options_of({"name": "StandardPredictor", "blend": "none"}), options_of({"blend": "Mean"}).blend
    (None, 'mean')
    """
    blend: Any = _one_of(BLEND, section.get("blend"), _BLENDS)
    compression: Any = _one_of(COMPRESSION, section.get("compression"), _COMPRESSIONS)
    resume, tta, ensemble = section.get("resume"), _tta(section.get("tta")), _ensemble(section.get("ensemble"))
    if resume is not None and not isinstance(resume, bool):
        raise ConfigError(RESUME, f"{reprlib.repr(resume)} is neither true nor false.", write(RESUME, True))
    output: Any = _one_of(OUTPUT, section.get("output"), _OUTPUTS)
    precision = checked(section.get(KEY, FULL), PRECISION) if section.get(KEY) is not None else FULL
    others = {COMPRESSION: compression, RESUME: resume, TTA: tta, ENSEMBLE: ensemble, PRECISION: precision != FULL}
    used = [place for place, value in others.items() if value]
    if compression == ("lzf" if output == "zarr" else "zstd"):
        what = (
            "lzf is of HDF5; Zarr has zstd and gzip." if output == "zarr" else "zstd is of Zarr; HDF5 has gzip and lzf."
        )
        raise ConfigError(COMPRESSION, what, delete(COMPRESSION))
    if blend == "none" and used and output != "zarr":
        message = f"none leaves the prediction to pytorch-3dunet, which has no {used[0].removeprefix(f'{SECTION}.')}."
        raise ConfigError(BLEND, message, write(BLEND, "gaussian"))
    if blend in (None, "none") and not used and output is None:
        return None
    default: Compression = "gzip" if output != "zarr" else "zstd"
    return Options(
        blend or "gaussian",
        None if compression == "none" else compression or default,
        bool(resume),
        tta,
        ensemble,
        output or "hdf5",
        precision,
    )


#: Values of ``performance_metric`` that are pytorch-3dunet's own; they compare class numbers.
SEGMENTATION_METRICS = ("dice", "mean_iou")


def is_ours(metric: object) -> bool:
    """Whether a ``performance_metric`` is computed by this project.

    >>> is_ours("R2Score"), is_ours("dice"), is_ours(None)
    (True, False, False)
    """
    return metric is not None and metric not in SEGMENTATION_METRICS


def obstacle(section: Mapping[str, Any]) -> ConfigError | None:
    """What in a ``predictor`` section cannot be done together with blending; None if nothing."""
    if section.get("save_segmentation"):
        message = "class numbers cannot be blended."
        return ConfigError("predictor.save_segmentation", message, write("predictor.save_segmentation", False))
    if section.get("performance_metric") in SEGMENTATION_METRICS:
        message = "dice and mean_iou compare class numbers, which blending does not make."
        return ConfigError("predictor.performance_metric", message, write("predictor.performance_metric", None))
    if section.get("output_dataset") == SPREAD:
        message = f"{SPREAD} is the dataset of the standard deviations."
        return ConfigError("predictor.output_dataset", message, write("predictor.output_dataset", "predictions"))
    return None


def _one_of(place: str, value: object, names: tuple[str, ...]) -> str | None:
    """The name that a value stands for; None where there is no value."""
    if value is None:
        return None
    if isinstance(value, str) and fold(value) in names:
        return fold(value)
    near = get_close_matches(fold(value), names, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else "."
    message = f"{reprlib.repr(value)} is not one of {', '.join(names)}{hint}"
    raise ConfigError(place, message, write(place, near[0] if near else names[0]))


def _tta(value: object) -> Tta | None:
    if not isinstance(value, Mapping):
        name = _one_of(TTA, value, _TTAS)
        return None if name in (None, "none") else Tta(name == "rotations")
    if unknown := [key for key in value if key not in ("name", "directions")]:
        raise ConfigError(f"{TTA}.{unknown[0]}", "is not one of name, directions.", delete(f"{TTA}.{unknown[0]}"))
    name = _one_of(f"{TTA}.name", value.get("name"), _TTAS[:2])
    if name is None:
        raise ConfigError(TTA, "has no name, which is flips or rotations.", write(f"{TTA}.name", "flips"))
    given = value.get("directions") or {}
    place, example = f"{TTA}.directions", dict(zip(AXES, range(3), strict=True))
    # YAML 1.1 reads the letter y as a text, but some writers quote it, and some write capitals
    named = {str(axis).lower(): channel for axis, channel in given.items()} if isinstance(given, Mapping) else {"": 0}
    numbers = [channel for channel in named.values() if type(channel) is int and channel >= 0]
    if set(named) - set(AXES) or len(set(numbers)) < len(named):
        message = (
            f"{reprlib.repr(given)} does not give an output channel, counted from 0, for each of the axes z, y, x that "
            "a vector has a component along."
        )
        raise ConfigError(place, message, write(place, example, note="output channels of the components of a vector"))
    if name == "rotations" and named and len(named) < len(AXES):
        message = f"{reprlib.repr(given)} does not name z, y and x, which rotations exchange."
        raise ConfigError(place, message, write(f"{TTA}.name", "flips"))
    return Tta(name == "rotations", {AXES.index(axis): channel for axis, channel in named.items()})


def _ensemble(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and value and all(isinstance(path, str) and path for path in value):
        return tuple(value)
    example = [value] if isinstance(value, str) and value else ["best_checkpoint.pytorch"]
    raise ConfigError(ENSEMBLE, f"{reprlib.repr(value)} is not a list of checkpoints.", write(ENSEMBLE, example))

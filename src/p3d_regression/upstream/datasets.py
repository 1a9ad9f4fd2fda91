"""Datasets of pytorch-3dunet, asked for the labels that a loss will see, without a volume in memory.

Patches and transforms are those of its own dataset class. Random augmentation is not applied: it moves voxels, or a
rule warns of it.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import h5py
import numpy as np

from p3d_regression.labels.moments import Array
from p3d_regression.labels.scan import Opened, Volume, VolumeError, moments_of
from p3d_regression.upstream import introspection, transforms

#: Of HDF5's decompressed chunks, in bytes, for patches that overlap: a layer of them through a large volume.
_CACHE = 2**27


def files(phase_config: Mapping[str, Any]) -> list[str]:
    """The HDF5 files of a phase, as upstream finds them: directories are searched."""
    paths = [str(path) for path in phase_config.get("file_paths") or []]
    module = import_module("pytorch3dunet.datasets.hdf5")
    # a function since 1.5 or so, a method before
    traverse = getattr(module, "traverse_h5_paths", None) or module.AbstractHDF5Dataset.traverse_h5_paths
    found: list[str] = traverse(paths)
    return found


def is_hdf5(loaders: Mapping[str, Any]) -> bool:
    """Whether the dataset class of a ``loaders`` section reads HDF5 files."""
    base = import_module("pytorch3dunet.datasets.hdf5").AbstractHDF5Dataset
    cls = _dataset_class(loaders)
    return cls is not None and issubclass(cls, base)


def _dataset_class(loaders: Mapping[str, Any]) -> Any:
    return introspection.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset")


def can_stream(loaders: Mapping[str, Any]) -> bool:
    """Whether the dataset class makes patches as upstream's own do, without having read the volumes.

    They do since 1.5 or so. A third party's class that makes labels of its own is asked for them one by one.
    """
    cls = _dataset_class(loaders)
    own = ("__getitem__", "get_label_patch", "is_lazy")
    methods = [getattr(cls, name, None) for name in own]
    return is_hdf5(loaders) and all(
        str(getattr(method, "__module__", "")).startswith("pytorch3dunet.datasets.") for method in methods
    )


def takes_2d_volumes() -> bool:
    """Whether upstream reads (Y, X) as (1, Y, X); it did until 1.5 or so."""
    return hasattr(import_module("pytorch3dunet.datasets.hdf5").AbstractHDF5Dataset, "fetch_and_check")


def patch_shape_error(slice_builder: Mapping[str, Any]) -> str | None:
    """What upstream says against the shape of the patches."""
    check = getattr(import_module("pytorch3dunet.datasets.utils").SliceBuilder, "_check_patch_shape", None)
    if check is None or slice_builder.get("skip_shape_check", False):
        return None
    try:
        check(tuple(slice_builder["patch_shape"]))
    except AssertionError as error:
        return str(error)
    return None


def patches_along(size: int, patch: int, stride: int) -> int:
    """How many patches upstream cuts along an axis."""
    builder = import_module("pytorch3dunet.datasets.utils").SliceBuilder
    return sum(1 for _ in builder._gen_indices(size, patch, stride))


def stored_volume(path: str, key: str) -> Volume:
    """A dataset of shape (D, H, W) or (C, D, H, W) as it is stored."""
    with h5py.File(path, "r") as file:
        dataset = file[key]
        return Volume(
            path=path,
            patches=[tuple(slice(0, n) for n in dataset.shape)],
            opened=_opener(path, key),
            transform=lambda values: values,
            shape=dataset.shape,
            chunks=dataset.chunks,
            voxelwise=True,
        )


class Shown(NamedTuple):
    """A patch of a training.

    Attributes:
        raw: as the network is given it, shape (C, D, H, W).
        label: as the loss is given it.
        calm: the raw values without random transforms.
        stored, stored_label: the same voxels of the file; None where a dataset class of a third party does not tell.
    """

    raw: Array
    label: Array
    calm: Array
    stored: Array | None = None
    stored_label: Array | None = None


def shown(loaders: Mapping[str, Any], phase: str, most: int | None = None) -> Iterator[Shown]:
    """The patches of a phase as a training is shown them, one by one.

    Random transforms that move voxels are left out, since raw volume and labels move together. Others, such as noise,
    draw once.

    Args:
        loaders: the section of the config.
        phase: ``train`` or ``val``.
        most: patches, evenly spread over all of them; None for all.

    Raises:
        Exception: whatever upstream, h5py or a third party's dataset has to say against the data.
    """
    streams = can_stream(loaders)
    config = copy.deepcopy(dict(loaders)) | {"random_scale": None}
    transformer = config[phase]["transformer"]
    raw = [transforms.centred(step) for step in transformer["raw"] if not transforms.moves(step)]
    label = [transforms.centred(step) for step in transformer["label"] if not transforms.is_random(step)]
    config[phase]["transformer"] = {"raw": raw, "label": label}
    calm = copy.deepcopy(config)
    calm[phase]["transformer"]["raw"] = [step for step in raw if not transforms.is_random(step)]
    datasets = _create(config, phase, streams=streams)
    others = datasets if calm == config else _create(calm, phase, streams=streams)
    places = [(number, index) for number, dataset in enumerate(datasets) for index in range(len(dataset))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), most or len(places))).astype(int))
    with _same_random_numbers():
        for number, index in (places[at] for at in chosen):
            with introspection.quiet():
                yield _shown(datasets[number], others[number], index, streams=streams)


def _shown(dataset: Any, other: Any, index: int, *, streams: bool) -> Shown:
    if not streams:
        raw, label = (np.asarray(part) for part in dataset[index][:2])
        return Shown(raw, label, raw if other is dataset else np.asarray(other[index][0]))
    stored = np.asarray(dataset.get_raw_patch(dataset.raw_slices[index]))
    stored_label = np.asarray(dataset.get_label_patch(dataset.label_slices[index]))
    raw, label = np.asarray(dataset.raw_transform(stored)), np.asarray(dataset.label_transform(stored_label))
    calm = raw if other is dataset else np.asarray(other.raw_transform(stored))
    return Shown(raw, label, calm, stored, stored_label)


@dataclass(frozen=True)
class InputVolume:
    """The raw volume of a prediction.

    Attributes:
        path, key: file and dataset.
        shape: (D, H, W).
        transform: from values of the file to what the network is given, shape (C, D, H, W).
    """

    path: str
    key: str
    shape: tuple[int, ...]
    transform: Callable[[Array], Any]

    def read(self, start: Sequence[int], shape: Sequence[int]) -> Array:
        """Values of the file, shape (D, H, W) or (C, D, H, W)."""
        with h5py.File(self.path, "r") as file:
            place = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
            return np.asarray(file[self.key][(..., *place)])


def input_volume(loaders: Mapping[str, Any]) -> InputVolume:
    """The first raw volume of a prediction.

    Args:
        loaders: the section of the config.

    Raises:
        Exception: whatever upstream or h5py has to say against the data.
    """
    dataset = _create(copy.deepcopy(dict(loaders)), "test", streams=True)[0]
    path, key = str(dataset.file_path), str(dataset.raw_internal_path)
    with h5py.File(path, "r") as file:
        return InputVolume(path, key, file[key].shape[-3:], dataset.raw_transform)


def _opener(path: str, key: str) -> Opened:
    @contextmanager
    def opened() -> Iterator[Callable[[Any], Array]]:
        with h5py.File(path, "r", rdcc_nbytes=_CACHE, rdcc_nslots=40009) as file:
            dataset = file[key]
            yield lambda part: np.asarray(dataset[part])

    return opened


def label_volumes(loaders: Mapping[str, Any], phase: str) -> list[Volume]:
    """The labels of each file of a phase.

    Args:
        loaders: the section of the config.
        phase: ``train`` or ``val``.

    Raises:
        Exception: whatever upstream, h5py or a third party's dataset has to say against the data.
    """
    streams = can_stream(loaders)
    config = _deterministic(copy.deepcopy(dict(loaders)), phase, streams=streams)
    datasets = _create(config, phase, streams=streams)
    if not streams:
        return [_of_any(dataset) for dataset in datasets]
    return [_of_hdf5(dataset, bool(loaders.get("global_normalization"))) for dataset in datasets]


def _create(config: dict[str, Any], phase: str, *, streams: bool) -> list[Any]:
    cls = _dataset_class(config)
    if streams:
        # the same dataset class, told to leave the volumes in their files while it makes patches
        cls = type(cls.__name__, (cls,), {"is_lazy": lambda self: True})
    with introspection.quiet(), _same_random_numbers():
        datasets = list(cls.create_datasets(config, phase))
    if is_hdf5(config) and len(datasets) != (expected := len(files(config[phase]))):
        # as versions before 1.7 do, with an error in the log
        raise RuntimeError(
            f"pytorch-3dunet skips {expected - len(datasets)} of {expected} files: it cannot read or cut them"
        )
    return datasets


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Give back what upstream draws for the augmentation of a dataset: a training that comes after gets the same."""
    state = getattr(import_module("pytorch3dunet.augment.transforms"), "GLOBAL_RANDOM_STATE", None)
    before = state.get_state() if state is not None else None
    try:
        yield
    finally:
        if state is not None:
            state.set_state(before)


def _of_hdf5(dataset: Any, by_raw: bool) -> Volume:
    transform = _with_statistics_of_raw(dataset) if by_raw else dataset.label_transform
    with h5py.File(dataset.file_path, "r") as file:
        source = file[dataset.label_internal_path]
        return Volume(
            path=str(dataset.file_path),
            patches=dataset.label_slices,
            opened=_opener(dataset.file_path, dataset.label_internal_path),
            transform=lambda labels: np.asarray(transform(labels)),
            shape=source.shape,
            chunks=source.chunks,
            voxelwise=all(transforms.is_voxelwise(step) for step in transform.transforms),
        )


def _of_any(dataset: Any) -> Volume:
    """Of a dataset that this project knows nothing about, or that has its volumes in memory already."""

    def read(index: int) -> Array:
        with introspection.quiet():
            return np.asarray(dataset[index][1])

    return Volume(
        path=str(getattr(dataset, "file_path", "")),
        patches=range(len(dataset)),
        opened=lambda: nullcontext(read),
        transform=lambda labels: labels,
    )


def _deterministic(config: dict[str, Any], phase: str, *, streams: bool) -> dict[str, Any]:
    transformer = config[phase]["transformer"]
    transformer["label"] = [transforms.centred(step) for step in transformer["label"] if not transforms.is_random(step)]
    config["random_scale"] = None
    if streams:
        # the raw volume is not looked at; its statistics are taken where a label transform wants them
        transformer["raw"] = []
        config["global_normalization"] = False
    return config


def _with_statistics_of_raw(dataset: Any) -> Any:
    """The label transform as upstream makes it with ``global_normalization``: with statistics of the raw volume."""
    module = import_module("pytorch3dunet.augment.transforms")
    wanted = transforms.arguments_of(dataset.transformer.phase_config["label"])
    statistics: dict[str, Any] = dict.fromkeys(("pmin", "pmax", "mean", "std"))
    path, key = dataset.file_path, dataset.raw_internal_path
    if wanted & {"mean", "std"}:
        moments = moments_of(stored_volume(path, key), lambda voxels: None)
        with h5py.File(path, "r") as file:
            # numpy's mean has this type, and a label transform computes in it
            number = np.mean(np.zeros(1, file[key].dtype)).dtype.type
        is_number = moments.finite == moments.count
        statistics |= {"mean": number(moments.mean if is_number else np.nan)}
        statistics |= {"std": number(moments.std if is_number else np.nan)}
    if wanted & {"pmin", "pmax"}:
        statistics |= _percentiles(dataset)
    return module.Transformer(dataset.transformer.phase_config, statistics).label_transform()


def _percentiles(dataset: Any) -> dict[str, Any]:
    """As upstream takes them of the raw volume; they cannot be had from a part of it."""
    with h5py.File(dataset.file_path, "r") as file:
        raw = file[dataset.raw_internal_path][()]
    return {"pmin": np.percentile(raw, 1), "pmax": np.percentile(raw, 99.6)}


def casts_to_integer(step: Mapping[str, Any]) -> bool:
    """Whether a label transform makes whole numbers of all labels."""
    if step.get("name") != "ToTensor" or not isinstance(step.get("dtype"), str):
        return False
    try:
        return np.dtype(step["dtype"]).kind in "iub"
    except TypeError:
        return False  # upstream says so when it reads the first patch


def changed_by_cast(loaders: Mapping[str, Any], phase: str) -> bool:
    """Whether the label transforms cast labels to whole numbers of a type that cannot hold them."""
    steps = loaders[phase]["transformer"]["label"]
    types = [np.dtype(step["dtype"]) for step in steps if casts_to_integer(step)]
    if not types:
        return False
    uncast = copy.deepcopy(dict(loaders))
    uncast[phase]["transformer"]["label"] = [
        {**step, "dtype": "float64"} if casts_to_integer(step) else step for step in steps
    ]
    for volume in label_volumes(uncast, phase):
        with closing(volume.blocks()) as blocks, np.errstate(invalid="ignore", over="ignore"):
            for block, _, _ in blocks:
                values = block[np.isfinite(block)]
                if any((values.astype(dtype) != values).any() for dtype in types):
                    return True
    return False


def broken_transforms(loaders: Mapping[str, Any], phase: str) -> list[tuple[str, str]]:
    """Try every transform on the first patch of a phase, also those that upstream takes at random.

    Returns:
        Key below ``transformer`` and error of the first one that breaks, of ``raw`` and of ``label``.
    """
    config = copy.deepcopy(dict(loaders))
    kinds = ("raw", "label") if phase != "test" else ("raw",)
    steps = {kind: config[phase]["transformer"][kind] for kind in kinds}
    config[phase]["transformer"] = {"raw": [], "label": []}
    config |= {"global_normalization": False, "random_scale": None}
    dataset = _create(config, phase, streams=True)[0]
    paths = {"raw": dataset.raw_internal_path, "label": dataset.label_internal_path}
    slices = {"raw": dataset.raw_slices, "label": dataset.label_slices}
    patches = {kind: _first_patch(dataset.file_path, paths[kind], slices[kind][0]) for kind in kinds}
    module = import_module("pytorch3dunet.datasets.utils")
    by_raw = bool(loaders.get("global_normalization", False))
    # of the patch alone: a mean breaks nothing, whatever it is
    statistics = module.calculate_stats(patches["raw"], not by_raw)
    if by_raw and transforms.arguments_of([step for kind in kinds for step in steps[kind]]) & {"pmin", "pmax"}:
        statistics |= _percentiles(dataset)
    return [
        found for kind in kinds for found in transforms.failures_of(phase, kind, steps[kind], statistics, patches[kind])
    ]


def _first_patch(path: str, key: str, patch: Any) -> Array:
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[key][patch])
    except Exception as error:
        raise VolumeError(f"{path}: {type(error).__name__}: {error}") from error

"""Datasets of pytorch-3dunet, asked for the labels that a loss will see, without a volume in memory.

Patches and transforms are those of its own dataset class. Random augmentation is not applied: it moves voxels, or a
rule warns of it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import import_module
from typing import Any

import numpy as np

from p3d_regression.labels.moments import Array
from p3d_regression.labels.scan import Volume, VolumeError
from p3d_regression.upstream import introspection, transforms
from p3d_regression.upstream.stored import opener, percentiles, statistics_of_raw
from p3d_regression.volumes import zarr_store
from p3d_regression.volumes.opening import opened

#: The module of :class:`ZarrDataset`, which imports pytorch-3dunet.
ZARR = "p3d_regression.upstream.zarr_dataset"


def files(loaders: Mapping[str, Any], phase: str) -> list[str]:
    """The files of a phase, as upstream finds them: directories are searched. Of Zarr the directories of the arrays.

    Args:
        loaders: the section of the config.
        phase: ``train``, ``val`` or ``test``.
    """
    section = loaders.get(phase)
    given = section.get("file_paths") if isinstance(section, Mapping) else None
    paths = [str(path) for path in given or []]
    if is_zarr(loaders):
        return zarr_store.paths(paths, str(loaders.get("raw_internal_path", "raw")))
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


def is_zarr(loaders: Mapping[str, Any]) -> bool:
    """Whether the dataset class of a ``loaders`` section is this project's own for Zarr."""
    return str(getattr(_dataset_class(loaders), "__module__", "")) == ZARR


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
        str(getattr(method, "__module__", "")).startswith(("pytorch3dunet.datasets.", ZARR)) for method in methods
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
    datasets = create(config, phase, streams=streams)
    if not streams:
        return [_of_any(dataset) for dataset in datasets]
    return [_of_hdf5(dataset, bool(loaders.get("global_normalization"))) for dataset in datasets]


def units_of_labels(loaders: Mapping[str, Any]) -> str | None:
    """The unit of the labels of a training, if the first file gives one in an attribute ``units`` or ``unit``."""
    # a config next to a checkpoint may name files that have gone
    with suppress(Exception), opened(files(loaders, "train")[0]) as file:
        held = file[loaders.get("label_internal_path", "label")].attrs
        found = next((held[name] for name in ("units", "unit") if name in held), None)
        return found if isinstance(found, str) and found else None
    return None


def create(config: dict[str, Any], phase: str, *, streams: bool) -> list[Any]:
    cls = _dataset_class(config)
    if streams:
        # the same dataset class, told to leave the volumes in their files while it makes patches
        cls = type(cls.__name__, (cls,), {"is_lazy": lambda self: True})
    with introspection.quiet(), same_random_numbers():
        datasets = list(cls.create_datasets(config, phase))
    if is_hdf5(config) and len(datasets) != (expected := len(files(config, phase))):
        # as versions before 1.7 do, with an error in the log
        raise RuntimeError(
            f"pytorch-3dunet skips {expected - len(datasets)} of {expected} files: it cannot read or cut them"
        )
    return datasets


@contextmanager
def same_random_numbers() -> Iterator[None]:
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
    with opened(dataset.file_path) as file:
        source = file[dataset.label_internal_path]
        return Volume(
            path=str(dataset.file_path),
            patches=dataset.label_slices,
            opened=opener(dataset.file_path, dataset.label_internal_path),
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
    config = dataset.transformer.phase_config
    statistics = statistics_of_raw(dataset.file_path, dataset.raw_internal_path, config["label"])
    return module.Transformer(config, statistics).label_transform()


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
    dataset = create(config, phase, streams=True)[0]
    paths = {"raw": dataset.raw_internal_path, "label": dataset.label_internal_path}
    slices = {"raw": dataset.raw_slices, "label": dataset.label_slices}
    patches = {kind: _first_patch(dataset.file_path, paths[kind], slices[kind][0]) for kind in kinds}
    module = import_module("pytorch3dunet.datasets.utils")
    by_raw = bool(loaders.get("global_normalization", False))
    # of the patch alone: a mean breaks nothing, whatever it is
    statistics = module.calculate_stats(patches["raw"], not by_raw)
    if by_raw and transforms.arguments_of([step for kind in kinds for step in steps[kind]]) & {"pmin", "pmax"}:
        statistics |= percentiles(dataset.file_path, dataset.raw_internal_path)
    return [
        found for kind in kinds for found in transforms.failures_of(phase, kind, steps[kind], statistics, patches[kind])
    ]


def _first_patch(path: str, key: str, patch: Any) -> Array:
    try:
        with opened(path) as file:
            return np.asarray(file[key][patch])
    except Exception as error:
        raise VolumeError(f"{path}: {type(error).__name__}: {error}") from error

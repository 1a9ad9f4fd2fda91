"""Upstream's datasets, asked for the labels that a loss will see, without a volume in memory.

Patches and transforms are those of upstream's own dataset class. Random augmentation is left out: it moves voxels, or a
rule warns of it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import h5py
import numpy as np

from p3d_regression.labels import Volume, moments_of
from p3d_regression.upstream import facts

#: Of HDF5's decompressed chunks, in bytes, for patches that overlap: a layer of them through a large volume.
_CACHE = 2**27

_RANDOM = ("RandomFlip", "RandomRotate90", "RandomRotate")


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
    cls = facts.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset")
    return cls is not None and issubclass(cls, base)


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


def label_volumes(loaders: Mapping[str, Any], phase: str, stack: ExitStack) -> Iterator[Volume]:
    """The labels of each file of a phase, opened one after the other.

    Args:
        loaders: the section of the config.
        phase: ``train`` or ``val``.
        stack: closes the files.

    Raises:
        Exception: whatever upstream, h5py or a third party's dataset has to say against the data.
    """
    cls: Any = facts.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset")
    assert cls is not None, "the dataset class has been checked before"
    streams = can_stream(loaders)
    config = _deterministic(copy.deepcopy(dict(loaders)), phase, streams=streams)
    with facts.quiet():
        datasets = iter((_streaming(cls) if streams else cls).create_datasets(config, phase))
    while True:
        with facts.quiet():
            dataset = next(datasets, None)
        if dataset is None:
            return
        yield _of_hdf5(dataset, bool(loaders.get("global_normalization")), stack) if streams else _of_any(dataset)


def can_stream(loaders: Mapping[str, Any]) -> bool:
    """Whether upstream's dataset makes patches without having read the volumes; it does since 1.5 or so."""
    cls = facts.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset")
    return is_hdf5(loaders) and callable(getattr(cls, "is_lazy", None)) and hasattr(cls, "get_label_patch")


def stored_volume(path: str, dataset: h5py.Dataset) -> Volume:
    """A dataset of shape (D, H, W) or (C, D, H, W) as it is stored."""
    return Volume(
        path=path,
        patches=[tuple(slice(0, n) for n in dataset.shape)],
        read=lambda box: np.asarray(dataset[box]),
        transform=lambda values: values,
        shape=dataset.shape,
        chunks=dataset.chunks,
        voxelwise=True,
    )


def _streaming(cls: Any) -> Any:
    """The same dataset class, told to leave the volumes in their files while it makes patches."""
    return type(cls.__name__, (cls,), {"is_lazy": lambda self: True})


def _of_hdf5(dataset: Any, by_raw: bool, stack: ExitStack) -> Volume:
    file = stack.enter_context(h5py.File(dataset.file_path, "r", rdcc_nbytes=_CACHE, rdcc_nslots=40009))
    source = file[dataset.label_internal_path]
    transform = dataset.label_transform
    if by_raw:
        transform = _with_statistics_of_raw(dataset, file[dataset.raw_internal_path])
    return Volume(
        path=str(dataset.file_path),
        patches=dataset.label_slices,
        read=lambda patch: np.asarray(source[patch]),
        transform=lambda labels: np.asarray(transform(labels)),
        shape=source.shape,
        chunks=source.chunks,
        voxelwise=all(_is_voxelwise(step) for step in transform.transforms),
    )


def _of_any(dataset: Any) -> Volume:
    """Of a dataset that this project knows nothing about, or that has its volumes in memory already."""
    return Volume(
        path=str(getattr(dataset, "file_path", "")),
        patches=range(len(dataset)),
        read=lambda index: np.asarray(dataset[index][1]),
        transform=lambda labels: labels,
    )


def _deterministic(config: dict[str, Any], phase: str, *, streams: bool) -> dict[str, Any]:
    transformer = config[phase]["transformer"]
    transformer["label"] = [step for step in transformer["label"] if not _is_random(step)]
    config["random_scale"] = None
    if streams:
        # the raw volume is not looked at; its statistics are taken where a label transform wants them
        transformer["raw"] = []
        config["global_normalization"] = False
    return config


def _is_random(step: Mapping[str, Any]) -> bool:
    cls = facts.transform_class(step.get("name"))
    if cls is None:
        return False
    if cls.__name__ == "CropToFixed":
        return not step.get("centered", False)
    return cls.__name__ in _RANDOM or "execution_probability" in facts.arguments(cls)


def _is_voxelwise(step: Any) -> bool:
    """Whether an instance of a label transform looks at each voxel on its own."""
    match type(step).__name__:
        case "ToTensor":
            return not step.normalize
        case "Standardize":
            return step.mean is not None
        case "Normalize":
            return step.min_value is not None and step.max_value is not None
        case "Identity" | "LabelToTensor":
            return True
    return False


def _with_statistics_of_raw(dataset: Any, raw: h5py.Dataset) -> Any:
    """The label transform as upstream makes it with ``global_normalization``: with statistics of the raw volume."""
    module = import_module("pytorch3dunet.augment.transforms")
    steps = dataset.transformer.phase_config["label"]
    wanted = {name for step in steps for name in facts.arguments(facts.transform_class(step["name"]) or object)}
    statistics: dict[str, Any] = dict.fromkeys(("pmin", "pmax", "mean", "std"))
    if wanted & {"mean", "std"}:
        moments = moments_of(stored_volume(dataset.file_path, raw), lambda voxels: None)
        statistics |= {"mean": moments.mean, "std": moments.std}
    if wanted & {"pmin", "pmax"}:
        # percentiles cannot be had from a part of the voxels
        statistics |= {"pmin": np.percentile(raw[()], 1), "pmax": np.percentile(raw[()], 99.6)}
    return module.Transformer(dataset.transformer.phase_config, statistics).label_transform()

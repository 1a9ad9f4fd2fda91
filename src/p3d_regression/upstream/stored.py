"""Volumes as they are stored, and the statistics of a raw volume, read in parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.labels.moments import Array
from p3d_regression.labels.scan import Opened, Volume, moments_of
from p3d_regression.upstream import transforms
from p3d_regression.volumes.opening import opened

#: Of HDF5's decompressed chunks, in bytes, for patches that overlap: a layer of them through a large volume.
_CACHE = 2**27


def stored_volume(path: str, key: str) -> Volume:
    """A dataset of shape (D, H, W) or (C, D, H, W) as it is stored."""
    with opened(path) as file:
        dataset = file[key]
        return Volume(
            path=path,
            patches=[tuple(slice(0, n) for n in dataset.shape)],
            opened=opener(path, key),
            transform=lambda values: values,
            shape=dataset.shape,
            chunks=dataset.chunks,
            voxelwise=True,
        )


def opener(path: str, key: str) -> Opened:
    """Opens a dataset, to be read in parts."""

    @contextmanager
    def reading() -> Iterator[Callable[[Any], Array]]:
        with opened(path, rdcc_nbytes=_CACHE, rdcc_nslots=40009) as file:
            dataset = file[key]
            yield lambda part: np.asarray(dataset[part])

    return reading


def statistics_of_raw(path: str, key: str, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``global_normalization`` gives to transforms: the same numbers as pytorch-3dunet, as far as they are used.

    Args:
        path, key: of the raw volume.
        steps: the transforms, as a config names them.

    Raises:
        ConfigError: they are percentiles of a Zarr volume, which would have to be in memory.
    """
    wanted = transforms.arguments_of(list(steps))
    found: dict[str, Any] = dict.fromkeys(("pmin", "pmax", "mean", "std"))
    if wanted & {"mean", "std"}:
        moments = moments_of(stored_volume(path, key), lambda voxels: None)
        with opened(path) as file:
            # numpy's mean has this type, and a transform computes in it
            number = np.mean(np.zeros(1, file[key].dtype)).dtype.type
        is_number = moments.finite == moments.count
        found |= {"mean": number(moments.mean if is_number else np.nan)}
        found |= {"std": number(moments.std if is_number else np.nan)}
    if wanted & {"pmin", "pmax"}:
        found |= percentiles(path, key)
    return found


def percentiles(path: str, key: str) -> dict[str, Any]:
    """As pytorch-3dunet takes them of the raw volume; they cannot be had from a part of it.

    Raises:
        ConfigError: it is not an HDF5 dataset.
    """
    with opened(path) as file:
        dataset = file[key]
        if type(dataset).__module__.startswith("p3d_regression."):
            message = "is true, and PercentileNormalizer would need the whole Zarr volume in memory."
            raise ConfigError("loaders.global_normalization", message, write("loaders.global_normalization", False))
        raw = dataset[()]
    return {"pmin": np.percentile(raw, 1), "pmax": np.percentile(raw, 99.6)}

"""One volume of a prediction, blended: patch by patch through the network, plane by plane into the file."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from p3d_regression._version import __version__
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.fix import advise
from p3d_regression.prediction.blending import Array, Place, Window, mirrored, uncovered
from p3d_regression.prediction.spec import PLACE, Blend, obstacle
from p3d_regression.upstream import introspection
from p3d_regression.upstream.log import say

#: Attributes of a raw volume that hold for its prediction as well: voxel size, position, orientation.
_GEOMETRY = (
    "element_size_um",
    "voxel_size",
    "resolution",
    "spacing",
    "offset",
    "origin",
    "affine",
    "unit",
    "axis_units",
)

#: What a predictor and a dataset must have, so that patches can be blended.
_ATTRIBUTES = ("model", "output_dir", "out_channels", "device", "output_dataset", "prediction_channel")
_OF_DATASET = ("file_path", "raw_internal_path", "raw_slices", "volume_shape", "halo_shape")


def predict(predictor: Any, loader: Any, blend: Blend) -> None:
    """Predict the volume of a loader, as pytorch-3dunet's StandardPredictor does, but blend overlapping patches.

    The file appears under its name when it is complete.

    Args:
        predictor: of pytorch-3dunet.
        loader: of one test volume.
        blend: how overlapping patches are weighted.

    Raises:
        ConfigError: patches leave gaps, or the output would replace the input.
        UnsupportedUpstreamError: pytorch-3dunet is built differently.
    """
    dataset = loader.dataset
    lacking = [name for name in _ATTRIBUTES if not hasattr(predictor, name)]
    lacking += [name for name in _OF_DATASET if not hasattr(dataset, name)]
    if lacking:
        raise UnsupportedUpstreamError(f"{PLACE}: this pytorch3dunet predicts in another way (no {lacking[0]}).")
    if found := obstacle(vars(predictor)):
        raise found
    places: list[Place] = [tuple(place[-3:]) for place in dataset.raw_slices]
    shape = tuple(dataset.volume_shape)
    if gap := uncovered(places, shape):
        key = "loaders.test.slice_builder.stride_shape"
        raise ConfigError(
            key, f"the patches leave a gap along {gap}.", advise("write strides no larger than the patch")
        )
    _read_lazily(dataset)
    channels = 1 if predictor.prediction_channel is not None else predictor.out_channels
    start, forward = time.perf_counter(), 0.0
    path = _output_path(dataset, predictor.output_dir)
    with _written(path) as file:
        # one layer of chunks is written at once
        planes = max(1, min(16, shape[0]))
        chunks = (1, planes, min(64, shape[1]), min(64, shape[2]))
        out = file.create_dataset(
            predictor.output_dataset, (channels, *shape), "float32", chunks=chunks, compression="gzip"
        )

        def write(first: int, finished: Array) -> None:
            with _writing(path):
                out[:, first : first + finished.shape[1]] = finished

        window = Window(channels, places, shape, blend, planes, write)
        for seconds, patches in _predicted(predictor, loader):
            forward += seconds
            for patch in patches:
                window.add(patch)
        out.attrs.update(_attributes(predictor, dataset, blend))
    spent = time.perf_counter() - start
    say(f"{path}: {len(places)} patches blended ({blend}) in {spent:.1f} s, {forward / spent:.0%} of it in the network")


def _predicted(predictor: Any, loader: Any) -> Iterator[tuple[float, Array]]:
    """For each batch the seconds of the network, and its patches without halo, shape (N, C, D, H, W)."""
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    is_2d = introspection.module_of("pytorch3dunet.unet3d.model").is_model_2d(predictor.model)
    inside = tuple(slice(h, -h if h else None) for h in loader.dataset.halo_shape)
    chosen = predictor.prediction_channel
    predictor.model.eval()
    with torch.no_grad():
        for raw, _ in tqdm(loader):
            begin = time.perf_counter()
            raw = raw.to(predictor.device, non_blocking=True)
            output = predictor.model(raw.squeeze(-3) if is_2d else raw)
            output = (output.unsqueeze(-3) if is_2d else output)[(..., *inside)]
            patches = output.float().cpu().numpy()
            seconds = time.perf_counter() - begin
            yield seconds, patches if chosen is None else patches[:, chosen : chosen + 1]


def _output_path(dataset: Any, output_dir: str | None) -> Path:
    """As pytorch-3dunet names it."""
    source = Path(dataset.file_path)
    return (source.parent if output_dir is None else Path(output_dir)) / f"{source.stem}_predictions.h5"


@contextmanager
def _written(path: Path) -> Iterator[Any]:
    """A file that gets its name when it is complete; if anything fails, nothing is left.

    Raises:
        ConfigError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _writing(path):
            file = h5py.File(beside, "w")
        try:
            yield file
        finally:
            with _writing(path):
                file.close()
        with _writing(path):
            beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An error of the file system is one of the output, and not of the volume that is read.

    Raises:
        ConfigError: it is one.
    """
    try:
        yield
    except OSError as error:
        why, advice = os.strerror(error.errno) if error.errno else str(error), advise("free or change it")
        raise ConfigError("loaders.output_dir", f"{path} cannot be written: {why}.", advice) from error


def _attributes(predictor: Any, dataset: Any, blend: Blend) -> Mapping[str, Any]:
    """What a file says of itself."""
    with h5py.File(dataset.file_path, "r") as file:
        of_raw = file[dataset.raw_internal_path].attrs
        found = {name: of_raw[name] for name in _GEOMETRY if name in of_raw}
    found |= {"axes": "czyx", "blend": blend, "p3d_regression": __version__, "raw": str(dataset.file_path)}
    found |= {"raw_internal_path": str(dataset.raw_internal_path), "halo_shape": list(dataset.halo_shape)}
    if predictor.prediction_channel is not None:
        found["prediction_channel"] = int(predictor.prediction_channel)
    return found


def _read_lazily(dataset: Any) -> None:
    """Let LazyHDF5Dataset read what it needs, in place of writing a padded copy into the input file."""
    is_lazy = getattr(dataset, "is_lazy", None)
    if is_lazy is not None and is_lazy():
        dataset.get_raw_padded_patch = partial(
            _padded_patch, str(dataset.file_path), dataset.raw_internal_path, tuple(dataset.halo_shape)
        )


def _padded_patch(path: str, key: str, halo: Sequence[int], place: Sequence[slice]) -> Any:
    """A part of a raw volume that is padded with its mirror image, of which only this part is read."""
    with h5py.File(path, "r") as file:
        dataset = file[key]
        shape = dataset.shape[-3:]
        parts = zip(place[-3:], halo, shape, strict=True)
        indices = [mirrored(part.start, part.stop, margin, n) for part, margin, n in parts]
        block = np.asarray(dataset[(..., *(slice(int(i.min()), int(i.max()) + 1) for i in indices))])
    z, y, x = (i - i.min() for i in indices)
    return block[..., z[:, None, None], y[None, :, None], x[None, None, :]]

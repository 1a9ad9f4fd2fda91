"""A prediction config from a checkpoint alone."""

from collections.abc import Sequence
from pathlib import Path

from p3d_regression._version import __version__
from p3d_regression.conversion.pairing import files_in, role
from p3d_regression.conversion.source import Source, open_source, sources_in
from p3d_regression.errors import VolumesError
from p3d_regression.model.contract import Contract, trained_with
from p3d_regression.planning.machine import this_machine
from p3d_regression.planning.plan import Plan
from p3d_regression.planning.prediction import Inputs, Trained, prediction
from p3d_regression.planning.run import FOR_EDITORS, PREDICT, SCHEMA, check_free, schema_text
from p3d_regression.upstream import checkpoints
from p3d_regression.volumes import image_file
from p3d_regression.volumes.writing import write_whole


def init_prediction(checkpoint: Path, files: Sequence[str], out: Path) -> tuple[Path, list[str]]:
    """Write a prediction config for a checkpoint.

    Args:
        checkpoint: of a training.
        files: to predict: HDF5 files or directories of them, or Zarr stores.
        out: directory of the config.

    Returns:
        The path of the config, and what it holds, in words.

    Raises:
        VolumesError: the checkpoint does not say how it was trained, or the files do not fit it.
    """
    check_free(out, [PREDICT])
    contract = _contract(checkpoint)
    patch = contract.patch_shape
    if contract.raw is None or not patch:
        raise VolumesError(
            f"{checkpoint} does not say which transforms of raw volumes and which patches it was trained with, and "
            "there is no training config next to it."
        )
    volumes = [source for file in files for source in _raw_of(Path(file))]
    if not volumes:
        raise VolumesError("name the files to predict after the checkpoint.")
    raw, is_zarr = volumes[0].key, volumes[0].path.is_dir()
    for source in volumes:
        if (source.key, source.path.is_dir()) != (raw, is_zarr):
            raise VolumesError(
                f"{source} and {volumes[0]} have their volumes under different names or in different formats, and "
                "a config has one name for all. Predict them with one config each."
            )
        _check(source, contract, patch)
    more = {"global_normalization": True} if contract.global_normalization else {}
    trained = Trained(str(checkpoint), str(contract.model.get("name")), contract.raw, patch, more, min(patch[1:]) < 64)
    inputs = Inputs([str(v.path) for v in volumes], "ZarrDataset" if is_zarr else "StandardHDF5Dataset", raw, None)
    plan = Plan(prediction(trained, inputs, this_machine().device, out))
    path = out / PREDICT
    head = (
        f"{FOR_EDITORS}\npredict3dunet --config {path}\n"
        f"Written by `p3d-regression init predict` {__version__} from {checkpoint}.\n"
        "Paths start at the directory in which it was run: run pytorch-3dunet in the same one."
    )
    out.mkdir(parents=True, exist_ok=True)
    if not (out / SCHEMA).exists():
        write_whole(out / SCHEMA, lambda beside: beside.write_text(schema_text(), encoding="utf-8"))
    write_whole(path, lambda beside: beside.write_text(plan.text(head), encoding="utf-8"))
    count = f"{len(volumes)} volume{'s' if len(volumes) > 1 else ''}"
    return path, [count, f"patches of {list(patch)} as in training", str(contract.model.get("name"))]


def _contract(checkpoint: Path) -> Contract:
    if not checkpoint.is_file():
        raise VolumesError(f"{checkpoint} does not exist.")
    try:
        trained = trained_with(str(checkpoint), checkpoints.checkpoint_metadata(str(checkpoint)))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise VolumesError(f"{checkpoint} is not a checkpoint of pytorch-3dunet ({text}).") from error
    if trained is None:
        raise VolumesError(
            f"{checkpoint} does not say how it was trained, and there is no training config in logs/ next to it."
        )
    return trained.contract


def _raw_of(path: Path) -> list[Source]:
    """The raw volumes in a file or directory."""
    found = []
    for file in files_in(path):
        if image_file.format_of(file):
            raise VolumesError(
                f"{file} is no HDF5 file, which pytorch-3dunet reads. Convert it: p3d-regression convert {path} "
                f"{Path(path.name.partition('.')[0]).with_suffix('' if path.is_dir() else '.h5')}"
                f"{'_hdf5' if path.is_dir() else ''}"
            )
        sources = sources_in(file)
        raws = [source for source in sources if role(source.key) == "raw"] if len(sources) > 1 else sources
        if len(raws) != 1:
            names = ", ".join(source.key for source in sources)
            raise VolumesError(f"{file} has the datasets {names}, and which is the raw volume is not clear.")
        found += raws
    return found


def _check(source: Source, contract: Contract, patch: Sequence[int]) -> None:
    with open_source(source) as volume:
        channels = volume.shape[0] if volume.ndim == 4 else 1
        wanted = contract.model.get("in_channels", 1)
        if channels != wanted:
            raise VolumesError(f"{source} has {channels} channels, and the network was trained with {wanted}.")
        if any(p > n for p, n in zip(patch, volume.shape[-3:], strict=True)):
            raise VolumesError(
                f"{source} has the shape {volume.shape[-3:]} (Z, Y, X), smaller than the patches {list(patch)} of the "
                "training."
            )

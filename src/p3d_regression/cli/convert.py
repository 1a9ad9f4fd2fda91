"""``p3d-regression convert``: volumes from one format to another."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from p3d_regression.conversion.run import Progress, Written


@click.command(short_help="Convert TIFF, NIfTI, Zarr, NPY and MRC to HDF5, and predictions back.")
@click.argument("files", nargs=-1, required=True, metavar="FILES... OUT")
@click.option(
    "--label", "labels", multiple=True, metavar="PATH", help="Labels: a file, or a directory if FILES is one."
)
@click.option("--planes", is_flag=True, help="FILES are the planes of one volume, not its channels.")
@click.option("--axes", metavar="LETTERS", help="The axes of FILES, such as ZYXC, if they do not name them.")
@click.option("--to", "suffix", default="h5", metavar="SUFFIX", help="The format of files in a directory OUT.")
def convert(files: tuple[str, ...], labels: tuple[str, ...], planes: bool, axes: str | None, suffix: str) -> None:
    """Convert volumes to HDF5 files for pytorch-3dunet, and predictions to other formats.

    \b
    p3d-regression convert raw.tif data/a.h5 --label label.tif
    p3d-regression convert raw --label label data
    p3d-regression convert predictions/a_predictions.h5 a.nii.gz
    p3d-regression convert predictions tiffs --to tif

    The format of OUT follows from its suffix: .h5, .tif, .ome.tif, .nii, .nii.gz, .zarr, .npy or .mrc. Several FILES
    are the channels of one volume. If OUT has no suffix, it is a directory with a file for each of FILES, and for each
    file of a directory; labels are paired by file name. An HDF5 file for pytorch-3dunet has the datasets raw and label.

    Voxel size, affine matrix and units are kept where the format has a place for them. Nothing is overwritten.
    """
    from p3d_regression.cli.progress import progress_bar
    from p3d_regression.errors import ConfigError, VolumesError

    *given, out = files
    if not given:
        raise click.UsageError("name the files first, then the new file or directory.")
    if axes is not None and (set(axes.lower()) - set("tczyx") or len(set(axes)) < len(axes)):
        raise click.UsageError(f"--axes {axes}: write each axis once, of T, C, Z, Y and X, such as ZYXC.")
    try:
        with progress_bar() as shown:

            def started(name: str, voxels: int) -> object:
                shown.start(name, voxels)
                return shown.advance

            _convert(given, Path(out), labels, started, planes=planes, axes=axes, suffix=suffix)  # type: ignore[arg-type]
    except (VolumesError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


def _convert(
    given: list[str],
    out: Path,
    labels: tuple[str, ...],
    progress: "Progress",
    *,
    planes: bool,
    axes: str | None,
    suffix: str,
) -> None:
    from p3d_regression.conversion import run, writers
    from p3d_regression.conversion.pairing import Pair
    from p3d_regression.conversion.source import source_of

    letters = axes.lower() if axes else None
    if not out.name.lower().endswith(run.SUFFIXES):
        if out.is_file() or out.suffix:
            writers.check_suffix(out.name, run.SUFFIXES)
        _into_directory(given, out, labels, progress, axes=letters, suffix=suffix.lstrip("."))
        return
    expanded = [str(file) for path in given for file in _files(Path(path))] if planes else given
    sources = [source_of(text, letters) for text in expanded]
    if labels:
        from p3d_regression.errors import VolumesError

        if not out.name.lower().endswith(run.HDF5):
            raise VolumesError(f"{out}: only an HDF5 file has a raw volume and labels. Convert each on its own.")
        pair = Pair(out.stem, tuple(sources), tuple(source_of(text, letters) for text in labels))
        _say(run.to_hdf5(pair, out, progress))
    else:
        _say(run.convert(sources, out, progress, along="z" if planes else "c"))


def _files(path: Path) -> list[Path]:
    from p3d_regression.conversion.pairing import files_in

    return files_in(path) if path.is_dir() else [path]


def _into_directory(
    given: list[str], out: Path, labels: tuple[str, ...], progress: "Progress", *, axes: str | None, suffix: str
) -> None:
    """A file for each volume."""
    from dataclasses import replace

    from p3d_regression.conversion import run
    from p3d_regression.conversion.pairing import Pair, paired, stem
    from p3d_regression.conversion.source import source_of
    from p3d_regression.errors import VolumesError

    files = [file for path in given for file in _files_of(Path(path))]
    if not files:
        raise VolumesError(f"{', '.join(given)}: there are no volumes.")
    if not labels:
        targets = [out / f"{stem(file)}.{suffix}" for file in files]
        _check_new(targets)
        for file, target in zip(files, targets, strict=True):
            _say(run.convert([source_of(str(file), axes)], target, progress))
        return
    if not f".{suffix}".endswith(run.HDF5):
        raise VolumesError(f"--to {suffix}: only HDF5 files have a raw volume and labels. Convert each on its own.")
    found = paired(files, [[file for path in labels for file in _files_of(Path(path))]])
    targets = [out / f"{pair.name}.{suffix}" for pair in found.pairs]
    _check_new(targets)
    for pair, target in zip(found.pairs, targets, strict=True):
        raw, label = (tuple(replace(s, axes=axes) for s in part) for part in (pair.raw, pair.label))
        _say(run.to_hdf5(Pair(pair.name, raw, label), target, progress))
    for names, what in ((found.without_label, "no label"), (found.without_raw, "no raw volume")):
        if names:
            click.echo(f"not converted, because there is {what} of the same name: {', '.join(names)}", err=True)


def _files_of(path: Path) -> list[Path]:
    from p3d_regression.conversion.pairing import files_in

    return files_in(path, with_predictions=True)


def _check_new(targets: list[Path]) -> None:
    from p3d_regression.errors import VolumesError

    for index, target in enumerate(targets):
        if target in targets[:index]:
            raise VolumesError(f"two files would be written to {target}. Convert them to two directories.")
        if target.exists():
            raise VolumesError(f"{target} exists. Delete it, or write to another directory.")


def _say(written: "Written") -> None:
    shapes = ", ".join(f"{name} {shape}" for name, shape in written.shapes.items())
    click.echo(f"{written.path}: {shapes}")
    if written.lost:
        click.echo(f"  not kept, because the format has no place for it: {', '.join(written.lost)}")

"""Rules about the files that a config names."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from p3d_regression.checks.data import FileLayout, Phase, is_shape
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.names import nearest, section, unknown
from p3d_regression.checks.rules.shapes import fitting
from p3d_regression.checks.rules.transforms import transformer, usable
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, advise, delete, write
from p3d_regression.text import as_yaml
from p3d_regression.upstream import datasets, introspection
from p3d_regression.volumes import image_file, zarr_store

family = Family()


@family.rule("P3D401", "error", modes=BOTH)
def loaders_not_understood(view: View) -> Iterator[Found]:
    """pytorch-3dunet does not know the dataset class or the slice builder, or a phase has no files, patches or
    transforms. pytorch-3dunet stops with a RuntimeError, KeyError or AssertionError.

    Example:
        loaders:
          dataset: StandardHDF5

    Use instead:
        loaders:
          dataset: StandardHDF5Dataset
    """
    loaders = view.section("loaders")
    if not loaders:
        return
    name, names = loaders.get("dataset", "StandardHDF5Dataset"), introspection.dataset_names()
    name = "StandardHDF5Dataset" if name is None else name
    if introspection.dataset_class(name) is None:
        kind = "a dataset class of pytorch-3dunet"
        yield Found("loaders.dataset", *unknown(name, names, "loaders.dataset", kind, "StandardHDF5Dataset"))
        name = nearest(name, names) or "StandardHDF5Dataset"
    yield from _wrong_numbers(view)
    for phase in view.phase_names:
        for place, kind in view.gaps(phase, is_hdf5=datasets.is_hdf5({"dataset": name})):
            yield Found(place, f"is missing, empty, or not a {kind}", _filled(view, phase, place))
        key, builders = f"loaders.{phase}.slice_builder.name", introspection.slice_builder_names()
        builder = view.get(key)
        if view.section(f"loaders.{phase}.slice_builder") and builder not in builders:
            yield Found(key, *unknown(builder, builders, key, "a slice builder of pytorch-3dunet", "SliceBuilder"))


def _wrong_numbers(view: View) -> Iterator[Found]:
    for key, least in (("batch_size", 1), ("num_workers", 0)):
        value = view.get(f"loaders.{key}", 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            message = f"{as_yaml(value)} is not a whole number, at least {least}"
            yield Found(f"loaders.{key}", message, write(f"loaders.{key}", 1))
    scale = view.get("loaders.random_scale")
    strides = [view.get(f"loaders.{phase}.slice_builder.stride_shape") for phase in view.phase_names]
    steps = [n for stride in strides if isinstance(stride, list) for n in stride if isinstance(n, int)]
    if view.mode == "train" and scale is not None and not (isinstance(scale, int) and all(scale < n for n in steps)):
        message = f"is {as_yaml(scale)}; it must be a whole number, smaller than every stride"
        yield Found("loaders.random_scale", message, delete("loaders.random_scale"))


def _filled(view: View, phase: str, place: str) -> Fix:
    """What a phase lacks, from its other lines or those of the other phase."""
    value, key = view.get(place), place.removeprefix(f"loaders.{phase}").removeprefix(".")
    if not key:
        return advise(f"write file_paths, slice_builder and transformer of {phase} below {place}")
    if key == "file_paths":
        if isinstance(value, str) and value and (not view.opens_files or _exists(value)):
            return write(place, [value])
        return advise(f"list the HDF5 files of {phase}, or directories that hold them, below {place}")
    if key == "slice_builder":
        patches = [view.get(f"loaders.{name}.slice_builder.patch_shape") for name in view.phase_names]
        patch = fitting(view, phase, next(filter(is_shape, patches), [32, 64, 64]))
        return section(place, {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": patch})
    steps = transformer(view, phase)
    if key == "transformer":
        return section(place, steps)
    place, _, index = place.partition("[")
    return usable(view, place) if index else write(place, steps[place.rpartition(".")[2]])


@family.rule("P3D402", "error")
def training_data_in_validation(view: View) -> Iterator[Found]:
    """pytorch-3dunet rejects a path that is in both phases. It accepts a directory that holds the file of the other
    phase, and the same file by another path. The score is then computed on voxels that the network has memorised.

    Example:
        loaders:
          train:
            file_paths: [data/a.h5]
          val:
            file_paths: [data]

    Use instead:
        loaders:
          train:
            file_paths: [data/train]
          val:
            file_paths: [data/val]
    """
    trained, validated = _paths(view, "train"), _paths(view, "val")
    shared = {
        index: (train, val) for train in trained.values() for index, val in validated.items() if _same(train, val)
    }
    if shared:
        train, val = next(iter(shared.values()))
        message = f"{val} is used for validation and {train} for training: they share voxels"
        fix = advise(f"use other files for validation than {val}")
        if len(shared) < len(view.get("loaders.val.file_paths")):
            fix = delete(*(f"loaders.val.file_paths[{index}]" for index in shared))
        yield Found("loaders.val.file_paths", message, fix)


def _same(train: Path, val: Path) -> bool:
    return train == val or _holds(train, val) or _holds(val, train)


def _holds(directory: Path, file: Path) -> bool:
    """Whether pytorch-3dunet finds a file in a directory: by its suffix, and not in subdirectories."""
    return file.parent == directory and file.suffix in (".h5", ".hdf", ".hdf5", ".hd5")


def _paths(view: View, phase: str) -> dict[int, Path]:
    """The paths of a phase by their index."""
    paths = view.get(f"loaders.{phase}.file_paths")
    found = {}
    for index, path in enumerate(paths if isinstance(paths, list) else []):
        with suppress(OSError, ValueError):  # another rule finds what is not a path
            found[index] = Path(str(path)).resolve()
    return found


@family.rule("P3D403", "error", modes=BOTH, needs="files")
def file_unreadable(view: View) -> Iterator[Found]:
    """A file does not exist, is damaged or truncated (after a full disk or an interrupted copy), or is not HDF5, or a
    directory has no HDF5 files. A training stops when it opens the file, or in the middle of an epoch; some versions
    skip such files, with an error in the log. A prediction stops after the files before it. With an empty directory it
    writes nothing and ends with exit status 0.

    Example:
        loaders:
          train:
            file_paths: [no/such/file.h5]

    Use instead:
        loaders:
          train:
            file_paths: [train.h5]
    """
    for name, phase in view.phases.items():
        key = f"loaders.{name}.file_paths"
        paths = view.get(key)
        if phase.failure is not None:
            advice = advise(f"repair the file, or remove it from {key}")
            yield Found(f"loaders.{name}", f"pytorch-3dunet cannot read this: {phase.failure}", advice)
        elif phase.is_hdf5 and not phase.files and isinstance(paths, list):
            message = "it contains no HDF5 file (.h5, .hdf, .hdf5 or .hd5)"
            fix = advise(f"write the paths of the HDF5 files of {name}")
            images = [path for path in paths if _holds_images(path)]
            if images:
                message = (
                    f"{images[0]} contains no HDF5 file, but files of other formats, which pytorch-3dunet does not read"
                )
                fix = _converted(view, str(images[0]))
            elif paths and all(zarr_store.is_zarr(Path(str(path))) for path in paths):
                message, fix = (
                    "these are Zarr volumes, which ZarrDataset reads",
                    write("loaders.dataset", "ZarrDataset"),
                )
            yield Found(key, message, fix)
        for file in phase.files:
            if file.error is not None:
                other = similar(file.path)
                do = "restore" if _exists(file.path) else "correct the path"
                fix = advise(f"{do} {file.path}, or remove it from {key}")
                if image_file.format_of(file.path) and _exists(file.path):
                    fix = _converted(view, file.path)
                elif datasets.is_zarr(view.section("loaders")) and _is_hdf5(file.path):
                    fix = write("loaders.dataset", "LazyHDF5Dataset")
                elif other and file.path in paths:
                    fix = write(f"{key}[{paths.index(file.path)}]", other)
                yield Found(key, f"{file.path}: {file.error}{did_you_mean(other)}", fix)


def _holds_images(path: object) -> bool:
    """Whether a directory has files that ``p3d-regression convert`` reads."""
    with suppress(OSError, ValueError):
        return any(image_file.format_of(child) for child in Path(str(path)).iterdir())
    return False


def _converted(view: View, path: str) -> Fix:
    """How to make HDF5 of other files."""
    source = Path(path)
    name = source.name[: source.name.index(".")] if source.suffix else source.name
    labels = " --label LABELS" if view.mode == "train" else ""
    end = f"{name}.h5" if source.suffix else f"{name}_hdf5"
    return advise(
        f"convert them: p3d-regression convert {source}{labels} {end}; or let `p3d-regression init` do this and write"
        " a config"
    )


def similar(path: str) -> str | None:
    """For a path where there is no file: that of a file with a similar name."""
    with suppress(OSError, ValueError):
        if not _exists(path):
            names = [other.name for other in Path(path).parent.iterdir() if other.suffix == Path(path).suffix]
            found = nearest(Path(path).name, names, cutoff=0.7)
            return str(Path(path).with_name(found)) if found else None
    return None


def _is_hdf5(path: str) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _exists(path: str) -> bool:
    with suppress(OSError, ValueError):  # too long, or with a null byte
        return Path(path).exists()
    return False


def did_you_mean(path: str | None) -> str:
    return f"; did you mean {Path(path).name}?" if path else ""


@family.rule("P3D404", "error", modes=BOTH, needs="files")
def dataset_missing(view: View) -> Iterator[Found]:
    """A file has no raw volume or no labels under the configured path. pytorch-3dunet stops with a KeyError of h5py.

    Example:
        loaders:
          label_internal_path: labels

    Use instead:
        loaders:
          label_internal_path: label
    """
    for phase in view.phases.values():
        readable = [file for file in phase.files if file.error is None]
        for file in readable:
            if file.raw is None:
                yield _missing(view, "loaders.raw_internal_path", phase.raw_path, file, phase)
        wanted = {"train": "loaders.label_internal_path"}.get(view.mode)
        if view.mode == "predict" and view.get("predictor.performance_metric") is not None:
            wanted = "predictor.gt_internal_path"
        for file in readable if wanted else ():
            if wanted and file.label is None:
                yield _missing(view, wanted, phase.label_path, file, phase)


def _missing(view: View, key: str, path: str, file: FileLayout, phase: Phase) -> Found:
    if path in file.datasets:
        message = f"the dataset {path!r} of {file.path} is empty, or a single number"
        return Found(key, message, advise(f"write a volume to {path} in {file.path}"))
    message = f"{file.path} has no dataset {path!r}; its datasets are: {', '.join(file.datasets) or 'none'}"
    # not the raw volume for the labels, nor the other way round; and in all files
    files = [other for each in view.phases.values() for other in each.files if other.error is None]
    common = set.intersection(*(set(other.datasets) for other in files)) - {phase.raw_path, phase.label_path}
    meant = nearest(path, sorted(common))
    advice = f"write a volume to {path} in {file.path}, or let {key} name a dataset that all files have"
    return Found(key, message, write(key, meant) if meant else advise(advice))

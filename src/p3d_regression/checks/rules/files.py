"""Rules about the files that a config names."""

from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from p3d_regression.checks.data import FileLayout, Phase
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.model import nested, unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.text import as_yaml
from p3d_regression.upstream import datasets, introspection

family = Family()


@family.rule("P3D401", "error", modes=BOTH)
def loaders_not_understood(view: View) -> Iterator[Found]:
    """A dataset class or slice builder that upstream does not know, or a phase that does not say where its files are,
    how they are cut, or what is done to them. Upstream stops with a RuntimeError, KeyError or AssertionError.

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
    name = loaders.get("dataset") or "StandardHDF5Dataset"
    if introspection.dataset_class(name) is None:
        yield Found(
            "loaders.dataset", *unknown(name, introspection.dataset_names(), "loaders.dataset", "a dataset of upstream")
        )
        return
    for key, least in (("batch_size", 1), ("num_workers", 0)):
        value = loaders.get(key, 1)
        if not isinstance(value, int) or value < least:
            yield Found(
                f"loaders.{key}", f"{as_yaml(value)} is not a whole number, at least {least}", f"loaders:\n  {key}: 1"
            )
    scale = loaders.get("random_scale")
    strides = [view.get(f"loaders.{phase}.slice_builder.stride_shape") for phase in view.phase_names]
    steps = [n for stride in strides if isinstance(stride, list) for n in stride if isinstance(n, int)]
    if view.mode == "train" and scale is not None and not (isinstance(scale, int) and all(scale < n for n in steps)):
        said = f"is {as_yaml(scale)}; it must be a whole number, smaller than every stride"
        yield Found("loaders.random_scale", said, "delete the line")
    for phase in view.phase_names:
        for place, kind in view.gaps(phase, is_hdf5=datasets.is_hdf5(loaders)):
            fix = nested(place, "") if "[" not in place else "- {name: ToTensor, expand_dims: true}"
            yield Found(place, f"is missing, empty, or not a {kind}", fix)
        builder = view.get(f"loaders.{phase}.slice_builder.name")
        if view.section(f"loaders.{phase}.slice_builder") and builder not in introspection.slice_builder_names():
            key = f"loaders.{phase}.slice_builder.name"
            yield Found(key, *unknown(builder, introspection.slice_builder_names(), key, "a slice builder of upstream"))


@family.rule("P3D402", "error")
def training_data_in_validation(view: View) -> Iterator[Found]:
    """Upstream refuses the same path in both phases, but takes a directory that holds the file of the other phase, or
    another spelling of its path. Then the score is that of voxels which the network has learnt by heart.

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
    for train in _paths(view, "train"):
        for val in _paths(view, "val"):
            if train == val or _holds(train, val) or _holds(val, train):
                said = f"{val} is validated on, and {train} trained with"
                yield Found("loaders.val.file_paths", said, "validate on data of its own")
                return


def _holds(directory: Path, file: Path) -> bool:
    """Whether upstream finds a file in a directory: by the ending, and not in directories below."""
    return file.parent == directory and file.suffix in (".h5", ".hdf", ".hdf5", ".hd5")


def _paths(view: View, phase: str) -> list[Path]:
    paths = view.get(f"loaders.{phase}.file_paths")
    found = []
    for path in paths if isinstance(paths, list) else []:
        with suppress(OSError, ValueError):  # where it is none, another rule says so
            found.append(Path(str(path)).resolve())
    return found


@family.rule("P3D403", "error", modes=BOTH, needs="files")
def file_unreadable(view: View) -> Iterator[Found]:
    """A file that is not there, is damaged or cut short (as after a full disk or a broken copy), is no HDF5 file, or
    a directory without HDF5 files. A training stops when it comes to it, or in an epoch; some versions skip such
    files, with an error in the log. A prediction stops after the files before it, and one of an empty directory ends
    with exit status 0 and writes nothing.

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
        if phase.failure is not None:
            yield Found(f"loaders.{name}", f"upstream cannot read this: {phase.failure}", "mend or remove the file")
        elif phase.is_hdf5 and not phase.files and isinstance(view.get(f"loaders.{name}.file_paths"), list):
            yield Found(f"loaders.{name}.file_paths", "no HDF5 file there (.h5, .hdf, .hdf5 or .hd5)", "name the files")
        for file in phase.files:
            if file.error is not None:
                yield Found(
                    f"loaders.{name}.file_paths", f"{file.path}: {file.error}{beside(file.path)}", "mend the path"
                )


def beside(path: str) -> str:
    """The end of a sentence about a file that is not there: which one of a similar name is."""
    with suppress(OSError, ValueError):
        if not Path(path).exists():
            names = [other.name for other in Path(path).parent.iterdir()]
            nearest = get_close_matches(Path(path).name, names, n=1, cutoff=0.7)
            return f"; did you mean {nearest[0]}?" if nearest else ""
    return ""


@family.rule("P3D404", "error", modes=BOTH, needs="files")
def dataset_missing(view: View) -> Iterator[Found]:
    """A file without the raw volume or the labels under the configured path. Upstream stops with a KeyError of h5py.

    Example:
        loaders:
          label_internal_path: distance

    Use instead:
        loaders:
          label_internal_path: label
    """
    for phase in view.phases.values():
        wanted = [("raw_internal_path", phase.raw_path, "raw")]
        if view.mode == "train":
            wanted.append(("label_internal_path", phase.label_path, "label"))
        for file in phase.files:
            for key, path, kind in wanted:
                if file.error is None and getattr(file, kind) is None:
                    yield _missing(f"loaders.{key}", str(path), file, phase)
        if view.mode == "predict" and view.get("predictor.performance_metric") is not None:
            for file in phase.files:
                if file.error is None and file.label is None:
                    yield _missing("predictor.gt_internal_path", phase.label_path, file, phase)


def _missing(key: str, path: str, file: FileLayout, phase: Phase) -> Found:
    # not the raw volume for the labels, nor the other way round
    others = [name for name in file.datasets if name not in (phase.raw_path, phase.label_path)]
    nearest = get_close_matches(path, others, n=1, cutoff=0.4)
    if path in file.datasets:
        return Found(key, f"the dataset {path!r} of {file.path} is empty, or a single number", "mend the file")
    said = f"{file.path} has no dataset {path!r}; there is {', '.join(file.datasets) or 'none at all'}"
    return Found(key, said, nested(key, nearest[0]) if nearest else "")

"""Which files are raw volumes, which are labels, and which belong together: by the names of datasets and files."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from p3d_regression.conversion.source import Source, sources_in
from p3d_regression.errors import VolumesError
from p3d_regression.volumes import image_file, zarr_store

T = TypeVar("T")

#: Words in the names of folders, files and datasets.
RAW = frozenset(
    """
    raw image images img imgs imagestr input inputs source src x data volume
    noisy low lowres lr degraded observed brightfield
    """.split()  # noqa: SIM905
)
LABEL = frozenset(
    """
    label labels labelstr target targets gt truth groundtruth y reference ref output outputs annotation annotations
    clean high highres hr mask masks seg distance distances dist dt edt sdf density dose counts
    stain stained fluorescence variance vectors flow
    """.split()  # noqa: SIM905
)

#: Names of labels that say nothing more: where there are such, others beside them are something else, such as a mask of
#: what was annotated.
_PLAIN = frozenset(["label", "labels", "labelstr", "target", "targets", "gt", "truth", "groundtruth", "y"])

#: Of labels in several files or datasets, those that come first.
_FIRST = ("mask", "masks", "seg")

_HDF5 = (".h5", ".hdf", ".hdf5", ".hd5")

#: Predictions of pytorch-3dunet, which may lie beside the volumes.
_PREDICTION = "_predictions"


@dataclass(frozen=True)
class Pair:
    """A raw volume and its labels.

    Attributes:
        name: without suffix, to tell it from the others.
        raw, label: one source for each group of channels; no label where there is none.
    """

    name: str
    raw: tuple[Source, ...]
    label: tuple[Source, ...] = ()


@dataclass
class Found:
    """The volumes among some files.

    Attributes:
        pairs: of raw volumes and labels.
        without_label: names of raw volumes without labels.
        without_raw: names of labels without raw volumes.
        notes: what was taken for what, where names do not tell.
    """

    pairs: list[Pair]
    without_label: list[str] = field(default_factory=list)
    without_raw: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(paths: Sequence[Path]) -> Found:
    """Find raw volumes and their labels.

    Args:
        paths: a directory with folders such as ``raw`` and ``label``; two or more such folders; or files, or a
            directory of them, in which datasets or file names tell raw volumes from labels.

    Raises:
        VolumesError: no pair is found.
    """
    for path in paths:
        if not path.exists():
            raise VolumesError(f"{path} does not exist.")
    folders = list(paths)
    if len(paths) == 1 and _is_folder(paths[0]):
        inside = [child for child in sorted(paths[0].iterdir()) if _is_folder(child) and role(child.name)]
        if {role(child.name) for child in inside} == {"raw", "label"}:
            folders = inside
    if len(folders) > 1 and all(_is_folder(folder) for folder in folders):
        return _in_folders(folders)
    return _among_files([file for path in paths for file in files_in(path)])


def files_in(path: Path, *, with_predictions: bool = False) -> list[Path]:
    """The files with volumes in a directory, in natural order; of anything else, itself.

    Args:
        path: of the directory.
        with_predictions: also those that pytorch-3dunet has written.
    """
    if not _is_folder(path):
        return [path]
    found = [
        child
        for child in path.iterdir()
        if not child.name.startswith(".")
        and (child.name.lower().endswith(_HDF5) or image_file.format_of(child) or _is_store(child))
        and (with_predictions or not stem(child).endswith(_PREDICTION))
    ]
    return sorted(found, key=_natural)


def stem(path: Path) -> str:
    """The name of a file without the suffixes of its format.

    >>> stem(Path("a.b.ome.tif")), stem(Path("a.nii.gz")), stem(Path("a.h5"))
    ('a.b', 'a', 'a')
    """
    kind = image_file.format_of(path)
    suffixes = kind.suffixes if kind else (*_HDF5, ".ome.zarr", ".zarr")
    lower = path.name.lower()
    return next((path.name[: -len(suffix)] for suffix in suffixes if lower.endswith(suffix)), path.name)


def role(name: str) -> str | None:
    """Whether a name is one of raw volumes or of labels; None if it does not tell.

    >>> role("volume01_gt"), role("imagesTr"), role("cell_7")
    ('label', 'raw', None)
    """
    words = _words(name)
    is_label, is_raw = any(word in LABEL for word in words), any(word in RAW for word in words)
    return "label" if is_label else "raw" if is_raw else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name) if part]


def _is_store(path: Path) -> bool:
    return path.is_dir() and (zarr_store.is_zarr(path) or path.name.endswith(".zarr"))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not _is_store(path)


def _in_folders(folders: Sequence[Path]) -> Found:
    """Files in a folder of raw volumes and in folders of labels, paired by their names."""
    roles: list[str | None] = [role(folder.name) for folder in folders]
    notes = []
    if roles.count("raw") != 1 or None in roles:
        roles = ["raw", *["label"] * (len(folders) - 1)]
        notes.append(f"{folders[0]} is taken for the raw volumes, {', '.join(map(str, folders[1:]))} for the labels")
    raws = folders[roles.index("raw")]
    all_labels = [f for f, kind in zip(folders, roles, strict=True) if kind == "label"]
    labels = sorted(_meant(all_labels, [folder.name for folder in all_labels]), key=_labels_first)
    if left := [folder for folder in all_labels if folder not in labels]:
        notes.append(f"not used, because there are labels by name: {', '.join(map(str, left))}")
    found = paired(files_in(raws), [files_in(folder) for folder in labels])
    found.notes = notes
    return found


def _meant(labels: Sequence[T], names: Sequence[str]) -> list[T]:
    """Of what may be labels, that which is called so; all where nothing is."""
    plain = [label for label, name in zip(labels, names, strict=True) if _PLAIN & set(_words(name))]
    return plain or list(labels)


def _labels_first(path: Path) -> tuple[bool, str]:
    return not any(word in _FIRST for word in _words(path.name)), path.name


def paired(raws: Sequence[Path], labels: Sequence[Sequence[Path]]) -> Found:
    """Files paired by their names, but for words such as ``raw`` and ``label`` in them.

    Args:
        raws: of raw volumes. Files ``NAME_0000``, ``NAME_0001``, ... are channels of one volume, as in nnU-Net.
        labels: of labels; one list for each group of their channels.

    Raises:
        VolumesError: none belong together.
    """
    # words such as raw and label count as part of a name where all names are the same with them
    stems = {stem(raw) for raw in raws}
    neutral = (lambda name: name) if all(stem(f) in stems for group in labels for f in group) else _neutral
    by_name = [_by_name(files, neutral) for files in labels]
    names = set.intersection(*(set(group) for group in by_name)) if by_name else set()
    of_raw: dict[str, list[Path]] = {}
    for raw in raws:
        name = neutral(stem(raw))
        channel = re.fullmatch(r"(.+)_\d{4}", name)
        of_raw.setdefault(channel[1] if channel and name not in names and channel[1] in names else name, []).append(raw)
    if len(of_raw) == 1 and all(len(group) == 1 for group in by_name) and by_name and not names & set(of_raw):
        only = next(iter(of_raw))
        by_name = [{only: next(iter(group.values()))} for group in by_name]
        names = {only}
    if doubled := [files for name, files in of_raw.items() if len(files) > 1 and not _are_channels(files)]:
        raise VolumesError(f"{doubled[0][0]} and {doubled[0][1]} cannot be told apart by their names.")
    pairs = [
        Pair(name, tuple(map(_only, files)), tuple(_only(group[name]) for group in by_name))
        for name, files in of_raw.items()
        if name in names
    ]
    if labels and not pairs:
        raise VolumesError(
            f"no raw volume and no label have the same name: {_some(of_raw)} and {_some(by_name[0])}. Name the files "
            "of a pair alike."
        )
    if not labels:
        pairs = [Pair(name, tuple(map(_only, files))) for name, files in of_raw.items()]
        return Found(pairs)
    return Found(
        pairs,
        [name for name in of_raw if name not in names],
        sorted(set().union(*(set(group) for group in by_name)) - set(of_raw)),
    )


def _are_channels(files: Sequence[Path]) -> bool:
    return all(re.search(r"_\d{4}$", stem(file)) for file in files)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") or "nothing"


def _by_name(files: Sequence[Path], neutral: Callable[[str], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = neutral(stem(file))
        if name in found:
            raise VolumesError(f"{found[name]} and {file} cannot be told apart by their names.")
        found[name] = file
    return found


def _neutral(name: str) -> str:
    """A name without the words that tell raw volumes from labels, unless nothing is left.

    >>> _neutral("raw_07"), _neutral("cell3_GT"), _neutral("label")
    ('07', 'cell3', 'label')
    """
    words = [word for word in re.split(r"[_\-. ]+", name) if word and word.lower() not in RAW | LABEL]
    return "_".join(words) or name


def _only(path: Path) -> Source:
    found = sources_in(path)
    if len(found) > 1:
        names = ", ".join(source.key for source in found)
        raise VolumesError(f"{path} has the datasets {names}, of which one is needed.")
    return found[0]


def _among_files(files: Sequence[Path]) -> Found:
    """Files that hold pairs, or whose names tell what they are."""
    if not files:
        raise VolumesError(f"no volumes are found: no HDF5 file and none of the formats {_formats()}.")
    held = {file: sources_in(file) for file in files}
    if any(len(sources) > 1 for sources in held.values()):
        return Found(list(_in_datasets(held)))
    labels = [file for file in files if role(_name_of(held[file][0])) == "label"]
    raws = [file for file in files if file not in labels]
    if not labels or not raws:
        what = "labels" if raws else "raw volumes"
        raise VolumesError(
            f"no {what} are found among {_some([file.name for file in files])}. "
            "Put raw volumes into a folder raw and labels into a folder label, with the same file names, and name both "
            "folders."
        )
    groups: dict[str, list[Path]] = {}
    for file in labels:
        word = next(word for word in _words(_name_of(held[file][0])) if word in LABEL)
        groups.setdefault(word, []).append(file)
    ordered = sorted(groups, key=lambda word: (word not in _FIRST, word))
    return paired(raws, [groups[word] for word in ordered])


def _name_of(source: Source) -> str:
    """Of the file; or of its dataset, where the file does not tell."""
    return stem(source.path) if role(stem(source.path)) else source.key


def _formats() -> str:
    return ", ".join(kind.name for kind in image_file.FORMATS) + ", Zarr"


def _in_datasets(held: dict[Path, list[Source]]) -> Iterator[Pair]:
    """Pairs inside of files."""
    for file, sources in held.items():
        raws = [source for source in sources if role(_last(source.key)) == "raw"]
        labels = [source for source in sources if role(_last(source.key)) == "label"]
        if not raws and len(sources) == len(labels) + 1:
            raws = [source for source in sources if source not in labels]
        if len(raws) == 1 and not labels and len(sources) == 2:
            labels = [source for source in sources if source not in raws]
        if len(raws) != 1 or not labels:
            names = ", ".join(source.key for source in sources)
            raise VolumesError(
                f"{file} has the datasets {names}; which of them is the raw volume, and which are labels, does not "
                "follow from their names. Call them raw and label."
            )
        labels = _meant(labels, [_last(source.key) for source in labels])
        ordered = sorted(labels, key=lambda source: (not any(w in _FIRST for w in _words(source.key)), source.key))
        yield Pair(stem(file), (raws[0],), tuple(ordered))


def _last(key: str) -> str:
    """The part of a name that says what it is: of the levels 0 and s0 of an image the group."""
    parts = [part for part in key.split("/") if not re.fullmatch(r"s?\d+", part)]
    return parts[-1] if parts else key

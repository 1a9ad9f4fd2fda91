"""Rules about keys that nothing reads: misspelled ones, and those of another section or another version."""

from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.names import nearest, removed, renamed
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, delete, write
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.text import short
from p3d_regression.upstream import introspection
from p3d_regression.upstream.config_keys import keys_of

family = Family()

#: Keys of older versions, and where the same is said now.
MOVED = {"patch_halo": "loaders.test.slice_builder.halo_shape"}


@family.rule("P3D130", "error", modes=BOTH)
def misplaced_key(view: View) -> Iterator[Found]:
    """pytorch-3dunet reads the keys that it knows from a section, and ignores all others in silence. A key that is
    misspelled, or stands one level too high or too low, has no effect: the batches have the default size, no halo is
    used, another dataset of the file is read.

    Example:
        loaders:
          batchsize: 4

    Use instead:
        loaders:
          batch_size: 4
    """
    yield from (found for found, is_meant in _unread(view) if is_meant)


@family.rule("P3D131", "warning", modes=BOTH)
def unread_key(view: View) -> Iterator[Found]:
    """The installed version of pytorch-3dunet does not read this key. It may be one of another version, such as
    `weight_internal_path`, or a note of your own.

    Example:
        loaders:
          weight_internal_path: weight

    Use instead:
        loaders:
          label_internal_path: label
    """
    yield from (found for found, is_meant in _unread(view) if not is_meant)


def _unread(view: View) -> Iterator[tuple[Found, bool]]:
    """What is found, and whether another key is meant."""
    places = dict(_places(view))
    for place, (kind, lines) in places.items():
        known = keys_of(kind)
        for key in lines if known else ():
            if key in known or key in PLUGIN_KEYS or (isinstance(key, str) and key.startswith("__")):
                continue
            found, is_meant = _about(view, place, kind, lines, key, places)
            if is_meant or (place and not _is_note(lines[key], place)):
                yield found, is_meant


def _places(view: View) -> Iterator[tuple[str, tuple[str, Mapping[Any, Any]]]]:
    """Sections that a config has, with what they are."""
    yield "", ("", view.config)
    loaders = view.section("loaders")
    cls = introspection.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset")
    if cls is None or not cls.__module__.startswith("pytorch3dunet."):
        return  # a dataset class of a third party reads what it likes
    yield "loaders", ("loaders", loaders)
    for phase in ("train", "val", "test"):
        section = view.section(f"loaders.{phase}")
        if not section:
            continue
        yield f"loaders.{phase}", ("phase", section)
        for name in ("slice_builder", "transformer"):
            yield f"loaders.{phase}.{name}", (name, view.section(f"loaders.{phase}.{name}"))


def _is_note(value: object, place: str) -> bool:
    """Whether a key may be there for others to refer to it."""
    return isinstance(value, Mapping | list) and place in ("", "loaders")


def _about(
    view: View, place: str, kind: str, lines: Mapping[Any, Any], key: Any, places: Mapping[str, tuple[str, Any]]
) -> tuple[Found, bool]:
    where = f"{place}.{short(key)}" if place else short(key)
    start = "pytorch-3dunet does not read this key here"
    if key in MOVED:
        return Found(
            where, f"{start}; since version 1.9 it is {MOVED[key]}", moved(view, place, lines, key, MOVED[key])
        ), True
    if isinstance(key, str) and (target := _other_place(view, place, kind, key, places)):
        return Found(where, f"{start}, but as {target}", moved(view, place, lines, key, target)), True
    # a section that nothing was read from is another rule's matter
    meant = nearest(key, keys_of(kind) - set(view.phase_names) - set(_SECTIONS), cutoff=0.85)
    if meant and place:
        return Found(where, f"{start}; did you mean {meant}?", renamed(place, lines, key, meant)), True
    return Found(where, start, removed(place, lines, key) if place else delete(where)), False


#: Whose misspelling another rule reports, when the section is missed.
_SECTIONS = ("model", "loaders", "trainer", "predictor", "loss", "optimizer", "eval_metric", "lr_scheduler")


def _other_place(view: View, place: str, kind: str, key: str, places: Mapping[str, tuple[str, Any]]) -> str | None:
    """Where a key that is spelled right would be read: in a section above or below, or next to this one."""
    if not place:
        homes = [f"{name}.{key}" for name in ("loaders", "trainer") if key in keys_of(name)]
        return homes[0] if homes and key not in (*_SECTIONS, "name") else None
    below = [
        f"{other}.{key}"
        for other, (name, _) in places.items()
        if other.startswith(f"{place}.") and key in keys_of(name)
    ]
    if len(below) == 1:
        return below[0]
    parts = place.split(".")
    above = [".".join(parts[:n]) for n in range(len(parts) - 1, -1, -1)]
    for other in above:
        if other in places and key in keys_of(places[other][0]):
            return f"{other}.{key}" if other else key
    return None


def moved(view: View, place: str, lines: Mapping[Any, Any], key: str, target: str) -> Fix:
    """Move a value, if nothing is there yet."""
    gone = removed(place, lines, key) if place else delete(key)
    taken = view.get(target) is not None or (not view.section(target.rpartition(".")[0] or "") and "." in target)
    return gone if taken else write(target, lines[key]) + gone

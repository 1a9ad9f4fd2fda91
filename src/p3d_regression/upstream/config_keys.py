"""The keys of a config that the installed pytorch-3dunet reads, found in its source: it ignores others in silence."""

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from p3d_regression.upstream import introspection

#: The modules that read a config, as far as a version has them.
_MODULES: tuple[str, ...] = (
    "train",
    "predict",
    "datasets.utils",
    "datasets.hdf5",
    "datasets.dsb",
    "unet3d.config",
    "unet3d.trainer",
)
_MODULES += ("unet3d.predictor", "unet3d.model", "unet3d.losses", "unet3d.metrics", "unet3d.utils")

#: What pytorch-3dunet calls a section in its code, and the section.
_NAMES = {
    "config": "",
    "loaders_config": "loaders",
    "dataset_config": "loaders",
    "phase_config": "phase",
    "slice_builder_config": "slice_builder",
    "trainer_config": "trainer",
    "predictor_config": "predictor",
    "optimizer_config": "optimizer",
    "lr_config": "lr_scheduler",
}

_PHASES = ("train", "val", "test")


@cache
def keys_of(section: str) -> frozenset[str]:
    """The keys that are read from a section: ``""`` for the whole config, ``phase`` for one of ``loaders``.

    Empty where this version reads it in a way that is not understood.
    """
    found = _all()[section]
    match section:
        case "loaders" if found:
            return found | set(_PHASES)
        case "slice_builder" if found:
            names = introspection.slice_builder_names()
            classes = filter(None, (introspection.dataset_member(name) for name in names))
            arguments = (name for cls in classes for name in introspection.arguments_of_ancestry(cls))
            given = {"raw_dataset", "label_dataset", "raw_datasets", "label_datasets", "weight_dataset", "kwargs"}
            return (found | {"name", *arguments, *_all()["kwargs"]}) - given
        case "transformer":
            return frozenset(name.removesuffix("_transform") for name in introspection.transformer_methods())
        case "":
            # sections that other programs or versions read may stand there as well
            return (found - {"name"}) | {"model", "loaders", "trainer", "predictor", "loss", "optimizer", "eval_metric"}
    return found


@cache
def _all() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name in _MODULES:
        for section, key in _reads(f"pytorch3dunet.{name}"):
            found[section].add(key)
    return defaultdict(frozenset, {section: frozenset(keys) for section, keys in found.items()})


def _reads(module: str) -> Iterator[tuple[str, str]]:
    """Section and key of every ``section["key"]``, ``section.get("key")`` and ``"key" in section`` of a module."""
    try:
        tree = ast.parse(inspect.getsource(introspection.module_of(module)))
    except (introspection.UnknownUpstreamError, OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=receiver, slice=ast.Constant(value=str(key))):
                pass
            case ast.Call(
                func=ast.Attribute(value=receiver, attr="get" | "pop"), args=[ast.Constant(value=str(key)), *_]
            ):
                pass
            case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In()], comparators=[receiver]):
                pass
            case _:
                continue
        section = _section_of(receiver)
        if section is not None:
            yield section, key


def _section_of(receiver: ast.expr) -> str | None:
    match receiver:
        case ast.Name(id="kwargs"):
            return "kwargs"
        case ast.Name(id=name):
            return _NAMES.get(name)
        case ast.Subscript(value=ast.Name(id="config"), slice=ast.Constant(value=str(key))):
            return key
    return None

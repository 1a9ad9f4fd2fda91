"""The schema, built from what the installed versions read."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p3d_regression._version import __version__
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.model.precision import KEY as PRECISION
from p3d_regression.model.precision import PRECISIONS
from p3d_regression.prediction.spec import KEYS as OF_PREDICTOR
from p3d_regression.schema.words import KEYS, KINDS, PREDICTOR, by_default
from p3d_regression.text import as_json
from p3d_regression.upstream import builders, introspection
from p3d_regression.upstream.config_keys import keys_of

Schema = dict[str, Any]

#: Arguments that pytorch-3dunet gives itself.
_GIVEN = {"self", "random_state", "kwargs", "args", "optimizer", "model", "output_dir", "out_channels", "device"}
_GIVEN |= {"raw_dataset", "label_dataset", "raw_datasets", "label_datasets", "weight_dataset"}


def schema() -> Schema:
    """A JSON Schema (2020-12) of training and prediction configs."""
    versions = getattr(introspection.module_of("pytorch3dunet"), "__version__", "unknown")
    sections = {
        "model": _model(),
        "loss": _loss(),
        "eval_metric": _metric(),
        "optimizer": _optimizer(),
        "lr_scheduler": {"anyOf": [_scheduler(), {"type": "null"}]},
        "trainer": _trainer(),
        "loaders": _loaders(),
        "predictor": _predictor(),
    }
    known = {key: _key("", key) for key in keys_of("")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"pytorch-3dunet {versions} with p3d-regression {__version__}",
        **_object({**known, **sections}),
        "$defs": {"phase": _phase()},
    }


def _object(properties: Mapping[str, Schema], **more: Any) -> Schema:
    ordered = {key: properties[key] for key in sorted(properties, key=str)}
    # keys that begin so are for anchors
    return {
        "type": "object",
        "properties": ordered,
        "patternProperties": {"^__": {}},
        "additionalProperties": False,
        **more,
    }


def _key(section: str, key: str, cls: type | None = None) -> Schema:
    """Values of a key, and a line about it."""
    values, text = KEYS.get((section, key), ({}, ""))
    default = introspection.default(cls, key) if cls else None
    if not values and cls:
        values = by_default(default)
    found = dict(values)
    if text := text or _line(cls, key):
        found["description"] = text
    if default is not None and "default" not in found and isinstance(default, bool | int | float | str):
        found["default"] = default
    return found


def _line(cls: type | None, key: str) -> str:
    """The line about an argument in the docstring of a class."""
    documented = "\n".join(filter(None, (inspect.getdoc(base) for base in (cls.__mro__ if cls else ()))))
    found = re.search(rf"^\s*{re.escape(key)}\b[^:\n]*:\s*(.+)$", documented, re.MULTILINE)
    return found[1].strip() if found else ""


def _spellings(names: Iterable[str]) -> str:
    """A pattern for names whose case, spaces, underscores and hyphens do not matter.

    >>> bool(re.search(_spellings(["leaky_relu"]), "LeakyReLU")), bool(re.search(_spellings(["relu"]), "relo"))
    (True, False)
    """

    def one(name: str) -> str:
        letters = re.sub(r"[\s_-]", "", name)
        return r"[\s_-]*".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in letters)

    return f"^({'|'.join(one(name) for name in names)})$"


def _named(
    options: Mapping[str, Mapping[str, Schema]],
    common: Mapping[str, Schema],
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    texts: Mapping[str, str] | None = None,
    is_free: Mapping[str, bool] | None = None,
) -> Schema:
    """A section with a name, which decides its other keys.

    Args:
        options: by name, the keys that belong to it.
        common: keys that belong to each.
        aliases: other spellings of a name; where they are given, case does not matter.
        texts: a line about each name.
        is_free: names that take any other key.
    """
    every = {key: values for keys in options.values() for key, values in keys.items()}
    name: Schema = {"enum": list(options)}
    if aliases is not None:
        spelled = [spelling for option in options for spelling in (option, *aliases.get(option, ()))]
        name = {"anyOf": [name, {"type": "string", "pattern": _spellings(spelled)}]}
    lines = [f"{option}: {text}" for option, text in (texts or {}).items() if text]
    name["description"] = "\n".join(lines) or "Name of the class."
    rules = []
    for option, keys in options.items():
        if (is_free or {}).get(option):
            continue
        is_it: Schema = {"const": option}
        if aliases is not None:
            is_it = {"type": "string", "pattern": _spellings([option, *aliases.get(option, ())])}
        allowed = {"propertyNames": {"anyOf": [{"enum": sorted({"name", *common, *keys})}, {"pattern": "^__"}]}}
        rules.append({"if": {"properties": {"name": is_it}, "required": ["name"]}, "then": allowed})
    return _object({**every, **common, "name": name}, required=["name"], allOf=rules) | {
        "additionalProperties": any((is_free or {}).values())
    }


def _of_class(section: str, cls: type | None, skipped: Iterable[str] = ()) -> dict[str, Schema]:
    names = introspection.arguments_of_ancestry(cls) if cls else []
    return {name: _key(section, name, cls) for name in names if name not in {*_GIVEN, *skipped}}


def _arguments(row: Mapping[str, Any]) -> dict[str, Schema]:
    """Of a loss, a metric or an activation of this project."""
    found = {}
    for argument in row["arguments"]:
        values = dict(KINDS.get(argument["kind"], {}))
        if argument["default"] is not None:
            values["default"] = as_json(argument["default"])
        found[argument["name"]] = values
    return found


def _model() -> Schema:
    classes = {name: introspection.model_class(name) for name in introspection.model_names()}
    # what a class does not name itself, it swallows
    options = {
        name: {key: _key("model", key, cls) for key in (introspection.arguments(cls) if cls else ())}
        for name, cls in classes.items()
    }
    return _named(options, {key: _last_layer()[key] for key in PLUGIN_KEYS})


def _last_layer() -> dict[str, Schema]:
    from p3d_regression.activations.registry import registry

    rows = registry().rows()
    options = {row["name"]: _arguments(row) for row in rows}
    aliases = {row["name"]: row["aliases"] for row in rows}
    spelled = [spelling for name in options for spelling in (name, *aliases[name])]
    text = {"anyOf": [{"enum": list(options)}, {"type": "string", "pattern": _spellings(spelled)}]}
    one: Schema = {"anyOf": [*text["anyOf"], {"type": "null"}, _named(options, {}, aliases=aliases)]}
    lines = "\n".join(f"{row['name']}: {row['use']}" for row in rows)
    names = ("standardize", "residual", "patch", "none")
    numbers = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}
    in_channel = {"type": "integer", "minimum": 0}
    terms: Schema = {
        "anyOf": [
            {"enum": list(names)},
            {"type": "string", "pattern": _spellings(names)},
            {"type": "null"},
            _object({"mean": numbers, "std": numbers}, required=["mean", "std"]),
            _object(
                {
                    "name": {"type": "string", "pattern": _spellings(names)},
                    **{key: {"type": "number"} for key in ("intercept", "slope", "scale")},
                    "in_channel": in_channel,
                },
                required=["name"],
            ),
        ]
    }
    each = {"type": "array", "minItems": 1}
    return {
        "final_activation": {
            "anyOf": [*one["anyOf"], {**each, "items": one}],
            "description": f"The function of the last convolution that is predicted.\n{lines}",
        },
        "target_scaling": {
            "anyOf": [*terms["anyOf"], {**each, "items": terms}],
            "description": "Lets the network learn standardised labels, or what is to be added to the raw volume.",
        },
    }


def _loss() -> Schema:
    from p3d_regression.losses.registry import registry

    rows = registry().rows()
    options = {row["name"]: _arguments(row) for row in rows}
    aliases = {row["name"]: row["aliases"] for row in rows}
    texts = {row["name"]: row["use"] for row in rows}
    others = [name for name in builders.loss_names() if name not in options]
    options |= {name: {} for name in others}
    common = {key: _key("loss", key) for key in ("ignore_index", "skip_last_target", "weight", "pos_weight")}
    free = dict.fromkeys(others, True)
    part = {"$ref": "#/properties/loss"}
    spelled = [*options, *(alias for names in aliases.values() for alias in names)]
    one = {"anyOf": [{"type": "string", "pattern": _spellings(spelled)}, part]}
    for name in ("channels", "losses"):
        for keys in options.values():
            if name in keys:
                keys[name] = {"type": "array", "items": one, "minItems": 1}
    return _named(options, common, aliases=aliases, texts=texts, is_free=free)


def _metric() -> Schema:
    from p3d_regression.metrics.registry import registry

    rows = registry().rows()
    options: dict[str, dict[str, Schema]] = {
        name: _of_class("eval_metric", introspection.metric_class(name)) for name in introspection.metric_names()
    }
    for row in rows:
        options[row["name"]] = {**options.get(row["name"], {}), **_arguments(row)}
    aliases = {row["name"]: row["aliases"] for row in rows}
    # names of pytorch-3dunet that stand for one of this project's if they have its arguments
    for row in rows:
        for name in set(row["aliases"]) & set(options):
            options[name] = {**options[name], **_arguments(row)}
            aliases[row["name"]] = [alias for alias in aliases[row["name"]] if alias != name]
    # pytorch-3dunet's own swallow what they do not know, and its examples have such keys
    free = dict.fromkeys(introspection.metric_names(), True)
    return _named(options, {}, aliases=aliases, texts={row["name"]: row["use"] for row in rows}, is_free=free)


def _optimizer() -> Schema:
    found = {key: _key("optimizer", key) for key in keys_of("optimizer")}
    name = {"enum": builders.optimizer_names(), "description": "Of torch.optim."}
    return _object({**found, "name": name})


def _scheduler() -> Schema:
    from torch.optim import lr_scheduler

    options = {
        name: {
            key: _key("lr_scheduler", key, getattr(lr_scheduler, name))
            for key in introspection.arguments(getattr(lr_scheduler, name))
            if key not in _GIVEN
        }
        for name in builders.scheduler_names()
    }
    steps = {"enum": ["iteration", "epoch", "validation"], "description": "What a step of the scheduler is."}
    return _named(options, {builders.STEP_PER: steps})


def _trainer() -> Schema:
    names = {*introspection.trainer_parameters(), *keys_of("trainer")} - _GIVEN
    found = {name: _key("trainer", name) for name in names}
    precision = {"enum": [*PRECISIONS, 32], "description": "Of the layers; the last one and the loss stay in float32."}
    return _object({**found, PRECISION: precision})


def _loaders() -> Schema:
    found = {key: _key("loaders", key) for key in keys_of("loaders")}
    phases = {name: {"$ref": "#/$defs/phase"} for name in ("train", "val", "test")}
    dataset = {
        "anyOf": [{"enum": introspection.dataset_names()}, {"type": "null"}],
        "description": KEYS["loaders", "dataset"][1],
    }
    return _object({**found, **phases, "dataset": dataset})


def _phase() -> Schema:
    slices = {key: _key("slice_builder", key) for key in keys_of("slice_builder")}
    name = {"enum": introspection.slice_builder_names(), "description": "Class that cuts volumes into patches."}
    options = {
        each: _of_class("transform", introspection.transform_class(each)) for each in introspection.transform_names()
    }
    steps = {"type": "array", "items": _named(options, {}), "description": "Transforms, one after the other."}
    return _object(
        {
            "file_paths": _key("phase", "file_paths"),
            "slice_builder": _object({**slices, "name": name}),
            "transformer": _object(dict.fromkeys(keys_of("transformer"), steps)),
        }
    )


def _predictor() -> Schema:
    classes = {name: introspection.predictor_class(name) for name in introspection.predictor_names()}
    options = {name: _of_class("predictor", cls, ("config",)) for name, cls in classes.items()}
    common = {
        "save_segmentation": _key("predictor", "save_segmentation"),
        **{key: {**_of_ours(key), "description": PREDICTOR.get(key, "")} for key in OF_PREDICTOR},
        **{key: _key("predictor", key) for key in keys_of("predictor")},
    }
    return _named(options, common)


def _of_ours(key: str) -> Schema:
    from p3d_regression.prediction import spec

    def one_of(*names: str) -> Schema:
        return {"anyOf": [{"enum": [*names, None]}, {"type": "string", "pattern": _spellings(names)}]}

    tta = one_of("flips", "rotations", "none")
    directions = _object({axis: {"type": "integer", "minimum": 0} for axis in spec.AXES})
    named = _object({"name": tta, "directions": directions}, required=["name"])
    return {
        "blend": one_of("gaussian", "mean", "none"),
        "output": one_of("hdf5", "zarr"),
        "compression": one_of("gzip", "lzf", "zstd", "none"),
        "resume": {"type": ["boolean", "null"]},
        "tta": {"anyOf": [tta, named]},
        "ensemble": {"anyOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "null"}]},
        "precision": {"enum": [*PRECISIONS, 32, None]},
    }.get(key, {})

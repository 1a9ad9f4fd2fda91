"""Whether weights are those of the network that a config describes, told by their shapes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.errors import Found
from p3d_regression.fix import Fix, advise, write
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection
from p3d_regression.upstream.networks import on_meta_device

_HEAD = "final_conv.weight"


def misfits(section: Mapping[str, Any], weights: Mapping[str, Any], key: str) -> Iterator[Found]:
    """What has to change in a model section, so that weights can be loaded.

    Args:
        section: of the config.
        weights: the ``state_dict`` of a checkpoint; only the shapes are looked at.
        key: of the config, where the path of the checkpoint is.
    """
    if weights and all(str(name).startswith("module.") for name in weights):
        yield Found(key, "its weights have the prefix module., as DataParallel adds it", advise(_UNWRAP))
        return
    wanted = _shapes(section)
    found = {str(name): tuple(value.shape) for name, value in weights.items() if hasattr(value, "shape")}
    if wanted is None or wanted == found or _HEAD not in found:
        return  # another rule reports what cannot be built, or has no weights
    said = list(_in_words(section, found))
    if said:
        yield from said
        return
    names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    for name in introspection.model_names():
        if _shapes({**section, "name": name}) == found:
            message = f"is {section.get('name')}, but the weights of the checkpoint are those of a {name}"
            yield Found("model.name", message, write("model.name", name))
            return
    first = f"{names[0]} has the shape {found.get(names[0], 'none')}, the network needs {wanted.get(names[0], 'none')}"
    message = (
        f"{len(names)} layers of the checkpoint do not fit the network of the section model; the first one: {first}"
    )
    yield Found(key, message, advise("write the section model of the training into this config"))


_UNWRAP = "save model.module.state_dict() in place of model.state_dict(), or take the prefix module. off the names"


def _shapes(section: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    plain = {k: v for k, v in section.items() if k not in PLUGIN_KEYS}
    try:
        return {name: tuple(value.shape) for name, value in on_meta_device(plain).state_dict().items()}
    except Exception:
        return None


def _in_words(section: Mapping[str, Any], found: Mapping[str, tuple[int, ...]]) -> Iterator[Found]:
    """Numbers of channels that differ, and those of the weights."""
    from p3d_regression.model.contract import network_of

    own = network_of(section)
    trained = {"out_channels": found[_HEAD][0], **_encoder_of(found)}
    for key, value in trained.items():
        if value and own.get(key) != value:
            message = f"is {as_yaml(own.get(key))}, but the weights of the checkpoint are for {as_yaml(value)}"
            fix: Fix = write(f"model.{key}", value)
            yield Found(f"model.{key}", message, fix)


def _encoder_of(found: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    levels: dict[int, list[tuple[int, ...]]] = {}
    for name, shape in found.items():
        if (level := re.match(r"encoders\.(\d+)\.", name)) and len(shape) >= 4:
            levels.setdefault(int(level[1]), []).append(shape)
    if sorted(levels) != list(range(len(levels))) or not levels:
        return {}
    return {"in_channels": levels[0][0][1], "f_maps": [max(shape[0] for shape in levels[n]) for n in sorted(levels)]}

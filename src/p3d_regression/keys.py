"""The keys that this project adds to the ``model`` section of pytorch-3dunet, and those that are almost them.

pytorch-3dunet ignores unknown keys in silence: a plugin key in another section, or a misspelled one, has to be found
here.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, delete, write
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.text import fold, short

PLUGIN_KEYS = dict.fromkeys((ACTIVATION, SCALING)).keys()


def misspelled(key: object) -> str | None:
    """The plugin key that is meant by a key of the model section; None if it is spelled right, or another key.

    >>> misspelled("final_activaton"), misspelled("final_sigmoid"), misspelled("final_activation")
    ('final_activation', None, None)
    """
    if not isinstance(key, str) or key in PLUGIN_KEYS:
        return None
    folded = {fold(known): known for known in PLUGIN_KEYS}
    return folded.get(next(iter(get_close_matches(fold(key), list(folded), cutoff=0.85)), ""))


def check_keys(model_config: Mapping[Any, object]) -> None:
    """Refuse a key of the model section that is almost a plugin key.

    Raises:
        ConfigError: a plugin key is misspelled.
    """
    for key, value in model_config.items():
        if meant := misspelled(key):
            fix = _moved(f"model.{key}", value, meant, model_config)
            raise ConfigError(f"model.{short(key)}", f"pytorch-3dunet ignores this key; did you mean {meant}?", fix)


def check_sections(config: Mapping[Any, object]) -> None:
    """Refuse a plugin key outside the model section.

    Raises:
        ConfigError: the key stands at the top level or in another section.
    """
    model = config.get("model")
    sections = {f"{name}.": part for name, part in config.items() if name != "model"} | {"": config}
    for key in PLUGIN_KEYS:
        for start, section in sections.items():
            if isinstance(section, Mapping) and key in section:
                fix = _moved(f"{start}{key}", section[key], key, model if isinstance(model, Mapping) else {})
                raise ConfigError(f"{start}{key}", "nothing reads this key here; move it into the section model.", fix)


def _moved(place: str, value: object, key: str, model_config: Mapping[Any, object]) -> Fix:
    """Delete a key, and write its value where it counts, if there is none yet."""
    return delete(place) if key in model_config else delete(place) + write(f"model.{key}", value)

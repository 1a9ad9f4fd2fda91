"""The keys that this project adds to upstream's ``model`` section, and those that are almost them.

Upstream ignores what it does not know in silence: a key of ours that stands elsewhere, or is misspelled, has to be
found here.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from p3d_regression.activations import spec as activations
from p3d_regression.errors import ConfigError
from p3d_regression.scaling import spec as scaling
from p3d_regression.text import fold

#: Key -> lines of a config that use it.
EXAMPLES = {activations.KEY: activations.EXAMPLE, scaling.KEY: scaling.EXAMPLE}

OURS = EXAMPLES.keys()


def check_keys(model_config: Iterable[object]) -> None:
    """Refuse a key of the model section that is almost ours.

    >>> check_keys(["name", "final_sigmoid", "final_activation", "target_scaling", "f_maps"])

    Raises:
        ConfigError: one of the keys is a misspelled one of ours.
    """
    for key in model_config:
        if not isinstance(key, str) or key in EXAMPLES:
            continue
        for ours, example in EXAMPLES.items():
            if get_close_matches(fold(key), [fold(ours)], cutoff=0.85):
                raise ConfigError(f"model.{key}: upstream ignores this key; did you mean {ours}? {example}")


def check_sections(config: Mapping[Any, object]) -> None:
    """Refuse a key of ours outside the model section: nothing reads it there.

    Raises:
        ConfigError: the key stands at the top level or in another section.
    """
    for ours, example in EXAMPLES.items():
        places = [ours] if ours in config else []
        places += [f"{name}.{ours}" for name, part in config.items() if name != "model" and _holds(part, ours)]
        if places:
            raise ConfigError(f"{places[0]}: nothing reads this key here; move it into the section model. {example}")


def _holds(part: object, key: str) -> bool:
    return isinstance(part, Mapping) and key in part

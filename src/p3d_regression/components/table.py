"""What the tables of activations, losses and metrics have in common, as plain data."""

from typing import Any

from p3d_regression.components.component import Component
from p3d_regression.components.registry import Offer
from p3d_regression.text import as_yaml


def arguments(component: Component) -> list[dict[str, Any]]:
    """``name``, ``kind``, ``required`` and ``default`` of each argument that a config may give."""
    return [
        {"name": p.name, "kind": p.kind, "required": p.required, "default": None if p.required else plain(p.default)}
        for p in component.parameters.values()
    ]


def plain(value: Any) -> Any:
    """A default as YAML and JSON hold it."""
    return list(value) if isinstance(value, tuple) else value


def origin(offer: Offer[Any]) -> dict[str, Any]:
    """``origin``, which is ``plugin`` or the part of this project, and the ``distribution`` of a plugin."""
    distribution = offer.plugin.distribution
    return {"origin": "plugin" if distribution else offer.origin, "distribution": distribution}


def arguments_in_words(row: dict[str, Any]) -> str:
    """The arguments of a row, such as ``beta=1.0, threshold=20.0``."""
    return ", ".join(
        argument["name"] if argument["required"] else f"{argument['name']}={as_yaml(argument['default'])}"
        for argument in row["arguments"]
    )

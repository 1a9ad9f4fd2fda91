"""What a config says against the training of its checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p3d_regression.errors import Found
from p3d_regression.fix import write
from p3d_regression.model.contract import (
    FREE,
    Trained,
    completed,
    deterministic,
    mapping,
    network_of,
    plain,
    with_levels,
)
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection, transforms


@dataclass(frozen=True)
class Difference:
    """What a config says against the training; an error if the result would be wrong."""

    found: Found
    is_error: bool


def differences(config: Mapping[str, Any], phase: str, trained: Trained, *, is_start: bool) -> Iterator[Difference]:
    """What a config says against the training of its checkpoint.

    Args:
        config: of a prediction, or of a training that starts from the checkpoint.
        phase: whose raw transforms are compared: ``test`` or ``val``.
        trained: the checkpoint's.
        is_start: whether the checkpoint is a start for other data, ``trainer.pre_trained``.
    """
    section, wanted = with_levels(mapping(config.get("model")), trained), trained.contract.model
    if section and introspection.model_class(section.get("name")) is not None:
        # what is silent is taken from the checkpoint, and what both leave to a default is the same
        yield from _of_network(network_of({**section, **completed(section, trained)}), wanted, trained)
    loaders = mapping(config.get("loaders"))
    steps = mapping(mapping(loaders.get(phase)).get("transformer")).get("raw")
    if trained.contract.raw is not None and isinstance(steps, list):
        yield from _of_raw(deterministic(steps) or [], loaders, phase, trained, is_start=is_start)


def _of_network(own: Mapping[str, Any], wanted: Mapping[str, Any], trained: Trained) -> Iterator[Difference]:
    names = [key for key in wanted if key not in FREE and (key in own or key == "name")]
    for key in names:
        if own.get(key) != wanted[key]:
            message = (
                f"is {as_yaml(own.get(key))}, but the checkpoint was trained with {as_yaml(wanted[key])} "
                f"({trained.source}): {_CONSEQUENCE.get(key, _SILENT)}"
            )
            fix = write(f"model.{key}", wanted[key])
            yield Difference(Found(f"model.{key}", message, fix), trained.is_certain)
            if key == "name":
                return


_SILENT = "the same weights would compute something else, and every prediction would be wrong"
_CONSEQUENCE = dict.fromkeys(("name", "in_channels", "out_channels", "f_maps"), "its weights do not fit")


def _of_raw(
    steps: Sequence[Mapping[str, Any]], loaders: Mapping[str, Any], phase: str, trained: Trained, *, is_start: bool
) -> Iterator[Difference]:
    wanted = trained.contract.raw or []
    key = f"loaders.{phase}.transformer.raw"
    if [transforms.decisive(step) for step in steps] != [transforms.decisive(step) for step in wanted]:
        message = (
            f"is {as_yaml(plain(steps))}, but the checkpoint was trained with {as_yaml(wanted)} ({trained.source}): "
            "the network would see other values than in the training"
        )
        known = all(transforms.is_upstreams(step) for step in [*steps, *wanted])
        is_error = trained.is_certain and known and not is_start
        yield Difference(Found(key, message, write(key, wanted)), is_error)
    elif any(transforms.takes_statistics(step) for step in wanted):
        own = bool(loaders.get("global_normalization", False))
        if own != trained.contract.global_normalization:
            place = "loaders.global_normalization"
            message = (
                f"is {as_yaml(own)}, but the checkpoint was trained with {as_yaml(not own)} ({trained.source}): the "
                "raw volume would be normalised with other statistics than in the training"
            )
            yield Difference(Found(place, message, write(place, not own)), trained.is_certain and not is_start)

"""Losses, optimizers and schedulers, built by upstream's own functions to see what these make of a config.

Nothing here takes a random number or writes a line: it may run at the start of a training.
"""

import copy
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from p3d_regression._patching import original_of
from p3d_regression.upstream.introspection import module_of, quiet

_LOSSES = "pytorch3dunet.unet3d.losses"
_UTILS = "pytorch3dunet.unet3d.utils"

#: The key of this project in the section ``lr_scheduler``, see ``training.schedule``.
STEP_PER = "step_per"


class _Recorder(dict[Any, Any]):
    """A section of a config that notes which of its keys are looked at."""

    def __init__(self, section: Mapping[Any, Any]) -> None:
        super().__init__(copy.deepcopy(dict(section)))
        self.read: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        self.read.add(key)
        return super().pop(key, *default)


@dataclass(frozen=True)
class Built:
    """What upstream has built of a section.

    Attributes:
        what: the object; None where it could not be built.
        unread: keys of the section that upstream did not look at.
        error: what it says against the section.
    """

    what: Any
    unread: list[str]
    error: str | None = None


def _build(section: Mapping[Any, Any], builder: Any) -> Built:
    recorder = _Recorder(section)
    try:
        with quiet():
            what = builder(recorder)
    except Exception as error:
        return Built(None, [], f"{type(error).__name__}: {error}")
    return Built(what, [str(key) for key in section if key not in recorder.read])


def loss(section: Mapping[Any, Any]) -> Built:
    """Build the loss of a ``loss`` section."""
    create = original_of(module_of(_LOSSES).get_loss_criterion)
    return _build(section, lambda recorder: create({"loss": recorder, "device": "cpu"}))


def knows_loss(name: str) -> bool:
    """Whether upstream has a loss of exactly this name."""
    # an option may be missing; a loss that somebody has added to upstream may say so in its own words
    return not str(loss({"name": name}).error).startswith("RuntimeError: Unsupported loss function")


def loss_names() -> list[str]:
    """Names of losses that upstream builds."""
    from torch import nn

    candidates = {name for home in (module_of(_LOSSES), nn) for name in vars(home) if name.endswith("Loss")}
    return sorted(name for name in candidates if not name.startswith("_") and knows_loss(name))


def inner_loss(built: Any) -> Any:
    """The loss itself, without upstream's wrappers for masks and for a last channel of the labels."""
    while type(built).__name__ in ("MaskingLossWrapper", "SkipLastTargetChannelWrapper"):
        built = built.loss
    return built


def swallowed_weights(section: Mapping[str, Any]) -> list[str]:
    """Which of ``weight`` and ``pos_weight`` upstream reads from a ``loss`` section and then gives to no loss."""
    given = [key for key in ("weight", "pos_weight") if section.get(key) is not None]
    built = loss(section).what if given else None
    if built is None:
        return []
    kept = {name.rpartition(".")[2] for name, _ in built.named_buffers()}
    # WeightedSmoothL1Loss has an attribute weight, which is another thing: it comes from initial_weight
    return [key for key in given if key not in kept]


def optimizer(section: Mapping[Any, Any]) -> Built:
    """Build the optimizer of an ``optimizer`` section, for a model of one number."""
    create = module_of(_UTILS).create_optimizer
    # upstream's own function, on optimizers that are as torch's but do not load its compiler, which takes seconds
    dry = FunctionType(create.__code__, {**create.__globals__, "optim": _DryOptimizers()}, argdefs=create.__defaults__)
    return _build(section, lambda recorder: dry(recorder, _one_number()))


class _DryOptimizers:
    """``torch.optim``, of which the optimizers are built but not used."""

    def __getattr__(self, name: str) -> Any:
        from torch import optim

        return _dry(getattr(optim, name))


def _dry(optimizer_class: Any) -> Any:
    def add_param_group(self: Any, group: dict[str, Any]) -> None:
        self.param_groups.append({**self.defaults, **group})

    return type(optimizer_class.__name__, (optimizer_class,), {"add_param_group": add_param_group})


def optimizer_names() -> list[str]:
    """Names of optimizers that upstream tells apart; the others it silently replaces."""
    from torch import optim

    names = [name for name, cls in vars(optim).items() if inspect.isclass(cls) and issubclass(cls, optim.Optimizer)]
    return sorted(
        name for name in names if type(optimizer({"name": name, "learning_rate": 0.001}).what).__name__ == name
    )


def scheduler(section: Mapping[Any, Any], optimizer_section: Mapping[Any, Any]) -> Built:
    """Build the scheduler of an ``lr_scheduler`` section, for the optimizer of an ``optimizer`` section."""
    from torch import optim

    section = {key: value for key, value in section.items() if key != STEP_PER}

    made = optimizer(optimizer_section).what or _dry(optim.SGD)(_one_number().parameters(), lr=0.1)
    return _build(section, lambda recorder: module_of(_UTILS).create_lr_scheduler(recorder, made))


def learning_rates(section: Mapping[Any, Any], optimizer_section: Mapping[Any, Any], steps: int) -> list[float] | str:
    """The learning rate before and after each of some steps of a scheduler, or the error of one.

    A scheduler that looks at scores sees one that never improves.
    """
    built = scheduler(section, optimizer_section).what
    if built is None:
        return []
    made = built.optimizer
    # only the scheduler steps; torch would warn of that
    made.step = lambda *_: None
    made._opt_called = True
    rates = [made.param_groups[0]["lr"]]
    is_scored = "metrics" in inspect.signature(type(built).step).parameters
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(steps):
                built.step(1.0) if is_scored else built.step()
                rates.append(float(made.param_groups[0]["lr"]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return rates


def predictor_error(section: Mapping[Any, Any], channels: int) -> str | None:
    """Why upstream cannot create a predictor of a ``predictor`` section; None if it can, or is not understood."""
    from torch import nn

    create = getattr(module_of("pytorch3dunet.predict"), "get_predictor", None)
    if create is None or list(inspect.signature(create).parameters) != ["model", "config"]:
        return None
    config = {"predictor": copy.deepcopy(dict(section)), "model": {"out_channels": channels}, "loaders": {}}
    try:
        with quiet():
            original_of(create)(nn.Identity(), {**config, "device": "cpu"})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def scheduler_names() -> list[str]:
    from torch.optim import lr_scheduler

    return [name for name in lr_scheduler.__all__ if name != "LRScheduler"]


def _one_number() -> Any:
    import torch
    from torch import nn

    # a parameter that is not drawn: a training's random numbers stay its own
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    return model

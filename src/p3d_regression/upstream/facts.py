"""What the installed pytorch3dunet makes of a config: asked of its own functions and signatures, so that the answers
are those of this version, whichever it is.

Nothing here takes a random number or writes a line: it may run at the start of a training.
"""

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

_MODEL = "pytorch3dunet.unet3d.model"
_LOSSES = "pytorch3dunet.unet3d.losses"
_UTILS = "pytorch3dunet.unet3d.utils"
_METRICS = "pytorch3dunet.unet3d.metrics"
_TRAINER = "pytorch3dunet.unet3d.trainer"
_PREDICTOR = "pytorch3dunet.unet3d.predictor"
_TRANSFORMS = "pytorch3dunet.augment.transforms"
_DATASETS = ("pytorch3dunet.datasets.hdf5", "pytorch3dunet.datasets.dsb", "pytorch3dunet.datasets.utils")


class UnknownUpstreamError(RuntimeError):
    """This pytorch3dunet is built differently, and the question means nothing to it."""


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnknownUpstreamError(f"pytorch3dunet is not as expected: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """While this lasts, upstream's loggers say nothing: it is only being asked."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.CRITICAL))
    try:
        yield
    finally:
        logging.disable(before)


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
    module = _module(_LOSSES)
    return _build(section, lambda recorder: module.get_loss_criterion({"loss": recorder, "device": "cpu"}))


def loss_names() -> list[str]:
    """Names of losses that upstream builds without further options."""
    from torch import nn

    candidates = {name for home in (_module(_LOSSES), nn) for name in vars(home) if name.endswith("Loss")}
    known = [name for name in candidates if not name.startswith("_") and loss({"name": name}).error is None]
    needs_options = [name for name in candidates if _names_missing_option(name)]
    return sorted({*known, *needs_options})


def _names_missing_option(name: str) -> bool:
    return str(loss({"name": name}).error or "").startswith("KeyError: ")


def inner_loss(built: Any) -> Any:
    """The loss itself, without upstream's wrappers for masks and for a last channel of the labels."""
    while type(built).__name__ in ("MaskingLossWrapper", "SkipLastTargetChannelWrapper"):
        built = built.loss
    return built


def optimizer(section: Mapping[Any, Any]) -> Built:
    """Build the optimizer of an ``optimizer`` section, for a model of one number."""
    create = _module(_UTILS).create_optimizer
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


def scheduler(section: Mapping[Any, Any]) -> Built:
    """Build the scheduler of an ``lr_scheduler`` section."""
    from torch import optim

    made = _dry(optim.SGD)(_one_number().parameters(), lr=0.1)
    return _build(section, lambda recorder: _module(_UTILS).create_lr_scheduler(recorder, made))


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


def _class(module: str, name: object) -> type | None:
    found = getattr(_module(module), name, None) if isinstance(name, str) else None
    return found if inspect.isclass(found) else None


def model_class(name: object) -> type | None:
    from torch import nn

    found = _class(_MODEL, name)
    return found if found and issubclass(found, nn.Module) and "Abstract" not in found.__name__ else None


def model_names() -> list[str]:
    return sorted(name for name, cls in vars(_module(_MODEL)).items() if model_class(name) and _home(cls) == _MODEL)


def metric_class(name: object) -> type | None:
    found = _class(_METRICS, name)
    return found if found and _home(found) == _METRICS else None


def metric_names() -> list[str]:
    skipped = ("Generic", "Abstract")
    names = [name for name in vars(_module(_METRICS)) if metric_class(name) and not name.startswith(skipped)]
    return sorted(names)


def transform_class(name: object) -> type | None:
    return _class(_TRANSFORMS, name)


def transform_names() -> list[str]:
    helpers = ("Abstract", "Compose", "Transformer")
    module = _module(_TRANSFORMS)
    return sorted(n for n, cls in vars(module).items() if _home(cls) == _TRANSFORMS and _is_class(cls, helpers))


def dataset_class(name: object) -> type | None:
    found = [cls for home in _DATASETS if (cls := _class(home, name))]
    return found[0] if found else None


def dataset_names() -> list[str]:
    homes = [_module(home) for home in _DATASETS]
    base = getattr(homes[-1], "ConfigDataset", object)
    names = {
        n
        for home in homes
        for n, cls in vars(home).items()
        if _is_class(cls, ("Abstract", "Config")) and issubclass(cls, base)
    }
    return sorted(names)


def slice_builder_names() -> list[str]:
    module = _module(_DATASETS[-1])
    return sorted(n for n, cls in vars(module).items() if inspect.isclass(cls) and n.endswith("SliceBuilder"))


def predictor_class(name: object) -> type | None:
    return _class(_PREDICTOR, name)


def predictor_names() -> list[str]:
    module = _module(_PREDICTOR)
    return sorted(n for n, cls in vars(module).items() if _is_class(cls, ("Abstract", "_")) and n.endswith("Predictor"))


def trainer_parameters() -> list[str]:
    """Keys of a ``trainer`` section that upstream takes; empty if it takes any."""
    module = _module(_TRAINER)
    cls = next((cls for name, cls in vars(module).items() if name.endswith("Trainer") and inspect.isclass(cls)), None)
    if cls is None or takes_anything(cls):
        return []
    # create_trainer makes these itself
    own = ("model", "optimizer", "lr_scheduler", "loss_criterion", "eval_criterion", "loaders", "device")
    return [name for name in dict.fromkeys([*arguments(cls), "resume", "pre_trained"]) if name not in own]


def _home(cls: object) -> str:
    return str(getattr(cls, "__module__", ""))


def _is_class(cls: object, skipped: tuple[str, ...]) -> bool:
    return inspect.isclass(cls) and not cls.__name__.startswith(skipped)


def arguments(cls: type) -> list[str]:
    """The arguments that a constructor names."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def default(cls: type, argument: str) -> Any:
    """The default of an argument; None if there is none."""
    parameter = inspect.signature(cls).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def takes_anything(cls: type) -> bool:
    """Whether a constructor swallows arguments that it does not know."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())


def ancestry(cls: type) -> list[str]:
    """Names of a class and of those that it is made from."""
    return [base.__name__ for base in cls.__mro__]


def loss_sees_output(phase: str) -> bool:
    """Whether upstream's own final activation comes before the loss in a phase: ``train`` or ``val``.

    Until 1.8 it was applied in evaluation mode only, so that the validation loss saw it; since 1.9 neither does.
    """
    forward = getattr(_module(_MODEL), "AbstractUNet", None)
    since_1_9 = forward is not None and "return_logits" in inspect.signature(forward.forward).parameters
    return not since_1_9 and phase == "val"


def score_sees_output(phase: str) -> bool:
    """Whether upstream's own final activation comes before the metric in a phase: ``train`` or ``val``.

    Until 1.6 it did in evaluation mode only.
    """
    version = str(getattr(_module("pytorch3dunet"), "__version__", ""))
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return phase == "val" or numbers >= [1, 7] or not numbers


def swallowed_weights(section: Mapping[str, Any]) -> list[str]:
    """Which of ``weight`` and ``pos_weight`` upstream reads from a ``loss`` section and then gives to no loss."""
    given = [key for key in ("weight", "pos_weight") if section.get(key) is not None]
    built = loss(section).what if given else None
    if built is None:
        return []
    kept = {name.rpartition(".")[2] for name, _ in built.named_buffers()}
    # WeightedSmoothL1Loss has an attribute weight, which is another thing: it comes from initial_weight
    return [key for key in given if key not in kept]


def checkpoint_metadata(path: str) -> Mapping[str, Any]:
    """What the U-Net's ``state_dict`` in a checkpoint says of itself; its weights are left on disk.

    Raises:
        Exception: the file is not one of upstream's checkpoints.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", mmap=True)
    except RuntimeError:
        # of a torch before 1.6: cannot be left on disk
        state = torch.load(path, map_location="cpu")
    weights = state["model_state_dict"]
    metadata: Mapping[str, Any] = getattr(weights, "_metadata", {}).get("", {})
    return metadata


def lazy_prediction_writes() -> bool:
    """Whether LazyHDF5Dataset writes into its input file at prediction; it does since 1.8 or so."""
    cls = dataset_class("LazyHDF5Dataset")
    return cls is not None and hasattr(cls, "get_raw_padded_patch")


def required(cls: type) -> list[str]:
    """The arguments that a constructor cannot do without."""
    parameters = inspect.signature(cls).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is p.empty and p.kind in kinds]


def arguments_of_ancestry(cls: type) -> list[str]:
    """The arguments that a constructor names, or one that it hands others on to.

    Old versions take some from the config instead: ``patch_halo``.
    """
    named = [name for base in cls.__mro__ if base is not object for name in arguments(base)]
    return list(dict.fromkeys([*named, "patch_halo"]))

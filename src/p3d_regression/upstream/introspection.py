"""What the installed pytorch3dunet knows: asked of its own modules and signatures, so that the answers are those of
this version, whichever it is.

Nothing here takes a random number or writes a line: it may run at the start of a training.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

_MODEL = "pytorch3dunet.unet3d.model"
_METRICS = "pytorch3dunet.unet3d.metrics"
_TRAINER = "pytorch3dunet.unet3d.trainer"
_PREDICTOR = "pytorch3dunet.unet3d.predictor"
_TRANSFORMS = "pytorch3dunet.augment.transforms"
_DATASETS = ("pytorch3dunet.datasets.hdf5", "pytorch3dunet.datasets.dsb", "pytorch3dunet.datasets.utils")


class UnknownUpstreamError(RuntimeError):
    """This pytorch3dunet is built differently, and the question means nothing to it."""


def module_of(name: str) -> ModuleType:
    """A module of upstream.

    Raises:
        UnknownUpstreamError: there is none of that name.
    """
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


def _class(module: str, name: object) -> type | None:
    found = getattr(module_of(module), name, None) if isinstance(name, str) else None
    return found if inspect.isclass(found) else None


def model_class(name: object) -> type | None:
    from torch import nn

    found = _class(_MODEL, name)
    return found if found and issubclass(found, nn.Module) and "Abstract" not in found.__name__ else None


def model_names() -> list[str]:
    return sorted(name for name, cls in vars(module_of(_MODEL)).items() if model_class(name) and _home(cls) == _MODEL)


def metric_class(name: object) -> type | None:
    found = _class(_METRICS, name)
    return found if found and _home(found) == _METRICS else None


def knows_metric(name: object) -> bool:
    """Whether upstream builds something of this name, be it a metric or not."""
    found = getattr(module_of(_METRICS), name, None) if isinstance(name, str) else None
    # functions are there because upstream's metrics call them
    return callable(found) and not inspect.isfunction(found)


#: Upstream's metrics, and what they are made from.
_HIGHER_IS_BETTER = {
    "DiceCoefficient": True,
    "MeanIoU": True,
    "GenericAveragePrecision": True,
    "PSNR": True,
    "AdaptedRandError": False,
    "MSE": False,
}


def higher_is_better(name: object) -> bool | None:
    """Of one of upstream's metrics; None if it is not known."""
    cls = metric_class(name)
    if cls is None:
        return None
    declared = getattr(cls, "higher_is_better", None)
    if isinstance(declared, bool):
        return declared
    return next((_HIGHER_IS_BETTER[base] for base in ancestry(cls) if base in _HIGHER_IS_BETTER), None)


def metric_names() -> list[str]:
    skipped = ("Generic", "Abstract")
    names = [name for name in vars(module_of(_METRICS)) if metric_class(name) and not name.startswith(skipped)]
    return sorted(names)


def transform_class(name: object) -> type | None:
    return _class(_TRANSFORMS, name)


def transform_names() -> list[str]:
    helpers = ("Abstract", "Compose", "Transformer")
    module = module_of(_TRANSFORMS)
    return sorted(n for n, cls in vars(module).items() if _home(cls) == _TRANSFORMS and _is_class(cls, helpers))


def dataset_class(name: object) -> type | None:
    found = [cls for home in _DATASETS if (cls := _class(home, name))]
    return found[0] if found else None


def dataset_names() -> list[str]:
    homes = [module_of(home) for home in _DATASETS]
    base = getattr(homes[-1], "ConfigDataset", object)
    names = {
        n
        for home in homes
        for n, cls in vars(home).items()
        if _is_class(cls, ("Abstract", "Config")) and issubclass(cls, base)
    }
    return sorted(names)


def slice_builder_names() -> list[str]:
    module = module_of(_DATASETS[-1])
    return sorted(n for n, cls in vars(module).items() if inspect.isclass(cls) and n.endswith("SliceBuilder"))


def dataset_member(name: object) -> type | None:
    """A class of the module of slice builders."""
    return _class(_DATASETS[-1], name)


def transformer_methods() -> list[str]:
    """Names of the methods that make the transforms of a phase, such as ``raw_transform``."""
    cls = getattr(module_of(_TRANSFORMS), "Transformer", None)
    return [name for name in vars(cls or object) if name.endswith("_transform") and not name.startswith("_")]


def predictor_class(name: object) -> type | None:
    return _class(_PREDICTOR, name)


def predictor_names() -> list[str]:
    module = module_of(_PREDICTOR)
    return sorted(n for n, cls in vars(module).items() if _is_class(cls, ("Abstract", "_")) and n.endswith("Predictor"))


def _trainer_class() -> type | None:
    classes = (cls for name, cls in vars(module_of(_TRAINER)).items() if name.endswith("Trainer"))
    return next(filter(inspect.isclass, classes), None)


def trainer_parameters() -> list[str]:
    """Keys of a ``trainer`` section that upstream takes; empty if it takes any."""
    cls = _trainer_class()
    if cls is None or takes_anything(cls):
        return []
    # create_trainer makes these itself
    own = ("model", "optimizer", "lr_scheduler", "loss_criterion", "eval_criterion", "loaders", "device")
    return [name for name in dict.fromkeys([*arguments(cls), "resume", "pre_trained"]) if name not in own]


def trainer_default(key: str) -> Any:
    """The default of a key of the ``trainer`` section; None if there is none."""
    cls = _trainer_class()
    return None if cls is None else default(cls, key)


def averages_overlap() -> bool:
    """Whether the predictors take the mean where patches overlap; they did until 1.8."""
    try:
        return "normalization_mask" in inspect.getsource(module_of(_PREDICTOR))
    except OSError:
        return True  # nobody can tell


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
    forward = getattr(module_of(_MODEL), "AbstractUNet", None)
    since_1_9 = forward is not None and "return_logits" in inspect.signature(forward.forward).parameters
    return not since_1_9 and phase == "val"


def score_sees_output(phase: str) -> bool:
    """Whether upstream's own final activation comes before the metric in a phase: ``train`` or ``val``.

    Until 1.6 it did in evaluation mode only.
    """
    version = str(getattr(module_of("pytorch3dunet"), "__version__", ""))
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return phase == "val" or numbers >= [1, 7] or not numbers


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
    with suppress(OSError, TypeError):
        source = inspect.getsource(module_of(cls.__module__))
        if '"patch_halo"' in source or "'patch_halo'" in source:
            named.append("patch_halo")
    return list(dict.fromkeys(named))


def device_name(device: object) -> str:
    """The name of a device as a config writes it; pytorch-3dunet puts a member of its enumeration in its place.

    >>> device_name("cuda")
    'cuda'
    """
    return str(getattr(device, "value", device))


def devices() -> list[str]:
    """What the key ``device`` may be; empty where upstream does not say."""
    known = getattr(import_module("pytorch3dunet.unet3d.config"), "TorchDevice", None)
    return [str(device.value) for device in known] if known is not None else []

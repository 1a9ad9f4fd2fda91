"""``pytorch3dunet.unet3d.model``: its builder understands ``final_activation``, its classes refuse to swallow it."""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from p3d_regression import __version__, upstream
from p3d_regression.activations.spec import KEY, NONE, FinalActivation, check_keys, parse
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.upstream.patching import AnyFunction, Patch, mark, patch_of, replace_function

if TYPE_CHECKING:
    from torch import nn

_warned: set[str] = set()


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch upstream's model module, which has just been executed."""
    yield _patch_get_model(module)
    yield _patch_constructors(module)


def set_final_activation(model: "nn.Module", value: object) -> "nn.Module":
    """Give a U-Net that was built from its class another final activation, in place.

    Args:
        model: an instance of one of upstream's model classes, or one wrapped in ``DataParallel``. Its weights
            and the keys of its ``state_dict`` stay as they are.
        value: what a config may say after ``final_activation:``, such as ``"none"``.

    Returns:
        The same model.

    Raises:
        ConfigError: ``value`` is not understood.
        TypeError: ``model`` is not one of upstream's U-Nets.
    """
    _attach(model, parse(value))
    return model


def _patch_get_model(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_model(model_config: Any) -> Any:
            if not (patch.is_applied and isinstance(model_config, Mapping)):
                return original(model_config)
            check_keys(model_config)
            if KEY not in model_config:
                return original(model_config)
            activation = parse(model_config[KEY])
            _warn_of_contradiction(model_config, activation)
            model = original({key: value for key, value in model_config.items() if key != KEY})
            _attach(model, activation)
            _console().info(
                f"p3d-regression {__version__}: final activation {activation.name}, output range {activation.range}"
            )
            return model

        return get_model

    return replace_function(module, "get_model", wrap, parameters=["model_config"])


def _patch_constructors(module: ModuleType) -> Patch:
    """Let each class that swallows unknown keys refuse ours.

    The key reaches a constructor when someone builds the class directly, or when upstream's builder is not the
    one this project knows. Swallowed there, it would leave a Sigmoid where the user asked for none.
    """
    target = f"{module.__name__} constructors"
    classes = [cls for cls in vars(module).values() if _swallows_unknown_keys(cls, module)]
    if not classes:
        return Patch(target, "not needed", "no model class swallows unknown keys")
    if existing := patch_of(classes[0].__init__):
        return existing
    patch = Patch(target, "applied", f"refuse a swallowed {KEY}")
    for cls in classes:
        original = cls.__init__
        cls.__init__ = mark(_refusing(original, patch), patch)
        patch.undo_actions.append(partial(_restore_constructor, cls, cls.__init__, original))
    return patch


def _restore_constructor(cls: Any, ours: Callable[..., None], original: Callable[..., None]) -> None:
    # somebody else may have wrapped ours since; a patch that is undone lets everything pass anyway
    if cls.__init__ is ours:
        cls.__init__ = original


def _swallows_unknown_keys(cls: object, module: ModuleType) -> bool:
    if not (isinstance(cls, type) and cls.__module__ == module.__name__ and "__init__" in vars(cls)):
        return False
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return KEY not in parameters and any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _refusing(original: Callable[..., None], patch: Patch) -> Callable[..., None]:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if patch.is_applied and KEY in kwargs:
            _refuse(type(self).__name__, kwargs[KEY])
        original(self, *args, **kwargs)

    return __init__


def _refuse(class_name: str, value: object) -> NoReturn:
    start = f"model.{KEY}: {value!r} reached the class {class_name}, which would ignore it. "
    if upstream.builder_state() != "applied":
        raise UnsupportedUpstreamError(start + upstream.unsupported_builder())
    raise ConfigError(
        f"{start}Build the model with pytorch3dunet.unet3d.model.get_model(config['model']), or build the class "
        f"without this key and call p3d_regression.set_final_activation(model, {value!r}). If it was get_model that "
        "you called, under another name: import it after p3d_regression.activate()."
    )


def _warn_of_contradiction(model_config: Mapping[str, Any], activation: FinalActivation) -> None:
    if not model_config.get("is_segmentation", True):
        return
    keys = [key for key in ("is_segmentation", "final_sigmoid") if key in model_config]
    if not keys:
        return
    # json.dumps writes true and false as YAML does, and keeps the quotes of a "false" that is a text
    ignored = " and ".join(f"{key}: {json.dumps(model_config[key], default=repr)}" for key in keys)
    message = (
        f"model.{KEY}: {activation.name} decides the model's output, {ignored} beside it is ignored; write "
        "is_segmentation: false, which means the same where p3d-regression is not installed"
    )
    if message not in _warned:
        _warned.add(message)
        _console().warning(message)


def _attach(model: "nn.Module", activation: FinalActivation) -> None:
    assert activation == NONE, activation
    _unet(model).final_activation = None  # upstream's own spelling of "no activation", in every version since 1.3


def _unet(model: Any) -> Any:
    """The U-Net inside ``DataParallel`` and ``DistributedDataParallel``, or ``model`` itself."""
    from torch import nn

    unet = model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model
    # Looked up in the module itself: a wrapper that passes attributes on would take the assignment, and ignore it.
    if not (isinstance(unet, nn.Module) and "final_conv" in unet._modules and hasattr(unet, KEY)):
        raise TypeError(
            f"{type(unet).__name__} is not one of pytorch3dunet's U-Nets: it has no layer final_conv of its own. "
            "Set the final activation on the U-Net itself, before it is wrapped."
        )
    return unet


def _console() -> logging.Logger:
    """The logger for what the user should see: its lines are printed among upstream's, and like them."""
    from pytorch3dunet.unet3d.utils import get_logger

    logger: logging.Logger = get_logger("P3DRegression")
    return logger

"""``pytorch3dunet.unet3d.model``: its builder understands ``final_activation``, its classes refuse to swallow it."""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from p3d_regression import __version__, upstream
from p3d_regression.activations.spec import KEY, FinalActivation, parse
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.upstream.patching import AnyFunction, Patch, replace_function

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
            if not (patch.is_applied and isinstance(model_config, Mapping) and KEY in model_config):
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
    patch = Patch(target, "applied", f"refuse a swallowed {KEY}")
    for cls in classes:
        patch.undo_actions.append(partial(setattr, cls, "__init__", cls.__init__))
        cls.__init__ = _refusing(cls.__init__, patch)
    return patch


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
        f"without this key and call p3d_regression.set_final_activation(model, {value!r})."
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
    from torch import nn

    unet = model.module if isinstance(model, nn.DataParallel) else model
    # None is how upstream itself spells "no activation"; every version since 1.3 tests for it.
    if not (hasattr(unet, "final_conv") and hasattr(unet, KEY)):
        raise TypeError(
            f"{type(unet).__name__} is not one of pytorch3dunet's U-Nets: it has no final_conv and {KEY}, so "
            f"final activation {activation.name} cannot be set on it"
        )
    unet.final_activation = None


def _console() -> logging.Logger:
    """The logger for what the user should see: its lines are printed among upstream's, and like them."""
    from pytorch3dunet.unet3d.utils import get_logger

    logger: logging.Logger = get_logger("P3DRegression")
    return logger

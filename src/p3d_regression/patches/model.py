"""``pytorch3dunet.unet3d.model``: its builder understands ``final_activation``, its classes refuse to swallow it."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from p3d_regression._patching import AnyFunction, Patch, replace_function, replace_method
from p3d_regression.activations.spec import KEY
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.fix import Fix, advise
from p3d_regression.keys import PLUGIN_KEYS, check_keys
from p3d_regression.model.last_layer import contradiction
from p3d_regression.model.loading import before_loading, note_section
from p3d_regression.model.unet import attach, attach_scaling, attached, inside, is_unet, set_final_activation
from p3d_regression.patches import activation
from p3d_regression.scaling import spec as scaling
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation

_warned: set[str] = set()


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the models, which has just been executed."""
    yield _patch_get_model(module)
    yield _patch_constructors(module)
    yield _patch_loading(module)


def _patch_get_model(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_model(model_config: Any) -> Any:
            if not (patch.is_applied and isinstance(model_config, Mapping)):
                return original(model_config)
            check_keys(model_config)
            scaling.check_company(model_config)
            if KEY not in model_config:
                return _noted(original(model_config), model_config)
            from p3d_regression.activations.registry import resolve
            from p3d_regression.scaling.target import spec_for

            value = model_config[KEY]
            plain_config = {key: value for key, value in model_config.items() if key not in PLUGIN_KEYS}
            channels = model_config.get("out_channels")
            if not isinstance(channels, int) or channels < 1:
                # the error message is pytorch-3dunet's
                return _with_keys(original(plain_config), model_config)
            final = resolve(value, channels)
            module = final.build()
            spec = spec_for(model_config, final)
            _warn_of_contradiction(model_config, final)
            model = _noted(original(plain_config), model_config)
            attach(inside(model), final, module)
            say(f"final activation {final.describe()}")
            if spec is not None:
                say(f"target scaling: {attach_scaling(inside(model), spec)}")
            return model

        return get_model

    return replace_function(module, "get_model", wrap, parameters=["model_config"])


def _noted(model: Any, model_config: Mapping[str, Any]) -> Any:
    if is_unet(model):
        note_section(model, model_config)
    return model


def _with_keys(model: Any, model_config: Mapping[str, Any]) -> Any:
    """Give a model that pytorch-3dunet could build what its config says of the last layer."""
    from p3d_regression.scaling.target import spec_for

    model = set_final_activation(model, model_config[KEY])
    spec = spec_for(model_config, attached(inside(model)))
    if spec is not None:
        say(f"target scaling: {attach_scaling(inside(model), spec)}")
    return model


def _patch_constructors(module: ModuleType) -> Patch:
    """Let each class that swallows unknown keys refuse the plugin keys.

    A key reaches a constructor when someone builds the class directly, or when the builder of pytorch-3dunet is not the
    one this project knows. Swallowed there, it would leave a Sigmoid where the user asked for none.
    """
    target = f"{module.__name__} constructors"
    classes = [cls for cls in vars(module).values() if _swallows_unknown_keys(cls, module)]
    if not classes:
        return Patch(target, "not needed", "no model class swallows unknown keys")
    return replace_method(
        classes, "__init__", _refusing, target=target, detail=f"refuse a swallowed {' or '.join(PLUGIN_KEYS)}"
    )


def _swallows_unknown_keys(cls: object, module: ModuleType) -> bool:
    if not (isinstance(cls, type) and cls.__module__ == module.__name__ and "__init__" in vars(cls)):
        return False
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return not PLUGIN_KEYS & parameters.keys() and any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _refusing(original: Callable[..., None], patch: Patch) -> Callable[..., None]:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if patch.is_applied:
            for key in (key for key in PLUGIN_KEYS if key in kwargs):
                _refuse(type(self).__name__, key, kwargs[key])
        original(self, *args, **kwargs)

    return __init__


def _refuse(class_name: str, key: str, value: object) -> NoReturn:
    message = f"{value!r} reached the class {class_name}, which would ignore it."
    if activation.builder_state() != "applied":
        raise UnsupportedUpstreamError(f"model.{key}: {message} {activation.unsupported_builder()}")
    if value == "standardize":
        value = {"mean": 12.5, "std": 13}
    what = (
        "build the model with pytorch3dunet.unet3d.model.get_model(config['model']), or build the class without this "
        f"key and call p3d_regression.set_{key}(model, {value!r}). If you called get_model, under another name: import "
        "it after p3d_regression.activate()"
    )
    raise ConfigError(f"model.{key}", message, advise(what))


def _patch_loading(module: ModuleType) -> Patch:
    """Let every U-Net look at the memory of a checkpoint before it takes the weights.

    On the class, where torch foresees it, and not by a hook on each model: so a model without a plugin
    key stays as pytorch-3dunet made it, also when it is pickled.
    """
    target = f"{module.__name__} loading of weights"
    classes = [cls for cls in vars(module).values() if _is_base_of_unets(cls, module)]
    if not classes:
        return Patch(target, "unsupported", "pytorch-3dunet has no model class there")
    detail = "a checkpoint's final activation is adopted or compared"
    return replace_method(classes, "_load_from_state_dict", _comparing, target=target, detail=detail)


def _is_base_of_unets(cls: object, module: ModuleType) -> bool:
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__ == module.__name__):
        return False
    return not any(base.__module__ == module.__name__ for base in cls.__mro__[1:])


def _comparing(original: AnyFunction, patch: Patch) -> AnyFunction:
    @wraps(original)
    def _load_from_state_dict(
        self: Any, state_dict: Any, prefix: str, local_metadata: Any, *args: Any, **kwargs: Any
    ) -> None:
        if patch.is_applied:
            before_loading(self, state_dict, prefix, local_metadata)
        original(self, state_dict, prefix, local_metadata, *args, **kwargs)

    return _load_from_state_dict


def _warn_of_contradiction(model_config: Mapping[str, Any], final: "FinalActivation") -> None:
    found = contradiction(model_config, final)
    if found and found.message not in _warned:
        _warned.add(found.message)
        assert isinstance(found.fix, Fix)
        console().warning(f"{found.key}: {found.message} Fix: {found.fix.in_one_line}.")

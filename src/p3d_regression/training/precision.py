"""Layers in half precision, where a config asks for it: ``trainer: {precision: bf16-mixed}``.

The last layer, the scaling behind it and the loss are computed in float32. With 8 bits for the digits of a bfloat16,
neighbouring predictions of 1000 would be 4 apart.
"""

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.model.contract import mapping
from p3d_regression.model.unet import inside
from p3d_regression.upstream.introspection import device_name
from p3d_regression.upstream.log import console

KEY = "precision"
PLACE = f"trainer.{KEY}"

FULL, BF16, FP16 = "32", "bf16-mixed", "16-mixed"
PRECISIONS = (FULL, BF16, FP16)


def precision_of(config: Mapping[str, Any]) -> str:
    """The precision that a config asks for.

    Raises:
        ConfigError: there is no such precision, or the device does not have it.
    """
    value = mapping(config.get("trainer")).get(KEY, FULL)
    device = device_name(config.get("device"))
    name = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if name not in PRECISIONS:
        raise ConfigError(
            PLACE,
            f"{reprlib.repr(value)} is not one of {', '.join(PRECISIONS)}.",
            write(PLACE, FULL if "32" in name else BF16),
        )
    if name == FP16 and device in ("cpu", "mps"):
        raise ConfigError(PLACE, f"{FP16} needs a CUDA GPU, and device is {device}.", write(PLACE, BF16))
    return name


def slow_reason(name: str, device: str) -> str | None:
    """Why a precision makes a training slower on a device; None if it does not, or that cannot be known."""
    import torch

    if name != BF16:
        return None
    if device == "cpu":
        features = [getattr(torch.cpu, f"_is_{feature}_supported", None) for feature in ("avx512_bf16", "amx_tile")]
        known = [feature() for feature in features if feature is not None]
        has, what, instead = any(known) or not known, "this processor", FULL
    elif device == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        what, instead = torch.cuda.get_device_name(), FP16
    else:
        return None
    return None if has else f"{PLACE}: {what} has no instructions for bfloat16; {instead} is faster"


def without(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config without the key, which pytorch-3dunet does not take."""
    trainer = config.get("trainer")
    if not (isinstance(trainer, Mapping) and KEY in trainer):
        return config
    return {**config, "trainer": {key: value for key, value in trainer.items() if key != KEY}}


def use(trainer: Any, name: str) -> None:
    """Let a trainer compute in a precision.

    Args:
        trainer: of pytorch-3dunet, not shared out among processes yet.
        name: one of :data:`PRECISIONS`.
    """
    if name == FULL:
        return
    import torch

    device = device_name(trainer.device)
    if reason := slow_reason(name, device):
        console().warning(reason)
    for module in (inside(trainer.model).final_conv, trainer.loss_criterion):
        module.forward = _in_float32(module.forward, device)
    forward_pass = trainer._forward_pass
    scaler = torch.amp.GradScaler(device) if name == FP16 else None
    if scaler is not None:
        trainer.optimizer = Scaled(trainer.optimizer, scaler)

    def in_half(*arguments: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16 if name == BF16 else torch.float16):
            output, loss = forward_pass(*arguments)
        if scaler is not None and loss.requires_grad:
            # gradients of float16 vanish below 6e-8
            loss.backward = scaler.scale(loss).backward
        return output.float(), loss

    trainer._forward_pass = in_half


def _in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    import torch

    def exact(*arguments: Any, **options: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*map(_float32, arguments), **options)

    return exact


def _float32(value: Any) -> Any:
    import torch

    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value


class Scaled:
    """Stands in for an optimizer whose gradients are scaled, so that they do not vanish in float16.

    Args:
        optimizer: of torch.
        scaler: ``torch.amp.GradScaler``.
    """

    def __init__(self, optimizer: Any, scaler: Any) -> None:
        self._optimizer = optimizer
        self.scaler = scaler

    def step(self) -> None:
        """Change the weights, unless a gradient is infinite: then the scale becomes smaller."""
        self.scaler.step(self._optimizer)
        self.scaler.update()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

"""A training in half precision, where its config asks for it: ``trainer: {precision: bf16-mixed}``."""

from collections.abc import Mapping
from typing import Any

from p3d_regression.model.contract import mapping
from p3d_regression.model.precision import FP16, FULL, KEY, autocast, check_device, checked, in_float32, slow_reason
from p3d_regression.model.unet import inside
from p3d_regression.upstream.introspection import device_name
from p3d_regression.upstream.log import console

PLACE = f"trainer.{KEY}"


def precision_of(config: Mapping[str, Any]) -> str:
    """The precision that a config asks for.

    Raises:
        ConfigError: there is no such precision, or the device does not have it.
    """
    name = checked(mapping(config.get("trainer")).get(KEY, FULL), PLACE)
    check_device(name, device_name(config.get("device")), PLACE)
    return name


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
    if reason := slow_reason(name, device, PLACE):
        console().warning(reason)
    for module in (inside(trainer.model).final_conv, trainer.loss_criterion):
        module.forward = in_float32(module.forward, device)
    forward_pass = trainer._forward_pass
    scaler = torch.amp.GradScaler(device) if name == FP16 else None
    if scaler is not None:
        trainer.optimizer = Scaled(trainer.optimizer, scaler)

    def in_half(*arguments: Any) -> Any:
        with autocast(name, device):
            output, loss = forward_pass(*arguments)
        if scaler is not None and loss.requires_grad:
            # gradients of float16 vanish below 6e-8
            loss.backward = scaler.scale(loss).backward
        return output.float(), loss

    trainer._forward_pass = in_half


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

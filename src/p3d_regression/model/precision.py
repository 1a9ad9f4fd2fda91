"""Layers in half precision, where a config asks for it: ``trainer: {precision: bf16-mixed}``, or ``predictor``.

The last layer, the scaling behind it and the loss are computed in float32. With 8 bits for the digits of a bfloat16,
neighbouring predictions of 1000 would be 4 apart.
"""

import reprlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write

#: The key of the sections ``trainer`` and ``predictor``.
KEY = "precision"

FULL, BF16, FP16 = "32", "bf16-mixed", "16-mixed"
PRECISIONS = (FULL, BF16, FP16)


def checked(value: object, place: str) -> str:
    """The precision that a value of a config names.

    Args:
        value: of the config.
        place: its key, with dots.

    Raises:
        ConfigError: there is no such precision.
    """
    name = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if name not in PRECISIONS:
        message = f"{reprlib.repr(value)} is not one of {', '.join(PRECISIONS)}."
        raise ConfigError(place, message, write(place, FULL if "32" in name else BF16))
    return name


def check_device(name: str, device: str, place: str) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ConfigError: it does not.
    """
    if name == FP16 and device in ("cpu", "mps"):
        raise ConfigError(place, f"{FP16} needs a CUDA GPU, and device is {device}.", write(place, BF16))


def slow_reason(name: str, device: str, place: str) -> str | None:
    """Why a precision is slower on a device; None if it is not, or that cannot be known."""
    if name != BF16:
        return None
    import torch

    if device == "cpu":
        features = [getattr(torch.cpu, f"_is_{feature}_supported", None) for feature in ("avx512_bf16", "amx_tile")]
        known = [feature() for feature in features if feature is not None]
        has, what, instead = any(known) or not known, "this processor", FULL
    elif device == "cuda" and torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        what, instead = torch.cuda.get_device_name(), FP16
    else:
        return None
    return None if has else f"{place}: {what} has no instructions for bfloat16; {instead} is faster"


def autocast(name: str, device: str) -> Any:
    """A context in which layers are computed in a precision."""
    import torch

    if name == FULL:
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if name == BF16 else torch.float16)


def in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A function or a layer that is computed in float32 whatever is around it."""
    import torch

    def exact(*arguments: Any, **options: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*map(_float32, arguments), **options)

    return exact


def _float32(value: Any) -> Any:
    import torch

    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value

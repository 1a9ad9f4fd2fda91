"""The machine that a config is written on."""

import os
import sys
from dataclasses import dataclass

_GIB = 2**30

#: Memory for a training without a GPU, at most.
_MOST = 8 * _GIB


@dataclass(frozen=True)
class Machine:
    """What a training can use.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        memory: for a training step, in bytes.
        ram: of the machine, in bytes.
        workers: processes that read patches.
        has_bf16: whether the device is fast with bfloat16.
    """

    device: str
    memory: int
    ram: int
    workers: int
    has_bf16: bool = False


def this_machine(memory: int | None = None) -> Machine:
    """Ask torch and the operating system.

    Args:
        memory: to use, in bytes; None for what there is.
    """
    import torch

    ram = _ram()
    # on macOS pytorch-3dunet's workers live on, and repeat their random numbers
    workers = 0 if sys.platform == "darwin" else max(0, min(4, (os.cpu_count() or 1) - 1))
    if torch.cuda.is_available():
        _, total = torch.cuda.mem_get_info()
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine("cuda", memory or int(0.9 * total), ram, workers, has_bf16)
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    return Machine(device, memory or min(_MOST, ram // 2), ram, workers)


def _ram() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2 * _MOST  # not known on Windows

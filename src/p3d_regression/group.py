"""The processes that ``torchrun`` has started for a training or a prediction: which one this is, what the others say.

Without ``torchrun`` nothing here imports ``torch.distributed``.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

#: Environment variable: how many minutes a process waits for another one. If one dies, torchrun stops all at once.
SETTING = "P3D_REGRESSION_TIMEOUT_MINUTES"

_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Whether ``torchrun`` has started this process, be it alone."""
    return all(os.environ.get(name) for name in _LAUNCHED)


def size() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def local_rank() -> int:
    """Which one of this machine this is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def restarts() -> int:
    """How often ``torchrun`` has started the processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def run_id() -> str | None:
    """What names this run of ``torchrun``, the same after a restart; None without ``torchrun``."""
    if not is_launched():
        return None
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if given != "none":
        return given
    # the parent is torchrun itself, which lives on
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = ""
    return f"{socket.gethostname()}:{parent}:{started}"


def is_running() -> bool:
    """Whether this process has met the others."""
    distributed: Any = sys.modules.get("torch.distributed")
    return is_launched() and bool(distributed and distributed.is_available() and distributed.is_initialized())


def take_device(device: str) -> None:
    """Let this process compute on a GPU of its own.

    Args:
        device: "cpu", "cuda" or "mps".

    Raises:
        ConfigError: there are too few GPUs.
    """
    if device != "cuda":
        return
    import torch

    there, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    # a launcher may have given each process a GPU that it alone can see
    sees_one = there == 1 and "CUDA_VISIBLE_DEVICES" in os.environ
    if there < wanted and not sees_one:
        raise ConfigError(
            "device",
            f"torchrun has started {wanted} processes on this machine, which has {there} GPU(s); each process "
            "needs its own.",
            advise(f"start torchrun with --nproc-per-node {there}"),
        )
    torch.cuda.set_device(local_rank() if there > 1 else 0)


def quieten() -> None:
    """Let the first process say it all; an error is an exception."""
    if not is_main():
        logging.disable(logging.WARNING)


def speak() -> None:
    """Let this process write to the log again."""
    if not is_main():
        logging.disable(logging.NOTSET)


def join(device: str) -> None:
    """Meet the other processes.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    import torch
    from torch import distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    if distributed.is_initialized():
        return
    timeout = timedelta(minutes=float(os.environ.get(SETTING) or 120))
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    # torchrun keeps its store when it starts the processes anew: they would look for those that have ended
    store = PrefixStore(f"p3d-regression/{restarts()}", store)
    own = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else None
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if own else "gloo",
        timeout=timeout,
        store=store,
        rank=rank,
        world_size=size,
        device_id=own,
    )


def leave() -> None:
    """End the talk with the other processes."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def gathered(value: Any) -> list[Any]:
    """What each process says, in the order of their ranks; the same in each."""
    if not is_running():
        return [value]
    from torch import distributed

    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, value)
    return found


def of_main(value: Any) -> Any:
    """What the first process says."""
    if not is_running():
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def once(function: Callable[[], T]) -> T:
    """What a function returns, called in the first process of those that have met."""
    return function() if not is_running() else cast(T, of_main(function() if is_main() else None))


def summed(tensor: "Tensor") -> "Tensor":
    """The sum over the processes, on the device, which is not waited for."""
    from torch import distributed

    total = tensor.detach().clone()
    if total.device.type != "mps":
        distributed.all_reduce(total)
        return total
    on_cpu = total.cpu()
    distributed.all_reduce(on_cpu)
    return on_cpu.to(total.device)


def each(value: float) -> list[float]:
    """A number of each process, in the order of their ranks."""
    import torch
    from torch import distributed

    own = torch.tensor([value], dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(size())]
    distributed.all_gather(found, own)
    return [float(number) for number in found]

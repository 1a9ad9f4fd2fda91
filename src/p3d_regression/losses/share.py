"""The part of a batch that this process has, where several train together.

Each process has its own patches, with its own number of voxels that count. The mean over all voxels is not the mean of
the processes' means, and ``torch.nn.parallel.DistributedDataParallel`` takes the mean of their gradients. So each
process divides its sum by the voxels of all, and multiplies by the number of processes: the mean over the processes is
then the loss of the whole batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Of one batch.

    Attributes:
        own: how many of this process's patches belong to the batch; those after them fill it up and do not count.
        total: how many all processes have.
        processes: how many there are.
        summed: from a tensor of this process to its sum over all processes.
    """

    own: int
    total: int
    processes: int
    summed: Callable[[Tensor], Tensor]

    @property
    def factor(self) -> float:
        """What a mean over this process's patches is multiplied by."""
        return self.own * self.processes / self.total

    def divisor(self, weight: Tensor) -> Tensor:
        """What a sum over this process's voxels is divided by.

        Args:
            weight: of these voxels together.
        """
        return self.summed(weight) / self.processes


_current: ContextVar[Share | None] = ContextVar("share", default=None)


def current() -> Share | None:
    """None where this process has the whole batch."""
    return _current.get()


@contextmanager
def of_batch(share: Share | None) -> Iterator[None]:
    """While this lasts, losses are those of this process's part of a batch."""
    token = _current.set(share)
    try:
        yield
    finally:
        _current.reset(token)

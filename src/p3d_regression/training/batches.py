"""Which patches of which files the data loaders of pytorch-3dunet have put into a batch."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from p3d_regression import group
from p3d_regression.losses.share import Share

if TYPE_CHECKING:
    from torch import Tensor


class Recorder:
    """Stands in for a sampler, gives what that gives, and remembers it.

    Where several processes train together, each gives its own part: of an order that is the same for all, every
    ``size``-th index. If their number does not divide that of the items, the first ones fill up the end.

    Args:
        sampler: of indices into the dataset.
        batch_size: of the batches that are made of them, in one process.
    """

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self._sampler = sampler
        self._batch_size = batch_size
        self._indices: list[int] = []
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many batches of this epoch have been used."""
        return self._taken

    def __iter__(self) -> Iterator[int]:
        self._indices, self._taken = [], 0
        # loaders with workers ask for more than has been used yet
        for index in self._sampler if group.size() == 1 else self._part():
            self._indices.append(index)
            yield index

    def _part(self) -> list[int]:
        import torch

        # the order of the first process: that of the same training in one process
        order = group.of_main(torch.tensor(list(self._sampler)) if group.is_main() else None)
        filled = order[torch.arange(len(self) * group.size()) % len(order)]
        part: list[int] = filled[group.rank() :: group.size()].tolist()
        return part

    def __len__(self) -> int:
        return -(-len(self._sampler) // group.size())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_sampler":
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def next(self) -> list[int]:
        """The indices of the next batch that is used."""
        first = self._taken * self._batch_size
        self._taken += 1
        return self._indices[first : first + self._batch_size]

    def share(self, summed: "Callable[[Tensor], Tensor]") -> Share:
        """This process's part of the batch that :meth:`next` has returned last."""
        first = (self._taken - 1) * self._batch_size
        count = min(self._batch_size, len(self) - first)
        places = range(first, first + count)
        processes, items = group.size(), len(self._sampler)
        counts = [sum(place * processes + rank < items for place in places) for rank in range(processes)]
        return Share(counts[group.rank()], sum(counts), processes, summed)


def record(loader: Any) -> Recorder | None:
    """Let a data loader of torch tell which items are in its batches; None if it is of another kind."""
    batches: Any = getattr(loader, "batch_sampler", None)
    sampler, size = getattr(batches, "sampler", None), getattr(batches, "batch_size", None)
    if isinstance(sampler, Recorder):
        return sampler
    if sampler is None or not isinstance(size, int):
        return None
    recorder = Recorder(sampler, size)
    batches.sampler = recorder
    return recorder


def places(dataset: Any, indices: list[int]) -> list[str]:
    """Of some items of a dataset: file and patch, in words."""
    return [_place(dataset, index) for index in indices]


def _place(dataset: Any, index: int) -> str:
    sizes, parts = getattr(dataset, "cumulative_sizes", None), getattr(dataset, "datasets", None)
    if sizes and parts:
        part = bisect_right(sizes, index)
        return _place(parts[part], index - (sizes[part - 1] if part else 0))
    path, slices = getattr(dataset, "file_path", None), getattr(dataset, "raw_slices", None)
    if path is None:
        return f"item {index} of {type(dataset).__name__}"
    if slices is None or index >= len(slices):
        return str(path)
    spatial = [f"{axis} {part.start}:{part.stop}" for axis, part in zip("zyx", slices[index][-3:], strict=True)]
    return f"{path} [{', '.join(spatial)}]"

"""One metric of what several processes have been shown."""

import copy
from collections.abc import Callable
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise


def over_processes(pairs: list[tuple[Any, int]], gathered: Callable[[Any], list[Any]]) -> list[tuple[Any, int]]:
    """Merge the metrics of all processes, channel by channel; the result is the same in each.

    Args:
        pairs: for each channel its metric, and the number of voxels that it has been shown.
        gathered: from what this process has to what each process has.
    """
    processes = gathered([(_on_cpu(metric), voxels) for metric, voxels in pairs])
    found = []
    for channel in range(max(map(len, processes))):
        # some metrics cannot be merged with one that has been shown nothing
        shown = [own[channel] for own in processes if channel < len(own) and own[channel][1]]
        metric = merged([metric for metric, _ in shown]) if shown else None
        found.append((metric, sum(voxels for _, voxels in shown)))
    return found


def check(metric: Any, key: str) -> None:
    """Refuse a metric that several processes cannot compute together.

    Raises:
        ConfigError: it cannot be merged.
    """
    if not (hasattr(metric, "merge") or (hasattr(metric, "sync") and hasattr(metric, "_reductions"))):
        raise ConfigError(
            key,
            f"{type(metric).__name__} cannot be computed by several processes: it has no method merge(other), which "
            "takes in what another one has been shown.",
            advise("add that method in the plugin, choose another metric, or train with one process"),
        )


def merged(metrics: list[Any]) -> Any:
    """One metric of what all of them have been shown; they stay as they are."""
    first = copy.deepcopy(metrics[0])
    if len(metrics) == 1:
        return alone(first)
    if hasattr(first, "merge"):
        for other in metrics[1:]:
            first.merge(other)
        return first
    return _synced(first, metrics)


def alone(metric: Any) -> Any:
    """The metric, which will not talk to other processes by itself."""
    if hasattr(metric, "sync_on_compute"):
        metric.sync_on_compute = metric._to_sync = False
    return metric


def _on_cpu(metric: Any) -> Any:
    # another process may not have the same device
    return copy.deepcopy(metric).to("cpu") if hasattr(metric, "set_dtype") else metric


def _synced(first: Any, metrics: list[Any]) -> Any:
    # torchmetrics' own way to make one state of those of several processes, told what each of them has
    states = iter([[getattr(metric, name) for metric in metrics] for name in first._reductions])

    def gather(own: Any, group: Any = None) -> list[Any]:
        import torch

        values = next(states)
        return [torch.cat(value) for value in values if value] if isinstance(values[0], list) else values

    first.sync(dist_sync_fn=gather, distributed_available=lambda: True)
    # so that compute() takes the state as it is, and does not bring back the old one
    first._is_synced, first._computed = False, None
    return alone(first)

"""One metric that a config may name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from p3d_regression.components.component import Component
from p3d_regression.components.parameters import Argument
from p3d_regression.interval import REAL_LINE, Interval
from p3d_regression.labels.floor import VoxelLoss


class Accumulating(Protocol):
    """What computes a metric piece by piece, as every ``torchmetrics.Metric`` does."""

    def update(self, preds: Any, target: Any) -> None:
        """Take in predictions and labels: tensors of float64 and one shape."""

    def compute(self) -> Any:
        """The metric over all that was taken in: a tensor with one number."""

    def reset(self) -> None:
        """Forget it."""


@dataclass(frozen=True)
class Metric(Component):
    """A metric that a config may name.

    Attributes:
        name: as configs write it; case, spaces and underscores do not matter there.
        build: returns what computes it, for one channel: an :class:`Accumulating`, such as a ``torchmetrics.Metric``.
            Called with the config's arguments by keyword; its signature says which there are.
        higher_is_better: its direction; None if neither is.
        summary: one line of use, for a table.
        on: what it is computed of. ``voxels``: predictions and labels of shape (n,), those that count of all patches in
            any order. ``patches``: of shape (N, 1, D, H, W), or (N, 1, H, W) where D is 1; it cannot leave voxels out.
        keeps_voxels: whether all voxels are kept until the end.
        outputs, labels: which predictions and labels make sense.
        aliases: other names for it.
        example: arguments for a table and for tests; needed where the constructor has arguments without default.
        hidden: arguments of the constructor that a config may not give -> why.
        voxel_loss: from the arguments to the metric of one voxel as a function of numpy arrays, where the metric is the
            mean of that, as for :class:`~p3d_regression.losses.loss.Loss`; None for other metrics.

    Raises:
        ValueError: an argument, the aliases or the example cannot be used.
    """

    name: str
    build: Callable[..., Accumulating]
    higher_is_better: bool | None
    summary: str
    on: Literal["voxels", "patches"] = "voxels"
    keeps_voxels: bool = False
    outputs: Interval = REAL_LINE
    labels: Interval = REAL_LINE
    aliases: tuple[str, ...] = ()
    example: Mapping[str, Argument] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    voxel_loss: Callable[[Mapping[str, Any]], VoxelLoss | None] | None = None
    noun: ClassVar[str] = "metric"
    command: ClassVar[str] = "metrics"

    def __post_init__(self) -> None:
        self._check()

    @property
    def properties(self) -> dict[str, Any]:
        """``higher_is_better``; ``ignores``, whether voxels can be masked; ``keeps_voxels``, whether all of a
        validation are kept in memory.
        """
        return {
            "higher_is_better": self.higher_is_better,
            "ignores": self.on == "voxels",
            "keeps_voxels": self.keeps_voxels,
        }

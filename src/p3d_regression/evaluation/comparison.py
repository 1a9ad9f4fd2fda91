"""Several runs on the same voxels: one table, and differences volume by volume."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p3d_regression.errors import EvaluationError
from p3d_regression.evaluation.scores import HIGHER, intervals
from p3d_regression.evaluation.words import of_channel

#: Scores that are compared.
SCORES = ("RMSE", "MAE", "R2", "Pearson", "PSNR", "SSIM")


@dataclass(frozen=True)
class Run:
    """What ``evaluate --json`` prints of a run.

    Attributes:
        name: of it, for the table.
        plain: the object.
    """

    name: str
    plain: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a file that ``evaluate --json`` has written.

        Raises:
            EvaluationError: it is another file.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            run = cls(str(path), plain)
            if all(volume["voxels"] and volume["truth"] for volume in plain["volumes"]) and plain["pooled"]:
                return run
        except (ValueError, KeyError, TypeError):
            pass
        raise EvaluationError(f"{path} is not what `p3d-regression evaluate --json` prints.")

    @property
    def volumes(self) -> Mapping[str, Mapping[str, Any]]:
        """By the truth, which is the same for each run."""
        return {str(volume["truth"]): volume for volume in self.plain["volumes"]}

    @property
    def channels(self) -> int:
        held = self.plain["pooled"]["RMSE"]
        return len(held) if isinstance(held, list) else 1


@dataclass(frozen=True)
class Difference:
    """How a run differs from the first one in a score of a channel.

    Attributes:
        mean: over volumes, this run minus the first.
        interval: of 95 %, from a bootstrap over pairs; None for fewer than 5 volumes.
        better: in how many volumes this run is better.
        volumes: how many there are.
    """

    run: str
    score: str
    channel: int
    mean: float
    interval: tuple[float, float] | None
    better: int
    volumes: int

    def __str__(self) -> str:
        between = "" if self.interval is None else f", 95 % interval {self.interval[0]:.4g} to {self.interval[1]:.4g}"
        channel = f" of channel {self.channel}" if self.channel else ""
        return (
            f"{self.run}: {self.score}{channel} {self.mean:+.4g} on average over volumes{between}; better in "
            f"{self.better} of {self.volumes}"
        )


def check_same(runs: Sequence[Run]) -> None:
    """Refuse runs that were not scored on the same voxels.

    Raises:
        EvaluationError: they were not.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.channels != first.channels:
            raise EvaluationError(f"{run.name} has {run.channels} channel(s), {first.name} {first.channels}.")
        for truth in sorted(first.volumes.keys() | run.volumes.keys()):
            held = [each.volumes.get(truth, {}).get("voxels", 0) for each in (first, run)]
            if held[0] != held[1]:
                raise EvaluationError(
                    f"{first.name} and {run.name} were not scored on the same voxels: of {truth} {held[0]} and "
                    f"{held[1]}. Evaluate them with the same truth, --mask and --border."
                )


def differences(runs: Sequence[Run], score: str = "RMSE") -> list[Difference]:
    """Of each run to the first one."""
    found = []
    first = runs[0]
    for run in runs[1:]:
        for channel in range(first.channels):
            pairs = [
                (of_channel(volume[score], channel), of_channel(run.volumes[truth][score], channel))
                for truth, volume in first.volumes.items()
            ]
            change = [after - before for before, after in pairs if before is not None and after is not None]
            if not change:
                continue
            better = sum(value > 0 if score in HIGHER else value < 0 for value in change)
            mean = sum(change) / len(change)
            found.append(Difference(run.name, score, channel, mean, intervals(change), better, len(change)))
    return found


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write a PNG: the RMSE of each volume, run by run; lines connect the same volume."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    channels = runs[0].channels
    figure = Figure(figsize=(1.6 * len(runs) + 2.5, 3.2 * channels), layout="constrained")
    FigureCanvasAgg(figure)
    for channel, axes in enumerate(figure.subplots(channels, 1, squeeze=False)[:, 0]):
        for truth, volume in runs[0].volumes.items():
            values = [of_channel(run.volumes[truth]["RMSE"], channel) for run in runs]
            axes.plot(range(len(runs)), values, "o-", label=volume["name"], alpha=0.8)
        axes.set_xticks(range(len(runs)), [Path(run.name).name for run in runs])
        axes.set_ylabel("RMSE" + (f", channel {channel}" if channels > 1 else ""))
        axes.set_ylim(bottom=0)
        if len(runs[0].volumes) <= 10:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=110, format="png")

"""What a training leaves beside its checkpoints: its log, and its losses and scores as a table."""

import csv
import io
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from p3d_regression.volumes.writing import write_whole

LOG, METRICS = "train.log", "metrics.csv"


class Metrics:
    """``metrics.csv``: a row for each validation and for each training loss that is logged.

    Args:
        directory: of the checkpoints.
        metric: name of the score.
        first: iteration that the training begins with; rows of that one and later ones are those of a run that was
            interrupted, and are left out.
    """

    def __init__(self, directory: Path, metric: str, first: int) -> None:
        self._path = directory / METRICS
        self._header = ["iteration", "epoch", "phase", "loss", metric, "learning_rate", "seconds"]
        self._started = time.monotonic()
        rows = self._kept(first)
        # a table that cannot be written is no reason to stop a training
        with suppress(OSError):
            write_whole(self._path, lambda beside: beside.write_text(_text([self._header, *rows]), encoding="utf-8"))

    def _kept(self, first: int) -> list[list[str]]:
        with suppress(OSError, ValueError, IndexError, UnicodeDecodeError):
            header, *rows = list(csv.reader(io.StringIO(self._path.read_text(encoding="utf-8"))))
            if header == self._header:
                return [row for row in rows if int(row[0]) < first]
        return []

    def add(self, trainer: Any, phase: str, loss: float, score: float) -> None:
        """Write a row."""
        rate = trainer.optimizer.param_groups[0]["lr"]
        seconds = round(time.monotonic() - self._started, 3)
        row = [trainer.num_iterations, trainer.num_epochs, phase, float(loss), float(score), rate, seconds]
        with suppress(OSError), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text([row]))


def _text(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def summary(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A training config in a few rows of two columns."""
    from p3d_regression.text import as_yaml

    def get(key: str) -> Any:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def named(section: str) -> str:
        held = get(section)
        rest = {k: v for k, v in held.items() if k != "name"} if isinstance(held, Mapping) else {}
        return f"{get(f'{section}.name')}{f' {as_yaml(rest)[1:-1]}' if rest else ''}"

    files = {name: get(f"loaders.{name}.file_paths") for name in ("train", "val")}
    counts = ", ".join(f"{name} {len(paths)}" for name, paths in files.items() if isinstance(paths, list))
    channels = f"{get('model.in_channels')} -> {get('model.out_channels')} channels"
    scaling = get("model.target_scaling")
    rows = [
        ("network", f"{get('model.name')}, {channels}, f_maps {as_yaml(get('model.f_maps'))}"),
        ("output", f"{as_yaml(get('model.final_activation'))}{f', {as_yaml(scaling)}' if scaling else ''}"),
        ("loss", named("loss")),
        ("metric", named("eval_metric")),
        ("optimizer", named("optimizer")),
        (
            "patches",
            f"{as_yaml(get('loaders.train.slice_builder.patch_shape'))}, {get('loaders.batch_size')} in a batch",
        ),
        ("files", counts),
        ("iterations", f"{get('trainer.max_num_iterations')}, validated every {get('trainer.validate_after_iters')}"),
        ("checkpoints", str(get("trainer.checkpoint_dir"))),
    ]
    return [(name, value) for name, value in rows if "None" not in value]

"""``p3d-regression probe``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p3d_regression.errors import ConfigError, ExportError, UnsupportedUpstreamError

if TYPE_CHECKING:
    from p3d_regression.labels.moments import Array

#: Relative to the standard deviation of the output: what rounding explains.
_ROUNDING = 1e-3


@click.command(short_help="Show how the prediction of one patch changes with the patch.")
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Prediction config: its first file and its raw transforms are used.",
)
def probe(checkpoint: Path, config: Path) -> None:
    """Predict one patch with CHECKPOINT, and show how the output changes with the patch.

    The patch in the middle of the first test volume is predicted as it is, with raw values doubled and shifted,
    mirrored, moved, and as a part of a larger patch. All numbers are in the units of the labels.
    """
    from rich.console import Console
    from rich.table import Table

    try:
        found = list(_probe(checkpoint, config))
    except (ConfigError, ExportError, UnsupportedUpstreamError) as error:
        raise click.ClickException(str(error)) from error
    first = found[0]
    table = Table("raw patch", "mean of the output", "std of the output", "change (RMS)", box=None, pad_edge=False)
    for row in found:
        change = "" if row is first else f"{row.change:.6g}"
        table.add_row(row.name, f"{row.mean:.6g}", f"{row.std:.6g}", change)
    console = Console()
    console.print(table)
    for line in _conclusions(found):
        console.print(line, soft_wrap=True)


@dataclass(frozen=True)
class Row:
    """The prediction of a changed patch.

    Attributes:
        name: of the change.
        mean, std: of the output.
        change: the root mean square of the difference to the output of the patch as it is, turned and moved back.
    """

    name: str
    mean: float
    std: float
    change: float


def _conclusions(found: list[Row]) -> Iterator[str]:
    rows, first = {row.name: row for row in found}, found[0]
    least = _ROUNDING * first.std
    if rows["doubled"].change <= least:
        yield "Doubled raw values give the same output: the network does not see how bright a patch is."
    elif abs(rows["doubled"].mean - 2 * first.mean) <= 0.01 * abs(first.mean):
        yield "Doubled raw values give twice the output."
    if rows["shifted by its std"].change <= least:
        yield "Shifted raw values give the same output: the network does not see the level of a patch."
    if "in a larger patch" in rows and rows["in a larger patch"].change > 0.1 * first.std:
        yield "As a part of a larger patch it is predicted differently: predict with the patch shape of the training."


def _probe(checkpoint: Path, path: Path) -> Iterator[Row]:
    import numpy as np
    import torch

    from p3d_regression.checks.run import read
    from p3d_regression.export import checkpoint as checkpoints
    from p3d_regression.model.contract import adopt
    from p3d_regression.upstream import samples

    config = read(str(path)) | {"model_path": str(checkpoint)}
    state = checkpoints.read(checkpoint)
    adopt(config, "predict")
    model = checkpoints.build(config.get("model") or {}, state["model_state_dict"], path)
    try:
        volume = samples.input_volume(config["loaders"])
    except Exception as error:
        raise ExportError(f"{path}: the first test volume cannot be read ({type(error).__name__}: {error})") from error
    wanted = config["loaders"]["test"]["slice_builder"]["patch_shape"]
    shape = [min(p, n) for p, n in zip(wanted, volume.shape, strict=True)]
    start = [(n - p) // 2 for n, p in zip(volume.shape, shape, strict=True)]
    is_2d = "2D" in str(config["model"]["name"])

    def predicted(raw: "Array") -> "Array":
        """Shape (D, H, W) or (C, D, H, W), as in the file, to (C, D, H, W)."""
        seen = torch.as_tensor(np.asarray(volume.transform(raw)), dtype=torch.float32)[None]
        with torch.no_grad():
            found = model(seen.squeeze(2) if is_2d else seen)
        return np.asarray((found.unsqueeze(2) if is_2d else found)[0])

    raw = volume.read(start, shape)
    plain = predicted(raw)

    def row(name: str, found: "Array", back: "Array | None" = None, reference: "Array | None" = None) -> Row:
        difference = (found if back is None else back) - (plain if reference is None else reference)
        return Row(name, float(found.mean()), float(found.std()), float(np.sqrt(np.mean(difference**2))))

    yield row("as it is", plain)
    exact = raw.astype(np.float64)
    yield row("doubled", predicted(2 * exact))
    yield row("shifted by its std", predicted(exact + exact.std()))
    for axis, name in ((-1, "X"), (-2, "Y"), (-3, "Z")):
        if shape[axis] > 1:
            found = predicted(np.flip(raw, axis).copy())
            yield row(f"mirrored along {name}, and back", found, np.flip(found, axis))
    for name, step in (("moved by a voxel along X", 1), ("moved by half a patch along X", shape[-1] // 2)):
        if start[-1] + step + shape[-1] <= volume.shape[-1]:
            found = predicted(volume.read([*start[:-1], start[-1] + step], shape))
            yield row(f"{name}, and back", found, found[..., :-step], plain[..., step:])
    larger = [p if p == 1 else min(2 * p, n) for p, n in zip(shape, volume.shape, strict=True)]
    if larger != shape:
        origin = [max(0, s - (w - p) // 2) for s, w, p in zip(start, larger, shape, strict=True)]
        z, y, x = (slice(s - o, s - o + p) for s, o, p in zip(start, origin, shape, strict=True))
        found = predicted(volume.read(origin, larger))
        yield row("in a larger patch", found, found[..., z, y, x])

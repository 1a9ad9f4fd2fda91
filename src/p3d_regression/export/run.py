"""From a checkpoint to a file for people without the plugin, compared with the original before anybody sees it."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from p3d_regression.checkpoint import Memory
from p3d_regression.errors import ExportError
from p3d_regression.export import graph, plain
from p3d_regression.upstream import models

if TYPE_CHECKING:
    from torch import Tensor, nn

Format = Literal["plain", "onnx", "pt2"]

#: The largest difference that rounding makes, as a part of the span of the outputs. Another program sums in another
#: order.
_ROUNDING: dict[Format, float] = {"plain": 1e-5, "onnx": 1e-4, "pt2": 1e-5}

#: What float32 does to numbers that are far from 0, as a part of the largest one: some of its last bits.
_LAST_BITS = 2.0**-21


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        section: the model section that goes with a plain checkpoint; None for a graph.
        config: the config file that the model was built from.
        difference: the largest one between its output and the original's, as a part of the span of that.
    """

    section: dict[str, Any] | None
    config: Path
    difference: float


def export(checkpoint: Path, out: Path, format_: Format, config: Path | None = None) -> Exported:
    """Write ``out``, which must not exist; if anything fails, nothing is written.

    Args:
        checkpoint: of upstream's trainer.
        out: the new file.
        format_: what it will be.
        config: of the training or of a prediction; None for the copy that upstream has left beside the checkpoint.

    Raises:
        ExportError: it cannot be done, or the result does not compute the same.
        ConfigError: the config does not fit the checkpoint.
    """
    _check_paths(checkpoint, out)
    if format_ != "plain":
        graph.require(format_)
    section, config = _model_section(checkpoint, config)
    state = models.read(checkpoint)
    model = models.built(section, state["model_state_dict"], config)
    with _new_file(out) as path:
        if format_ == "plain":
            memory = models.memory_of(model)
            if memory is None:
                raise ExportError(f"{checkpoint} is a plain checkpoint: pytorch-3dunet predicts with it as it is")
            return _plain(model, memory, state, section, config, path)
        samples = _samples(section)
        write = graph.write_onnx if format_ == "onnx" else graph.write_pt2
        try:
            run = write(model, samples[0], path)
        except Exception as error:
            raise ExportError(f"torch cannot export this model ({type(error).__name__}: {error})") from error
        return Exported(None, config, _difference(model, run, samples, _ROUNDING[format_]))


def _check_paths(checkpoint: Path, out: Path) -> None:
    if not checkpoint.is_file():
        raise ExportError(f"{checkpoint} is not there")
    if out.exists():
        raise ExportError(f"{out} is there already, and is not overwritten; choose another name")
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent} is not a directory")


def _model_section(checkpoint: Path, config: Path | None) -> tuple[Mapping[str, Any], Path]:
    if config is None:
        found = models.training_config_beside(checkpoint)
        if found is None:
            raise ExportError(
                f"no copy of a training config in {checkpoint.parent / 'logs'}: say with --config which training or "
                "prediction config goes with the checkpoint"
            )
        config, content = found
    else:
        try:
            content = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ExportError(f"{config} cannot be read: {error}") from error
    section = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(section, Mapping):
        raise ExportError(f"{config} has no section model")
    return section, config


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """A path to write to; what is there appears as ``out`` at the end, as a whole, and never in place of another."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as directory:
        path = Path(directory) / out.name
        yield path
        try:
            os.link(path, out)
        except FileExistsError:
            raise ExportError(f"{out} has appeared in the meantime, and is not overwritten") from None
        except OSError:
            # of a file system without links
            with path.open("rb") as source, out.open("xb") as target:
                shutil.copyfileobj(source, target)


def _plain(
    model: "nn.Module", memory: Memory, state: Mapping[str, Any], section: Mapping[str, Any], config: Path, path: Path
) -> Exported:
    import torch

    plain_section = plain.section_of(section, memory)
    weights = plain.weights_of(state["model_state_dict"], memory)
    other = models.built(plain_section, weights, config)
    difference = _difference(model, other, _samples(section), _ROUNDING["plain"])
    # the state of an optimizer belongs to the weights that it has seen
    rest = {key: value for key, value in state.items() if key not in ("model_state_dict", "optimizer_state_dict")}
    torch.save({**rest, "model_state_dict": weights}, path)
    return Exported(plain_section, config, difference)


def _samples(section: Mapping[str, Any]) -> list["Tensor"]:
    """Random patches of two shapes and batch sizes, large enough for the levels of a model."""
    import torch

    axes, side = (2 if "2D" in str(section.get("name")) else 3), models.smallest_side(section)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, *(side,) * axes), (1, *(side + 5,) * axes)]
    channels = int(section["in_channels"])
    return [torch.randn((n, channels, *spatial), generator=generator) for n, *spatial in shapes]


def _difference(model: "nn.Module", other: graph.Run, samples: list["Tensor"], allowed: float) -> float:
    """The largest one between two models, as a part of the span of the outputs.

    Raises:
        ExportError: it is more than rounding makes.
    """
    import torch

    largest = 0.0
    for sample in samples:
        with torch.no_grad():
            expected, found = model(sample), other(sample)
        if found.shape != expected.shape or not found.isfinite().all() or not expected.isfinite().all():
            raise ExportError("the exported model does not compute what the checkpoint does: nothing was written")
        difference = (found - expected).abs().max().item()
        span = (expected.max() - expected.min()).item()
        if difference > allowed * span + _LAST_BITS * expected.abs().max().item():
            raise ExportError(
                f"the exported model does not compute what the checkpoint does: they differ by {difference:.3g} where "
                f"outputs span {span:.3g}. Nothing was written."
            )
        largest = max(largest, difference / span if span else 0.0)
    return largest

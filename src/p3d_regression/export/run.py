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

from p3d_regression.errors import ExportError
from p3d_regression.export import graph, portable
from p3d_regression.export.checkpoint import build, memory_of, read
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.model.memory import Memory
from p3d_regression.upstream import introspection
from p3d_regression.upstream.logs import training_configs_beside

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
    state = read(checkpoint)
    model = build(section, state["model_state_dict"], config)
    with _new_file(out) as path:
        if format_ == "plain":
            memory = memory_of(model)
            if memory is None:
                raise ExportError(f"{checkpoint} is a plain checkpoint: pytorch-3dunet predicts with it as it is")
            return _plain(model, memory, state, section, config, path)
        samples = _samples(section)
        write = graph.write_onnx if format_ == "onnx" else graph.write_pt2
        try:
            run = write(model, samples[0], path)
        except Exception as error:
            said = " ".join((str(error).strip().splitlines() or [""])[0].split())[:300]
            other = " --format pt2 may be able to." if format_ == "onnx" else ""
            raise ExportError(f"torch cannot export this model ({type(error).__name__}: {said}).{other}") from error
        return Exported(None, config, _difference(model, run, samples, _ROUNDING[format_]))


def _check_paths(checkpoint: Path, out: Path) -> None:
    if not checkpoint.is_file():
        raise ExportError(f"{checkpoint} is not there")
    if os.path.lexists(out):
        raise ExportError(f"{out} is there already, and is not overwritten; choose another name")
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent} is not a directory")


def _model_section(checkpoint: Path, config: Path | None) -> tuple[Mapping[str, Any], Path]:
    if config is None:
        config, content = _config_beside(checkpoint)
    else:
        try:
            content = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ExportError(f"{config} cannot be read: {error}") from error
    section = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(section, Mapping):
        raise ExportError(f"{config} has no section model")
    return section, config


def _config_beside(checkpoint: Path) -> tuple[Path, Mapping[str, Any]]:
    """The training config in ``logs/``, if there is no doubt about the network."""
    found = list(training_configs_beside(checkpoint))
    how = "say with --config which training or prediction config goes with the checkpoint"
    if not found:
        raise ExportError(f"no copy of a training config in {checkpoint.parent / 'logs'}: {how}")
    # weights fit into networks that compute something else, such as one with other num_groups
    networks = [_network(config.get("model")) for _, config in found]
    if others := [str(path) for (path, _), network in zip(found, networks, strict=True) if network != networks[0]]:
        raise ExportError(f"{found[0][0]} and {others[0]} have different networks: {how}")
    return found[0]


def _network(section: object) -> object:
    """What decides about the network of a model, and not about its last layer."""
    if not isinstance(section, Mapping):
        return None
    return {k: v for k, v in section.items() if k not in (*PLUGIN_KEYS, "is_segmentation", "final_sigmoid")}


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
            _copy(path, out)


def _copy(path: Path, out: Path) -> None:
    with path.open("rb") as source, out.open("xb") as target:
        try:
            shutil.copyfileobj(source, target)
        except BaseException:
            out.unlink()
            raise


def _plain(
    model: "nn.Module", memory: Memory, state: Mapping[str, Any], section: Mapping[str, Any], config: Path, path: Path
) -> Exported:
    import torch

    plain_section = portable.section_of(section, memory)
    weights = portable.weights_of(state["model_state_dict"], memory)
    other = build(plain_section, weights, config)
    difference = _difference(model, other, _samples(section), _ROUNDING["plain"])
    # the state of an optimizer belongs to the weights that it has seen
    rest = {key: value for key, value in state.items() if key not in ("model_state_dict", "optimizer_state_dict")}
    torch.save({**rest, "model_state_dict": weights}, path)
    return Exported(plain_section, config, difference)


def _samples(section: Mapping[str, Any]) -> list["Tensor"]:
    """Random patches of two shapes and batch sizes, large enough for the levels of a model."""
    import torch

    axes, side = (2 if "2D" in str(section.get("name")) else 3), _smallest_side(section)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, *(side,) * axes), (1, *(side + 5,) * axes)]
    channels = int(section["in_channels"])
    return [torch.randn((n, channels, *spatial), generator=generator) for n, *spatial in shapes]


def _smallest_side(section: Mapping[str, Any]) -> int:
    """Of a patch that is left with two voxels at the lowest level of a network, or more."""
    cls = introspection.model_class(section.get("name"))
    features = section.get("f_maps")
    levels = section.get("num_levels") or (introspection.default(cls, "num_levels") if cls else None)
    levels = len(features) if isinstance(features, list | tuple) else levels
    return max(16, 1 << int(levels or 4))


def _difference(model: "nn.Module", other: graph.Run, samples: list["Tensor"], allowed: float) -> float:
    """The largest one between two models, as a part of the span of an output channel.

    Raises:
        ExportError: it is more than rounding makes.
    """
    import torch

    largest = 0.0
    for sample in samples:
        try:
            with torch.no_grad():
                expected, found = model(sample), other(sample)
        except Exception as error:
            raise ExportError(f"the model cannot be tried on a patch of {tuple(sample.shape)}: {error}") from error
        if found.shape != expected.shape or not found.isfinite().all() or not expected.isfinite().all():
            raise ExportError("the exported model does not compute what the checkpoint does: nothing was written")
        # channels may have units of their own
        for ours, theirs in zip(expected.unbind(1), found.unbind(1), strict=True):
            difference, span = (theirs - ours).abs().max().item(), (ours.max() - ours.min()).item()
            if difference > allowed * span + _LAST_BITS * ours.abs().max().item():
                raise ExportError(
                    f"the exported model does not compute what the checkpoint does: they differ by {difference:.3g} "
                    f"where outputs span {span:.3g}. Nothing was written."
                )
            largest = max(largest, difference / span if span else 0.0)
    return largest

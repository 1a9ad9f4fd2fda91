"""Exports a checkpoint to a file that needs no plugin, after comparing both."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from uuid import uuid4

from p3d_regression.checks.run import read as read_config
from p3d_regression.errors import ConfigError, ExportError
from p3d_regression.export import graph, portable
from p3d_regression.export.checkpoint import build, memory_of, read
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.upstream import introspection
from p3d_regression.upstream.logs import training_configs_beside

if TYPE_CHECKING:
    from torch import Tensor, nn

Format = Literal["plain", "onnx", "pt2"]

#: The largest difference that rounding explains, as a fraction of the span of the outputs: programs add up in different
#: orders.
_ROUNDING: dict[Format, float] = {"plain": 1e-5, "onnx": 1e-4, "pt2": 1e-5}

#: The rounding of float32 for numbers far from 0, as a fraction of the largest one: a few of its last bits.
_LAST_BITS = 2.0**-21


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        section: the model section that goes with a plain checkpoint; None for a graph.
        config: the config file that the model was built from.
        difference: the largest one between its output and the original's, as a fraction of the original's span.
    """

    section: dict[str, Any] | None
    config: Path
    difference: float


def export(checkpoint: Path, out: Path, format_: Format, config: Path | None = None) -> Exported:
    """Write ``out``, which must not exist; if anything fails, nothing is written.

    Args:
        checkpoint: of pytorch-3dunet's trainer.
        out: the new file.
        format_: of the new file.
        config: of the training or of a prediction; None for the copy that pytorch-3dunet wrote next to the checkpoint.

    Raises:
        ExportError: the checkpoint cannot be exported or the file cannot be written, or the result does not compute
            the same.
        ConfigError: the config does not fit the checkpoint.
    """
    _check_paths(checkpoint, out)
    if format_ != "plain":
        graph.require(format_)
    section, config = _model_section(checkpoint, config)
    state = read(checkpoint)
    model = build(section, state["model_state_dict"], config)
    if format_ == "plain":
        content, exported = _plain(model, checkpoint, state, section, config)
    else:
        content, exported = _graph(model, format_, section, config)
    _write(content, out)
    return exported


def _check_paths(checkpoint: Path, out: Path) -> None:
    if not checkpoint.is_file():
        raise ExportError(f"{checkpoint} does not exist")
    if os.path.lexists(out):
        raise ExportError(f"{out} exists and is not overwritten; choose another name")
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent} is not a directory")


def _model_section(checkpoint: Path, config: Path | None) -> tuple[Mapping[str, Any], Path]:
    if config is None:
        config, content = _training_config(checkpoint)
    else:
        try:
            content = read_config(str(config))
        except ConfigError as error:
            raise ExportError(f"{config} {error}") from error
    section = content.get("model")
    if not isinstance(section, Mapping):
        raise ExportError(f"{config} has no section model")
    return section, config


def _training_config(checkpoint: Path) -> tuple[Path, Mapping[str, Any]]:
    """The training config in ``logs/``, if all of them there describe the same network."""
    found = list(training_configs_beside(checkpoint))
    how = "name the training or prediction config of the checkpoint with --config"
    if not found:
        raise ExportError(f"there is no copy of a training config in {checkpoint.parent / 'logs'}: {how}")
    # the same weights fit networks that compute something else, such as one with another num_groups
    networks = [_without_last_layer(config.get("model")) for _, config in found]
    if others := [str(path) for (path, _), network in zip(found, networks, strict=True) if network != networks[0]]:
        raise ExportError(f"{found[0][0]} and {others[0]} have different networks: {how}")
    return found[0]


def _without_last_layer(section: object) -> object:
    if not isinstance(section, Mapping):
        return None
    return {k: v for k, v in section.items() if k not in (*PLUGIN_KEYS, "is_segmentation", "final_sigmoid")}


def _write(content: bytes, out: Path) -> None:
    """Let ``out`` appear as a whole, and never in place of another file."""
    try:
        try:
            _link_unnamed(content, out)
        except FileExistsError:
            raise
        except (AttributeError, OSError):
            # not Linux, or a file system without such files, such as NFS
            _rename_hidden(content, out)
    except FileExistsError:
        raise ExportError(f"{out} was created in the meantime and is not overwritten") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ExportError(f"{out} cannot be written: {why}; nothing was written") from error


def _link_unnamed(content: bytes, out: Path) -> None:
    """Through a file that has no name until it is complete: however the process ends, no part of it remains."""
    directory = os.open(out.parent, os.O_RDONLY)
    try:
        with os.fdopen(os.open(out.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb") as file:
            _fill(file, content)
            # with a directory given, Python calls linkat, which follows the link in /proc
            os.link(f"/proc/self/fd/{file.fileno()}", out, src_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _rename_hidden(content: bytes, out: Path) -> None:
    hidden = out.with_name(f".{out.name}.{uuid4().hex[:8]}")
    try:
        with hidden.open("xb") as file:
            _fill(file, content)
        # takes the name, or fails if another file has it
        out.open("xb").close()
        try:
            hidden.replace(out)
        except BaseException:
            out.unlink(missing_ok=True)
            raise
    finally:
        hidden.unlink(missing_ok=True)


def _fill(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    # some file systems report a full disk only now
    os.fsync(file.fileno())


def _graph(
    model: "nn.Module", format_: Literal["onnx", "pt2"], section: Mapping[str, Any], config: Path
) -> tuple[bytes, Exported]:
    samples = _samples(section)
    try:
        content, run = (graph.as_onnx if format_ == "onnx" else graph.as_pt2)(model, samples[0])
    except Exception as error:
        first_line = " ".join((str(error).strip().splitlines() or [""])[0].split())[:300]
        other = " Try --format pt2." if format_ == "onnx" else ""
        raise ExportError(f"torch cannot export this model ({type(error).__name__}: {first_line}).{other}") from error
    return content, Exported(None, config, _difference(model, run, samples, _ROUNDING[format_]))


def _plain(
    model: "nn.Module", checkpoint: Path, state: Mapping[str, Any], section: Mapping[str, Any], config: Path
) -> tuple[bytes, Exported]:
    import torch

    memory = memory_of(model)
    if memory is None:
        raise ExportError(f"{checkpoint} is a plain checkpoint already: pytorch-3dunet predicts with it as it is")
    plain_section = portable.section_of(section, memory)
    weights = portable.weights_of(state["model_state_dict"], memory)
    other = build(plain_section, weights, config)
    difference = _difference(model, other, _samples(section), _ROUNDING["plain"])
    # the optimizer's state belongs to the weights before
    rest = {key: value for key, value in state.items() if key not in ("model_state_dict", "optimizer_state_dict")}
    file = io.BytesIO()
    torch.save({**rest, "model_state_dict": weights}, file)
    return file.getvalue(), Exported(plain_section, config, difference)


def _samples(section: Mapping[str, Any]) -> list["Tensor"]:
    """Random patches of two shapes and batch sizes, large enough for the levels of a model."""
    import torch

    axes, side = (2 if "2D" in str(section.get("name")) else 3), _smallest_side(section)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, *(side,) * axes), (1, *(side + 5,) * axes)]
    channels = int(section["in_channels"])
    return [torch.randn((n, channels, *spatial), generator=generator) for n, *spatial in shapes]


def _smallest_side(section: Mapping[str, Any]) -> int:
    """Of a patch that has at least two voxels at the lowest level of a network."""
    cls = introspection.model_class(section.get("name"))
    features = section.get("f_maps")
    levels = section.get("num_levels") or (introspection.default(cls, "num_levels") if cls else None)
    levels = len(features) if isinstance(features, list | tuple) else levels
    return max(16, 1 << int(levels or 4))


def _difference(model: "nn.Module", other: graph.Run, samples: list["Tensor"], allowed: float) -> float:
    """The largest difference between two models, as a fraction of the span of an output channel.

    Raises:
        ExportError: rounding does not explain it.
    """
    import torch

    largest = 0.0
    for sample in samples:
        try:
            with torch.no_grad():
                expected, found = model(sample), other(sample)
        except Exception as error:
            raise ExportError(f"the model fails on a patch of shape {tuple(sample.shape)}: {error}") from error
        if found.shape != expected.shape or not found.isfinite().all() or not expected.isfinite().all():
            raise ExportError("the exported model does not compute what the checkpoint does. Nothing was written.")
        # each channel may have its own unit
        for ours, theirs in zip(expected.unbind(1), found.unbind(1), strict=True):
            difference, span = (theirs - ours).abs().max().item(), (ours.max() - ours.min()).item()
            if difference > allowed * span + _LAST_BITS * ours.abs().max().item():
                raise ExportError(
                    f"the exported model does not compute what the checkpoint does: the outputs differ by "
                    f"{difference:.3g} and span {span:.3g}. Nothing was written."
                )
            largest = max(largest, difference / span if span else 0.0)
    return largest

"""Prediction configs: from a training config that is being written, or from a checkpoint alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p3d_regression.planning.plan import Line


@dataclass(frozen=True)
class Trained:
    """What a prediction takes from its training.

    Attributes:
        checkpoint: path of it.
        model: name of the network.
        raw: transforms of the raw volumes, without random ones.
        patch: (Z, Y, X).
        more: further keys of the section ``loaders``, such as ``global_normalization``.
        skip_shape_check: whether patches are smaller than pytorch-3dunet wants.
    """

    checkpoint: str
    model: str
    raw: Sequence[Mapping[str, Any]]
    patch: Sequence[int]
    more: Mapping[str, Any]
    skip_shape_check: bool = False


@dataclass(frozen=True)
class Inputs:
    """What is predicted.

    Attributes:
        files: paths.
        dataset: class that reads them.
        raw: name of the dataset.
        label: of the truth; None if there is none.
        why: these files.
    """

    files: Sequence[str]
    dataset: str
    raw: str
    label: str | None
    why: str = ""


def prediction(trained: Trained, inputs: Inputs, device: str, out: Path) -> Iterator[Line]:
    """All lines of a prediction config.

    Args:
        trained: what it takes from the training.
        inputs: what is predicted.
        device: that predicts.
        out: directory of what is written.
    """
    yield Line("model_path", trained.checkpoint)
    yield Line("device", device)
    yield Line("model.name", trained.model, "all its arguments and the last layer are in the checkpoint")
    yield Line("predictor.name", "StandardPredictor")
    yield Line("predictor.blend", "gaussian", "overlapping patches are blended: no steps at their borders")
    if inputs.dataset == "ZarrDataset":
        yield Line("predictor.output", "zarr", "as the input")
    yield Line("loaders.dataset", inputs.dataset)
    yield Line("loaders.num_workers", 0)
    yield Line("loaders.batch_size", 1)
    yield Line("loaders.output_dir", str(out / "predictions"))
    yield Line("loaders.raw_internal_path", inputs.raw)
    if inputs.label is not None:
        yield Line("loaders.label_internal_path", inputs.label, "the truth, for p3d-regression evaluate")
    for key, value in trained.more.items():
        yield Line(f"loaders.{key}", value, "as in training")
    yield Line("loaders.test.file_paths", list(inputs.files), inputs.why)
    start = "loaders.test.slice_builder"
    yield Line(f"{start}.name", "SliceBuilder")
    yield Line(f"{start}.patch_shape", list(trained.patch), "as in training: the network normalises each patch")
    stride = [max(1, p // 2) for p in trained.patch]
    yield Line(f"{start}.stride_shape", stride, "half a patch")
    if trained.skip_shape_check:
        yield Line(f"{start}.skip_shape_check", True, "pytorch-3dunet wants 64 and more along Y and X")
    yield Line("loaders.test.transformer.raw", list(trained.raw), "as in training")

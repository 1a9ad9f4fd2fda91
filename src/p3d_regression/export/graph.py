"""A model as a graph, for programs without pytorch-3dunet: ONNX, and the ``.pt2`` of torch."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Names of the input and the output of an ONNX file.
INPUT, OUTPUT = "raw", "prediction"

Run = Callable[["Tensor"], "Tensor"]


def require(format_: str) -> None:
    """Check that a format can be written and run here.

    Raises:
        ExportError: something has to be installed first.
    """
    from torch.export import Dim

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if format_ == "onnx" and find_spec(name) is None]
    if missing:
        raise ExportError(f"--format onnx needs {' and '.join(missing)}: pip install 'p3d-regression[export]'")
    # torch 2.5 has Dim.AUTO, and fails in an assertion of its own with it
    if not hasattr(Dim, "DYNAMIC"):
        raise ExportError(f"--format {format_} needs torch 2.6 or newer")


def as_pt2(model: "nn.Module", sample: "Tensor") -> tuple[bytes, Run]:
    """Export a model with ``torch.export``, for any batch size and any patch shape.

    Args:
        model: in evaluation mode.
        sample: shape (N, C, ...) with N at least 2.

    Returns:
        The content of a ``.pt2`` file, and what runs it.
    """
    import torch

    file = io.BytesIO()
    with _quiet():
        torch.export.save(_program(model, sample), file)
        file.seek(0)
        module = torch.export.load(file).module()

    def run(x: "Tensor") -> "Tensor":
        found: Tensor = module(x)
        return found

    return file.getvalue(), run


def as_onnx(model: "nn.Module", sample: "Tensor") -> tuple[bytes, Run]:
    """Export a model with ``torch.onnx``: arguments and what is returned as in :func:`as_pt2`."""
    import torch

    with _quiet():
        program = torch.onnx.export(
            _program(model, sample),
            (sample,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        # the weights are in it, not in a second file
        content: bytes = program.model_proto.SerializeToString()
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(x: "Tensor") -> "Tensor":
        (found,) = session.run([OUTPUT], {INPUT: x.numpy()})
        return torch.from_numpy(found)

    return content, run


def _program(model: "nn.Module", sample: "Tensor") -> Any:
    import torch
    from torch.export import Dim

    free = dict.fromkeys([0, *range(2, sample.dim())], Dim.DYNAMIC)
    with torch.no_grad():
        return torch.export.export(model, (sample,), dynamic_shapes=(free,))


@contextmanager
def _quiet() -> Iterator[None]:
    """While torch exports, it warns of deprecated parts of its own code."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

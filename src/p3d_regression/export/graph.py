"""A model as a graph, for programs that know nothing of pytorch-3dunet: ONNX, and torch's own ``.pt2``."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Names of what goes in and comes out of an ONNX file.
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
    if not hasattr(Dim, "AUTO"):
        raise ExportError(f"--format {format_} needs torch 2.6 or newer")


def write_pt2(model: "nn.Module", sample: "Tensor", path: Path) -> Run:
    """Write ``path`` with ``torch.export``, for any batch size and any patch shape; return what runs it.

    Args:
        model: in evaluation mode.
        sample: shape (N, C, ...) with N at least 2.
        path: of the file.
    """
    import torch

    with _quiet():
        torch.export.save(_program(model, sample), path)
        module = torch.export.load(path).module()

    def run(x: "Tensor") -> "Tensor":
        found: Tensor = module(x)
        return found

    return run


def write_onnx(model: "nn.Module", sample: "Tensor", path: Path) -> Run:
    """Write ``path`` with ``torch.onnx``, for any batch size and any patch shape; return what runs it.

    Args: as for :func:`write_pt2`.
    """
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
        # in one file: half a model is no model
        program.save(path, external_data=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(x: "Tensor") -> "Tensor":
        (found,) = session.run([OUTPUT], {INPUT: x.numpy()})
        return torch.from_numpy(found)

    return run


def _program(model: "nn.Module", sample: "Tensor") -> Any:
    import torch
    from torch.export import Dim

    free = {0: Dim.AUTO, **dict.fromkeys(range(2, sample.dim()), Dim.AUTO)}
    with torch.no_grad():
        return torch.export.export(model, (sample,), dynamic_shapes=(free,))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of its own future while it exports."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

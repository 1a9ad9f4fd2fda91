"""Predictions, truth and raw volumes for evaluations, without a network."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from support.lab import write_config


def write_file(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, (values, attributes) in datasets.items():
            file.create_dataset(name, data=values, chunks=True, compression="gzip").attrs.update(attributes)
    return path


def write_predictions(directory: Path, shapes: dict[str, tuple[int, ...]], **attributes: Any) -> dict[str, Any]:
    """Write inputs with raw and label, and predictions, and a config for them; return the volumes."""
    (directory / "out").mkdir()
    draw = np.random.default_rng(0)
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        truth = (50 + 10 * number + 20 * np.cumsum(draw.normal(size=shape), -1)).astype(np.float32)
        prediction = (0.8 * truth + 5 + draw.normal(0, 8, shape)).astype(np.float32)
        raw = (truth + draw.normal(0, 40, shape)).astype(np.float32)
        held = {"raw": str(directory / f"{name}.h5"), "raw_internal_path": "raw", **attributes}
        write_file(directory / f"{name}.h5", raw=(raw, {}), label=(truth, {}))
        stored = prediction if prediction.ndim == 4 else prediction[None]
        write_file(directory / "out" / f"{name}_predictions.h5", predictions=(stored, held))
        found[name] = (stored, truth if truth.ndim == 4 else truth[None], raw if raw.ndim == 4 else raw[None])
    loaders = {"output_dir": str(directory / "out"), "label_internal_path": "label"}
    loaders["test"] = {"file_paths": [str(directory / f"{name}.h5") for name in shapes]}  # type: ignore[assignment]
    write_config(directory / "predict.yml", {"model_path": "none.pytorch", "loaders": loaders})
    return found

"""The time that a metric and the constant-output monitor add to a validation step, as a share of the forward pass.

    python benchmarks/metric_time.py

Compares MSE of pytorch-3dunet with metrics of this project, on one patch. Prints medians of repeated calls in one
process. Runs on a GPU if there is one.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch3dunet.unet3d.metrics import MSE
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.losses.mask import Mask
from p3d_regression.metrics.score import Score, resolve
from p3d_regression.training.diagnosis import OutputRange

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
UNET = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [16, 32, 64], "final_activation": "none"}
SHAPE = (1, 1, 16, 64, 64) if DEVICE == "cpu" else (2, 1, 64, 128, 128)


def seconds(run: Callable[[], Any], repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])  # the first calls are warm-up


@torch.no_grad()
def main() -> None:
    model = get_model(UNET).eval().to(DEVICE)
    x = torch.randn(SHAPE, device=DEVICE)
    output, labels, masked = model(x), 0.5 * x + 3, 0.5 * x + 3
    masked[..., ::3] = math.nan
    forward = seconds(lambda: model(x))
    print(f"{DEVICE}, {torch.get_num_threads()} threads, share of the forward pass")
    print(f"{'MSE of pytorch-3dunet':<28} {seconds(lambda: MSE()(output, labels)) / forward:.2%}")
    for name, mask, wanted in (
        ("MeanSquaredError", None, labels),
        ("R2Score", None, labels),
        ("R2Score", Mask(math.nan), masked),
    ):
        score = Score(resolve({"name": name}), mask)
        score.begin()
        share = seconds(lambda score=score, wanted=wanted: score(output, wanted)) / forward  # type: ignore[misc]
        print(f"{name + (', ignore_index: .nan' if mask else ''):<28} {share:.2%}")
    output_range = OutputRange()
    print(f"{'constant-output monitor':<28} {seconds(lambda: output_range.add(output)) / forward:.2%}")


if __name__ == "__main__":
    main()

"""The cost of a final activation and of a target scaling in a training step and in a prediction.

The reference is the same U-Net in plain torch, or without the scaling.

    python benchmarks/step_time.py [--pairs N]

Both models have the same weights and patches. They run in alternating order, and the ratio is taken pair by pair, so
that a drift in the speed of the machine affects both sides. Prints the median ratio of wall time, with the quartiles.
Runs on a GPU if there is one.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from pytorch3dunet.unet3d.model import get_model
from torch import Tensor, nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
UNET = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [16, 32, 64], "dropout_prob": 0.0}
SHAPE = (1, 1, 16, 64, 64) if DEVICE == "cpu" else (2, 1, 64, 128, 128)


class ByHand(nn.Module):
    """Without the plugin: the network of pytorch-3dunet without a last layer, then the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = get_model({**UNET, "is_segmentation": False})
        self.activation = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.unet(x))


def pairs() -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name, the plugin's model, the plain one."""
    softplus, by_hand = get_model({**UNET, "final_activation": "softplus"}), ByHand()
    by_hand.unet.load_state_dict(dict(softplus.state_dict()))
    yield "softplus / by hand", softplus, by_hand
    none, plain = get_model({**UNET, "final_activation": "none"}), get_model({**UNET, "is_segmentation": False})
    plain.load_state_dict(dict(none.state_dict()))
    yield "none / is_segmentation: false", none, plain
    scaled = get_model({**UNET, "final_activation": "none", "target_scaling": {"mean": 12, "std": 13}})
    unscaled = get_model({**UNET, "final_activation": "none", "target_scaling": "none"})
    unscaled.load_state_dict(dict(scaled.state_dict()))
    yield "none, target_scaling / none", scaled, unscaled
    numbers = {"name": "residual", "intercept": 0, "slope": 1, "scale": 0.5, "spread": 1}
    following = get_model({**UNET, "final_activation": "none", "target_scaling": numbers})
    following.load_state_dict(dict(unscaled.state_dict()))
    yield "none, residual / none", following, unscaled


def training_step(model: nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-4)
    x, target = torch.randn(SHAPE, device=DEVICE), torch.rand(SHAPE, device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), target)
        if "target_scaling" in getattr(getattr(model, "final_conv", None), "_modules", {}):
            # as this project does in the trainer of pytorch-3dunet
            loss.register_hook(lambda gradient: gradient * (1 / 169))
        loss.backward()
        optimizer.step()

    return step


def prediction(model: nn.Module) -> Callable[[], None]:
    x = torch.randn(SHAPE, device=DEVICE)

    @torch.no_grad()
    def predict() -> None:
        model(x)

    model.eval()
    return predict


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(plugin: Callable[[], None], plain: Callable[[], None], count: int) -> list[float]:
    ratios = []
    for index in range(count + 5):
        order = (plugin, plain) if index % 2 else (plain, plugin)
        times = {run: seconds(run) for run in order}
        ratios.append(times[plugin] / times[plain])
    return ratios[5:]  # the first pairs are warm-up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    count = parser.parse_args().pairs
    torch.manual_seed(0)
    print(f"{count} pairs on {DEVICE}, {torch.get_num_threads()} threads, median ratio of wall time (quartiles)")
    print(f"{'':<32} {'training step':<24} prediction")
    for name, plugin, plain in pairs():
        columns = []
        for kind in (training_step, prediction):
            ratios = compare(kind(plugin.to(DEVICE)), kind(plain.to(DEVICE)), count)
            low, median, high = statistics.quantiles(ratios, n=4)
            columns.append(f"{median:.3f} ({low:.3f} .. {high:.3f})")
        print(f"{name:<32} {columns[0]:<24} {columns[1]}", flush=True)


if __name__ == "__main__":
    main()

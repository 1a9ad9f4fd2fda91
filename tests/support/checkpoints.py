"""Checkpoints as a training leaves them, without the training."""

from pathlib import Path
from typing import Any

import torch
import yaml
from click.testing import CliRunner, Result
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.cli.main import main


def section(channels: int = 1, **more: object) -> dict[str, object]:
    return {"name": "UNet3D", "in_channels": 1, "out_channels": channels, "f_maps": [8, 16], "num_groups": 4, **more}


class Trained:
    """A checkpoint as a training would have left it, with the copy of its config."""

    def __init__(self, directory: Path, *, change: Any = None, **model: object) -> None:
        self.section = section(**model)
        torch.manual_seed(0)
        self.model = get_model(self.section).eval()
        state = self.model.state_dict()
        if change:
            change(state)
        self.path = directory / "checkpoints" / "best_checkpoint.pytorch"
        logs = directory / "checkpoints" / "logs" / "2026"
        logs.mkdir(parents=True)
        (logs / "train.yml").write_text(yaml.safe_dump({"model": self.section, "trainer": {"resume": None}}))
        optimizer = torch.optim.Adam(self.model.parameters())
        torch.save(
            {
                "num_iterations": 7,
                "model_state_dict": state,
                "optimizer_state_dict": optimizer.state_dict(),
            },
            self.path,
        )

    def export(self, out: Path, *options: object) -> Result:
        return CliRunner().invoke(main, ["export", str(self.path), str(out), *map(str, options)])

    def output(self, shape: tuple[int, ...] = (2, 1, 16, 24, 24)) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return x, self.model(x)

"""What must hold of every final activation in process, with whatever version of upstream is imported."""

import io
import math
from typing import Any

import torch

from p3d_regression.activations.registry import resolve
from support.activations import ROWS, labels_for
from support.lab import TINY, labels_of


def assert_one_function_in_process(row: dict[str, Any]) -> None:
    """A model computes the activation of its last convolution, in training, evaluation and from a checkpoint."""
    # imported late: with the version of upstream that the caller has put on the path
    from pytorch3dunet.unet3d.model import get_model

    channels = 2 if row["over_channels"] else 1
    config = {"name": "UNet3D", **TINY, "out_channels": channels}
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 1, 4, 32, 32, generator=generator)
    target = torch.tensor(labels_of(torch.rand(4, 32, 32, generator=generator).numpy(), labels_for(row)))
    target = target.reshape(1, channels, 4, 32, 32).float()

    torch.manual_seed(7)
    model = get_model({**config, "final_activation": row["example"]})
    last_convolution = get_model({**config, "is_segmentation": False})
    activation = resolve(row["example"], channels).build()

    def assert_activated() -> torch.Tensor:
        # strict: the keys and shapes of the weights are upstream's
        state = {key: value.clone() for key, value in model.state_dict().items()}
        last_convolution.load_state_dict(state)
        with torch.no_grad():
            expected = activation(last_convolution.train()(x))
            for training in (True, False):
                assert torch.equal(model.train(training)(x), expected)
        return expected

    assert_activated()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model.train()(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses
    predicted = assert_activated()

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    silent = get_model(config)
    silent.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(silent.eval()(x), predicted)

    low, high = (math.inf if bound is None else bound for bound in row["range"])
    low = -low if math.isinf(low) else low
    ulp = 1e-6 * max(abs(bound) for bound in (low, high, 1.0) if math.isfinite(bound))
    assert predicted.isfinite().all()
    assert low - ulp <= predicted.min().item() <= predicted.max().item() <= high + ulp
    assert len(predicted.unique()) > 100


def assert_it_of_all() -> int:
    """For a program of another environment; how many there were."""
    for row in ROWS.values():
        assert_one_function_in_process(row)
    return len(ROWS)

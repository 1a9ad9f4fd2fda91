"""The watched trainer: what it costs, and what it does where upstream is another."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from p3d_regression.errors import UnsupportedUpstreamError
from p3d_regression.training import batches, monitor
from p3d_regression.training.plan import Plan, plan_of
from support.checks import merged
from support.lab import training_config, write_volumes

#: Operations for which a GPU is waited for.
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "bincount"}


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1] if index is not None
        )
        self.count += name in WAITS or by_mask
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("session")
    write_volumes(directory)
    return directory


def trainer_of(data: Path, changes: dict[str, Any], model: dict[str, Any]) -> Any:
    from pytorch3dunet.unet3d.trainer import create_trainer

    config = training_config(data, {"name": "UNet3D", **model})
    # Adam asks for its own step number on a CPU
    quiet = {"trainer": {"validate_after_iters": 1000, "log_after_iters": 1000}, "optimizer": {"name": "SGD"}}
    return create_trainer(merged(merged(config, quiet), changes))


def waits_of_an_epoch(trainer: Any) -> int:
    trainer.train()  # the optimizer makes its state
    with Waits() as waits:
        trainer.train()
    return waits.count


HUBER = {"loss": {"name": "HuberLoss", "ignore_index": float("nan")}}
GAUSS = {"loss": {"name": "GaussianNLLLoss", "ignore_index": float("nan")}}
BOTH = {"loss": {"name": "channelwise", "channels": [{"name": "weighted_sum", "losses": ["L1Loss", "MSELoss"]}]}}
WEIGHTED = {"name": "WeightedSmoothL1Loss", "threshold": 1.0, "initial_weight": 0.1, "ignore_index": float("nan")}


LOGITS = {
    "loss": {"name": "BCEWithLogitsLoss", "pos_weight": 2.0, "ignore_index": -1},
    "eval_metric": {"name": "SpearmanCorrCoef"},
    "trainer": {"eval_score_higher_is_better": True},
}


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        pytest.param({}, {}, id="the model alone"),
        pytest.param(HUBER, {}, id="a mask"),
        pytest.param(GAUSS, {"out_channels": 2, "final_activation": ["none", "softplus"]}, id="a variance"),
        pytest.param(BOTH, {}, id="composed"),
        pytest.param({"loss": WEIGHTED}, {}, id="weights by threshold"),
        pytest.param(LOGITS, {}, id="weights"),
        pytest.param(HUBER, {"target_scaling": "standardize"}, id="scaled"),
    ],
)
def test_a_training_step_waits_for_a_gpu_no_more_often_than_upstreams(
    data: Path, changes: dict[str, Any], model: dict[str, Any]
) -> None:
    plain = waits_of_an_epoch(trainer_of(data, {}, {"is_segmentation": False}))
    assert plain >= 2  # the number of each loss, two patches; and torch's own, when it starts to shuffle
    changes = {"eval_metric": {"name": "MAE"}, **changes}
    assert waits_of_an_epoch(trainer_of(data, changes, {"final_activation": "none", **model})) == plain


def test_the_users_config_stays_as_it_is(data: Path) -> None:
    from pytorch3dunet.unet3d.trainer import create_trainer

    config = training_config(data, {"name": "UNet3D", "final_activation": "none"})
    config["loss"], config["eval_metric"] = {"name": "HuberLoss"}, {"name": "R2Score"}
    del config["trainer"]["eval_score_higher_is_better"]
    before = copy.deepcopy(config)
    trainer = create_trainer(config)
    assert trainer.eval_score_higher_is_better is True
    for section in ("model", "loss", "eval_metric", "trainer"):
        assert config[section] == before[section]


class Odd:
    """A trainer that upstream may have one day."""

    loss_criterion = eval_criterion = model = writer = tensorboard_formatter = None
    loaders: dict[str, Any] = {}  # noqa: RUF012
    num_iterations = 0

    def train(self) -> None: ...

    def validate(self) -> None: ...


def test_an_unknown_trainer_is_an_error_where_it_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    needed = plan_of({"loss": {"name": "HuberLoss"}, "eval_metric": {"name": "MSE"}}, model_is_ours=True)
    with pytest.raises(UnsupportedUpstreamError, match="has no _forward_pass, _log_stats, _log_images"):
        monitor.watch(Odd(), needed)
    monitor.watch(Odd(), Plan(True, loss_section={"name": "MSELoss"}, metric_name="MSE"))
    assert "is not watched for NaN" in caplog.text


def test_losses_built_past_the_plugin_are_an_error(data: Path) -> None:
    trainer = trainer_of(data, {}, {"is_segmentation": False})
    plan = plan_of({"loss": {"name": "HuberLoss"}, "eval_metric": {"name": "MSE"}}, model_is_ours=True)
    with pytest.raises(UnsupportedUpstreamError, match="past the plugin"):
        monitor.watch(trainer, plan)


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_patches_of_each_batch_are_known(self, data: Path, workers: int) -> None:
        dataset = torch.utils.data.ConcatDataset([range(0, 5), range(5, 11)])
        loader = torch.utils.data.DataLoader(dataset, batch_size=3, shuffle=True, num_workers=workers)
        recorder = batches.record(loader)
        assert recorder is not None
        assert batches.record(loader) is recorder
        for _ in range(2):
            shown = [(batch.tolist(), recorder.next()) for batch in loader]
            assert all(values == indices for values, indices in shown)
            assert sorted(value for values, _ in shown for value in values) == list(range(11))
        assert len(loader) == 4

    def test_the_order_is_the_one_without_it(self) -> None:
        def order(record: bool) -> list[int]:
            torch.manual_seed(4)
            loader = torch.utils.data.DataLoader(range(50), batch_size=4, shuffle=True)
            if record:
                batches.record(loader)
            return [int(value) for batch in loader for value in batch]

        assert order(True) == order(False)

    def test_a_place_is_a_file_and_a_patch(self, data: Path) -> None:
        from pytorch3dunet.datasets.utils import get_train_loaders

        dataset = get_train_loaders(training_config(data, {"name": "UNet3D"}))["train"].dataset
        assert batches.places(dataset, [1]) == [f"{data / 'train.h5'} [z 0:4, y 0:64, x 32:96]"]
        assert batches.places(range(9), [7]) == ["item 7 of range"]

    def test_other_loaders_are_left_alone(self) -> None:
        assert batches.record([1, 2]) is None
        assert batches.record(torch.utils.data.DataLoader(range(3), batch_size=None)) is None

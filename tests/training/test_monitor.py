"""The watched trainer: what it costs, and what it does where upstream is another."""

import copy
import gc
import inspect
import textwrap
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d import trainer as upstream
from torch.utils._python_dispatch import TorchDispatchMode

from p3d_regression.errors import NonFiniteLossError, UnsupportedUpstreamError
from p3d_regression.metrics.score import Score
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


BETTER = {"eval_score_higher_is_better": True}

LOGITS = {
    "loss": {"name": "BCEWithLogitsLoss", "pos_weight": 2.0, "ignore_index": -1},
    "eval_metric": {"name": "SpearmanCorrCoef"},
    "trainer": BETTER,
}


@pytest.fixture(scope="module")
def plain_waits(data: Path) -> int:
    """What pytorch-3dunet alone waits for in an epoch."""
    return waits_of_an_epoch(trainer_of(data, {}, {"is_segmentation": False}))


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
    data: Path, plain_waits: int, changes: dict[str, Any], model: dict[str, Any]
) -> None:
    assert plain_waits >= 2  # the number of each loss, two patches; and torch's own, when it starts to shuffle
    changes = {"eval_metric": {"name": "MAE"}, **changes}
    assert waits_of_an_epoch(trainer_of(data, changes, {"final_activation": "none", **model})) == plain_waits


@pytest.fixture
def reads_by_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that asks for losses in other words."""
    for name in ("train", "validate"):
        source = textwrap.dedent(inspect.getsource(getattr(upstream.UNetTrainer, name)))
        assert source.count("loss.item()") == 1
        made: dict[str, Any] = {}
        exec(source.replace("loss.item()", "float(loss)"), vars(upstream), made)
        monkeypatch.setattr(upstream.UNetTrainer, name, made[name])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Volumes with NaN in a part of the second training patch's labels."""
    write_volumes(tmp_path)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file["label"][:, 60:, 80:] = np.nan
    return tmp_path


ACTIVATED = {"final_activation": "none"}


class TestALossThatIsNotANumber:
    def test_stops_the_step_before_the_weights_get_it(self, broken: Path) -> None:
        trainer = trainer_of(broken, {}, ACTIVATED)
        with pytest.raises(NonFiniteLossError, match=r"the loss is nan in training iteration [12];") as caught:
            trainer.train()
        assert f"{broken / 'train.h5'} [z 0:4, y 0:64, x 32:96]" in str(caught.value)
        assert "No checkpoint has been written yet." in str(caught.value)
        assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())

    @pytest.mark.parametrize("where", ["log_after_iters", "validate_after_iters"])
    def test_stops_before_it_is_logged_or_kept_where_upstream_reads_losses_in_another_way(
        self, broken: Path, reads_by_float: None, where: str
    ) -> None:
        trainer = trainer_of(broken, {"trainer": {where: 2}}, ACTIVATED)
        with pytest.raises(NonFiniteLossError, match="is NaN or infinite in a training iteration before 2,") as caught:
            trainer.train()
        assert "No checkpoint has been written yet." in str(caught.value)
        assert not list((broken / "checkpoints").glob("*.pytorch"))

    def test_stops_a_validation_too(self, tmp_path: Path, reads_by_float: None) -> None:
        write_volumes(tmp_path)
        with h5py.File(tmp_path / "val.h5", "r+") as file:
            file["label"][:, :4] = np.inf
        trainer = trainer_of(tmp_path, {"eval_metric": {"name": "MAE"}}, ACTIVATED)
        with pytest.raises(NonFiniteLossError, match="in the validation after iteration 1, and"):
            trainer.validate()

    def test_that_it_is_noticed_late_is_said_once(
        self, data: Path, reads_by_float: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        trainer = trainer_of(data, {"trainer": {"log_after_iters": 1}}, ACTIVATED)
        for _ in range(2):
            trainer.train()
        assert caplog.text.count("does not read losses with item()") == 1

    def test_nothing_is_said_where_it_is_noticed_at_once(self, data: Path, caplog: pytest.LogCaptureFixture) -> None:
        trainer = trainer_of(data, {"trainer": {"log_after_iters": 1, "validate_after_iters": 1}}, ACTIVATED)
        trainer.train()
        assert "does not read losses" not in caplog.text

    def test_a_gpu_is_waited_for_no_more_often(self, data: Path, reads_by_float: None) -> None:
        plain = waits_of_an_epoch(trainer_of(data, {}, {"is_segmentation": False}))
        assert waits_of_an_epoch(trainer_of(data, {"eval_metric": {"name": "MAE"}}, ACTIVATED)) == plain

    def test_the_patches_of_a_batch_are_not_kept_with_its_loss(self, data: Path) -> None:
        trainer = trainer_of(data, {}, ACTIVATED)
        raw, labels = next(iter(trainer.loaders["train"]))
        patches = weakref.ref(raw)
        _, loss = trainer._forward_pass(raw, labels)
        loss.item()
        loss.backward()
        del raw
        gc.collect()
        assert patches() is None


def test_the_gradient_of_a_scaled_model_has_the_standardised_size(data: Path) -> None:
    numbers = {"final_activation": "none", "target_scaling": {"mean": 1000, "std": 50}}
    trainer = trainer_of(data, {"eval_metric": {"name": "MAE"}}, numbers)
    raw, labels = next(iter(trainer.loaders["train"]))

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        trainer.optimizer.zero_grad()
        loss.backward()
        found: torch.Tensor = trainer.model.final_conv.weight.grad
        return found.clone()

    plain = gradient(trainer.loss_criterion(trainer.model(raw), labels))
    # MSE in the labels' units: its gradient is std**2 times that of standardised labels
    torch.testing.assert_close(gradient(trainer._forward_pass(raw, labels)[1]) * 50**2, plain, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("metric", "accumulates"), [("R2Score", True), ("SpearmanCorrCoef", False)])
def test_a_metric_that_keeps_all_voxels_is_not_accumulated_over_an_epoch(
    data: Path, monkeypatch: pytest.MonkeyPatch, metric: str, accumulates: bool
) -> None:
    trainer = trainer_of(data, {"eval_metric": {"name": metric}, "trainer": BETTER}, ACTIVATED)
    begun: list[str] = []
    monkeypatch.setattr(Score, "begin", lambda self: begun.append("begun"))
    monkeypatch.setattr(Score, "end", lambda self: begun.append("ended"))
    trainer.train()
    assert begun == (["begun", "ended"] if accumulates else [])


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
    assert "is not monitored for NaN" in caplog.text


def test_losses_built_past_the_plugin_are_an_error(data: Path) -> None:
    trainer = trainer_of(data, {}, {"is_segmentation": False})
    plan = plan_of({"loss": {"name": "HuberLoss"}, "eval_metric": {"name": "MSE"}}, model_is_ours=True)
    with pytest.raises(UnsupportedUpstreamError, match="does not use the patched builders"):
        monitor.watch(trainer, plan)


def test_images_of_two_raw_channels_in_a_batch(data: Path) -> None:
    """pytorch-3dunet alone fails at the second patch: IndexError."""
    trainer = trainer_of(data, {}, {"final_activation": "none"})
    raw, label = np.random.default_rng(0).normal(size=(2, 2, 4, 64, 64)), np.zeros((2, 1, 4, 64, 64))
    with pytest.raises(IndexError):
        trainer.tensorboard_formatter("inputs", raw)
    tags = []
    trainer.writer.add_image = lambda tag, image, step: tags.append(tag)
    trainer._log_images(raw, label, label, "val_")
    shown = [tag for tag in tags if tag.startswith("val_inputs")]
    assert shown == [f"val_inputs/batch_{n}/channel_{c}/slice_2" for n in range(2) for c in range(2)]


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

"""Target scaling on upstream's real models: what they compute, what their checkpoints remember, what is measured."""

import copy
import logging
import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.model import UNet3D, get_model
from torch import nn

import p3d_regression
from p3d_regression import CheckpointMismatchError, ConfigError
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.training.plan import Plan, plan_of
from p3d_regression.training.scaling import gradient_factor, with_numbers
from support.checks import merged
from support.lab import training_config, write_volumes

NUMBERS = {"mean": 12.5, "std": 13}
OTHERS = {"mean": 5000, "std": 0.25}


def config(channels: int = 1, **more: object) -> dict[str, object]:
    return {"name": "UNet3D", "in_channels": 1, "out_channels": channels, "f_maps": [8, 16], "num_groups": 4, **more}


def scaled(value: object = NUMBERS, final: object = "none", channels: int = 1) -> nn.Module:
    return get_model(config(channels, final_activation=final, target_scaling=value))


def output(model: nn.Module) -> torch.Tensor:
    x = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(x)


def kept(model: nn.Module) -> Any:
    return model.state_dict()._metadata[""]["p3d_regression"]["output"].get("target_scaling")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "P3DRegression")
    return caplog


class TestTheModel:
    @pytest.mark.parametrize("name", ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D"])
    def test_is_upstreams_own_with_the_output_scaled(self, name: str, log: pytest.LogCaptureFixture) -> None:
        torch.manual_seed(0)
        plain = get_model({**config(is_segmentation=False), "name": name})
        torch.manual_seed(0)
        model = get_model({**config(final_activation="none", target_scaling=NUMBERS), "name": name})
        torch.testing.assert_close(output(model), 12.5 + 13 * output(plain))
        assert log.messages[-1].endswith("target scaling: output = 12.5 + 13 * x")
        for key, value in plain.state_dict().items():
            assert torch.equal(model.state_dict()[key], value)
        assert model.state_dict().keys() == plain.state_dict().keys()
        assert [p.shape for p in model.parameters()] == [p.shape for p in plain.parameters()]

    def test_sees_the_same_in_training_and_evaluation(self) -> None:
        model, x = scaled(), torch.randn(1, 1, 8, 16, 16)
        torch.testing.assert_close(model.train()(x), model.eval()(x))
        if "return_logits" in UNet3D.forward.__code__.co_varnames:
            outputs = model.train()(x, return_logits=True)
            assert torch.equal(outputs[0], outputs[1])

    def test_can_be_copied_pickled_and_wrapped(self) -> None:
        model = scaled()
        expected = output(model)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), nn.DataParallel(model)):
            assert torch.equal(output(other), expected)
        assert "(target_scaling): Rescale(mean=[12.5], std=[13.0])" in str(model)

    def test_per_channel(self) -> None:
        torch.manual_seed(0)
        model = scaled({"mean": [100, 0, 0], "std": [3, 4, 1]}, ["none", "softplus", "sigmoid"], 3)
        torch.manual_seed(0)
        x = output(get_model(config(3, is_segmentation=False)))
        expected = torch.stack([100 + 3 * x[:, 0], 4 * nn.Softplus()(x[:, 1]), x[:, 2].sigmoid()], dim=1)
        torch.testing.assert_close(output(model), expected)

    def test_wants_an_activation_beside_it(self) -> None:
        with pytest.raises(ConfigError, match=r"no line model\.final_activation"):
            get_model(config(target_scaling="standardize", is_segmentation=False))

    def test_the_number_of_channels_may_be_one_of_numpy(self) -> None:
        model = scaled(channels=np.int64(1))
        assert kept(model) == {"mean": [12.5], "std": [13.0]}

    def test_is_refused_before_a_weight_is_allocated(self) -> None:
        for wrong in ({"final_activation": "sigmoid"}, {"target_scaling": "standard"}):
            with pytest.raises(ConfigError, match=r"^model\.target_scaling"):
                get_model({**config(final_activation="none", target_scaling="standardize", f_maps=2**40), **wrong})

    def test_a_class_does_not_swallow_it(self) -> None:
        with pytest.raises(ConfigError, match=r"p3d_regression\.set_target_scaling\(model, {'mean': 12\.5"):
            UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4, target_scaling="standardize")

    def test_without_numbers_it_computes_nothing(self) -> None:
        model = scaled("standardize")
        with pytest.raises(RuntimeError, match="target_scaling has no numbers yet"):
            output(model)
        assert "p3d_regression" not in model.state_dict()._metadata[""]


class TestFromPython:
    def test_set_on_a_model_of_a_class(self) -> None:
        torch.manual_seed(0)
        model = UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
        with pytest.raises(ConfigError, match="no final activation to scale"):
            p3d_regression.set_target_scaling(model, NUMBERS)
        p3d_regression.set_final_activation(model, "none")
        x = output(model)
        assert p3d_regression.set_target_scaling(model, NUMBERS) is model
        torch.testing.assert_close(output(model), 12.5 + 13 * x)
        assert kept(model) == {"mean": [12.5], "std": [13.0]}
        p3d_regression.set_target_scaling(model, "none")
        assert torch.equal(output(model), x)
        with pytest.raises(ConfigError, match="only a training measures labels"):
            p3d_regression.set_target_scaling(model, "standardize")

    def test_another_activation_keeps_it_or_is_refused(self) -> None:
        model = scaled()
        p3d_regression.set_final_activation(model, "leaky_relu")
        assert kept(model) == {"mean": [12.5], "std": [13.0]}
        before = output(model)
        for impossible in ("softplus", "sigmoid"):
            with pytest.raises(ConfigError, match=r"^model\.target_scaling"):
                p3d_regression.set_final_activation(model, impossible)
        assert torch.equal(output(model), before)


class TestCheckpoints:
    def test_the_stamp_is_plain_data_that_an_older_version_refuses(self) -> None:
        memory = scaled().state_dict()._metadata[""]["p3d_regression"]
        assert memory == {
            "output": {"final_activation": "none", "target_scaling": {"mean": [12.5], "std": [13.0]}},
            "version": p3d_regression.__version__,
            "plugins": [],
        }
        # versions that know of no scaling look here, and stop where they find nothing
        assert "final_activation" not in memory

    def test_what_a_later_version_adds_is_refused(self) -> None:
        state = scaled().state_dict()
        state._metadata[""]["p3d_regression"]["output"]["clipping"] = 3
        state._metadata[""]["p3d_regression"]["version"] = "9.9"
        with pytest.raises(
            CheckpointMismatchError, match=r"\(it holds clipping, .*\)\. Fix: install p3d-regression 9\.9"
        ):
            get_model(config()).load_state_dict(state)

    @pytest.mark.parametrize("model", [{}, {"final_activation": "none"}, {"is_segmentation": False}])
    def test_a_silent_config_takes_it_over(self, model: dict[str, object], log: pytest.LogCaptureFixture) -> None:
        trained, other = scaled(), get_model(config(**model))
        log.clear()
        other.load_state_dict(trained.state_dict())
        assert torch.equal(output(other), output(trained))
        assert "target scaling: output = 12.5 + 13 * x, taken from the checkpoint" in log.messages[-1]
        assert kept(other) == kept(trained)

    @pytest.mark.parametrize("value", ["standardize", NUMBERS, [{"mean": 12.5, "std": 13}]])
    def test_an_equal_config_is_fine(self, value: object, log: pytest.LogCaptureFixture) -> None:
        trained, other = scaled(), scaled(value)
        log.clear()
        other.load_state_dict(trained.state_dict())
        assert torch.equal(output(other), output(trained))
        assert len(log.messages) == (value == "standardize")

    @pytest.mark.parametrize(
        ("own", "of_checkpoint", "says"),
        [
            (NUMBERS, OTHERS, "{mean: 12.5, std: 13.0}, but the checkpoint was trained with {mean: 5000.0, std: 0.25}"),
            ("none", OTHERS, "none, but the checkpoint was trained with {mean: 5000.0, std: 0.25}"),
            (NUMBERS, "none", "{mean: 12.5, std: 13.0}, but the checkpoint was trained with none"),
            ("standardize", "none", "standardize, but the checkpoint was trained with none"),
        ],
    )
    def test_another_one_is_an_error_before_weights_are_taken(
        self, own: object, of_checkpoint: object, says: str
    ) -> None:
        model, trained = scaled(own), scaled(of_checkpoint)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(CheckpointMismatchError) as caught:
            model.load_state_dict(trained.state_dict())
        assert str(caught.value).startswith(f"model.target_scaling: the config has {says}")
        assert "delete the line target_scaling from the config" in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_a_plain_one_follows_the_config(self) -> None:
        plain, model = get_model(config(is_segmentation=False)), scaled()
        model.load_state_dict(plain.state_dict())
        torch.testing.assert_close(output(model), 12.5 + 13 * output(plain))
        with pytest.raises(CheckpointMismatchError, match="standardize, but the checkpoint was trained with none"):
            scaled("standardize").load_state_dict(plain.state_dict())

    def test_one_after_the_other(self) -> None:
        """Into one model whose config is silent: each brings its own."""
        plain = get_model(config())
        for model in (get_model(config()), get_model(config(final_activation="none"))):
            for trained in (scaled(), scaled("none"), scaled(OTHERS)):
                model.load_state_dict(trained.state_dict())
                assert torch.equal(output(model), output(trained))
        model = get_model(config())
        model.load_state_dict(scaled().state_dict())
        model.load_state_dict(plain.state_dict())
        assert torch.equal(output(model), output(plain))
        assert repr(model) == repr(plain)

    def test_set_by_hand_it_is_the_users_word(self) -> None:
        """Also on a model that has a checkpoint's."""
        trained, model = scaled(), get_model(config())
        model.load_state_dict(trained.state_dict())
        p3d_regression.set_target_scaling(model, OTHERS)
        with pytest.raises(CheckpointMismatchError):
            model.load_state_dict(trained.state_dict())
        assert kept(model) == {"mean": [5000.0], "std": [0.25]}

    @pytest.mark.parametrize(
        ("model", "warns"),
        [
            ({"final_activation": "none"}, True),
            ({"final_activation": "none", "target_scaling": NUMBERS}, False),
            ({"final_activation": "none", "target_scaling": "none"}, False),
            ({"is_segmentation": False}, False),
        ],
    )
    def test_weights_that_have_lost_their_notes_are_warned_of(
        self, model: dict[str, object], warns: bool, log: pytest.LogCaptureFixture
    ) -> None:
        copied = dict(scaled().state_dict().items())
        other = get_model(config(**model))
        log.clear()
        other.load_state_dict(copied)
        assert ("THE OUTPUT IS IN WRONG UNITS" in log.text) == warns
        log.clear()
        other.load_state_dict(get_model(config(is_segmentation=False)).state_dict())
        assert "WRONG UNITS" not in log.text

    def test_weights_that_come_later(self) -> None:
        """For a model without memory, and its numbers are moved to a device with it."""
        with torch.device("meta"):
            model = get_model(config(final_activation="none"))
        trained = scaled()
        model.load_state_dict(trained.state_dict(), assign=True)
        torch.testing.assert_close(output(model), output(trained))
        assert output(model).mean() > 5
        with torch.device("meta"):
            model = scaled()
        model.to_empty(device="cpu").load_state_dict(scaled().state_dict())
        assert model.final_conv.target_scaling.offset.tolist() == [12.5]

    def test_pre_trained_keeps_it_unless_the_config_says_otherwise(self, log: pytest.LogCaptureFixture) -> None:
        trained = scaled()
        with checkpoint_memory.new_head_allowed():
            for silent in (get_model(config()), get_model(config(final_activation="none"))):
                silent.load_state_dict(trained.state_dict())
                assert kept(silent) == {"mean": [12.5], "std": [13.0]}
            other = scaled(OTHERS)
            log.clear()
            other.load_state_dict(trained.state_dict())
            assert kept(other) == {"mean": [5000.0], "std": [0.25]}
            (line,) = log.messages
            assert "{mean: 5000.0, std: 0.25} from the config, on pre-trained weights that were trained with {" in line
            new_head = get_model(config(final_activation="sigmoid"))
            new_head.load_state_dict(trained.state_dict())
            assert "belongs to its final activation and is not used" in log.text
            assert output(new_head).max() <= 1


class TestMeasured:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        write_volumes(tmp_path)
        return tmp_path

    def numbers(self, data: Path, changes: dict[str, Any]) -> Any:
        model = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}
        config = merged(training_config(data, model), changes)
        before = copy.deepcopy(config)
        found = with_numbers(config, plan_of(config, model_is_ours=True))
        assert config == before
        return found["model"]["target_scaling"]

    def edit(self, data: Path, label: np.ndarray) -> None:
        with h5py.File(data / "train.h5", "a") as file:
            del file["label"]
            file["label"] = label.astype(np.float32)

    def labels(self, data: Path) -> np.ndarray:
        with h5py.File(data / "train.h5") as file:
            return file["label"][()]

    def patches(self, label: np.ndarray) -> np.ndarray:
        """What is shown to the loss in an epoch: two patches that overlap."""
        return np.stack([label[..., :64], label[..., 32:]]).astype(np.float64)

    def test_they_are_those_of_the_patches(self, data: Path) -> None:
        shown = self.patches(self.labels(data))
        found = self.numbers(data, {})
        assert found == {"mean": [pytest.approx(shown.mean(), rel=1e-6)], "std": [pytest.approx(shown.std(), rel=1e-6)]}

    def test_after_the_label_transforms(self, data: Path) -> None:
        steps = [
            {"name": "Normalize", "min_value": 0, "max_value": 10, "norm01": True},
            {"name": "ToTensor", "expand_dims": True},
        ]
        plain, found = (
            self.numbers(data, {"loaders": {"train": {"transformer": {"label": label}}}})
            for label in (steps[1:], steps)
        )
        assert found["std"][0] != pytest.approx(plain["std"][0], rel=0.5)

    @pytest.mark.parametrize("value", [-999.0, float("nan")])
    def test_without_the_voxels_that_do_not_count(self, data: Path, value: float) -> None:
        label = self.labels(data)
        hidden = np.random.default_rng(0).random(label.shape) < 0.4
        self.edit(data, np.where(hidden, value, label))
        shown = self.patches(label)[~self.patches(hidden).astype(bool)]
        found = self.numbers(data, {"loss": {"ignore_index": value}})
        assert found == {"mean": [pytest.approx(shown.mean(), rel=1e-6)], "std": [pytest.approx(shown.std(), rel=1e-6)]}

    def test_for_means_and_variances(self, data: Path) -> None:
        label = self.labels(data)
        self.edit(data, np.stack([label, 1000 * label]))
        model = {"out_channels": 4, "final_activation": ["none", "none", "softplus", "softplus"]}
        found = self.numbers(data, {"model": model, "loss": {"name": "GaussianNLLLoss"}})
        std = self.patches(label).std()
        assert found["std"] == pytest.approx([std, 1000 * std, std**2, 1e6 * std**2], rel=1e-5)
        assert found["mean"][2:] == [0, 0]
        parts = [{"name": "MSELoss"}, {"name": "GaussianNLLLoss"}]
        model = {"out_channels": 3, "final_activation": ["none", "none", "softplus"]}
        found = self.numbers(data, {"model": model, "loss": {"name": "channelwise", "channels": parts}})
        assert found["std"] == pytest.approx([std, 1000 * std, 1e6 * std**2], rel=1e-5)

    def test_a_last_channel_that_the_loss_leaves_out_does_not_count(self, data: Path) -> None:
        label = self.labels(data)
        plain = self.numbers(data, {})
        self.edit(data, np.stack([label, np.zeros_like(label)]))
        steps = [{"name": "ToTensor", "expand_dims": False}]
        loaders = {"loaders": {"train": {"transformer": {"label": steps}}}}
        assert self.numbers(data, merged(loaders, {"loss": {"skip_last_target": True}})) == plain

    @pytest.mark.parametrize(
        ("edit", "changes", "why"),
        [
            (lambda label: 0 * label, {}, "train.h5) are 0 in every voxel"),
            (lambda label: 0 * label - 1, {"loss": {"ignore_index": -1}}, "no voxel of the labels of loaders.train"),
            (
                lambda label: np.where(label > 20, np.nan, label),
                {},
                "ignore_index: .nan  # if these voxels have no label",
            ),
            (
                lambda label: np.stack([label, 0 * label + 7]),
                {"model": {"out_channels": 2}},
                "train.h5), channel 1, are 7 in every voxel",
            ),
            (
                lambda label: 1e-4 * label,
                {
                    "model": {"out_channels": 2, "final_activation": ["none", "softplus"]},
                    "loss": {"name": "GaussianNLLLoss"},
                },
                "loss.eps: 1e-06 is the smallest variance that the loss takes",
            ),
            (lambda label: label, {"model": {"out_channels": 2}}, "have 1 channel(s), the model predicts 2"),
            (lambda label: label, {"loss": {"name": "BCEWithLogitsLoss"}}, "BCEWithLogitsLoss compares fractions"),
            (
                lambda label: label,
                {"loss": {"name": "PoissonNLLLoss"}},
                "is given outputs in (-inf, inf) for labels in [0, inf)",
            ),
            (
                lambda label: label,
                {"loaders": {"label_internal_path": "labels"}},
                "needs to read the labels of loaders.train, and cannot",
            ),
        ],
    )
    def test_what_cannot_be_measured_says_what_and_where(
        self, data: Path, edit: Any, changes: dict[str, Any], why: str
    ) -> None:
        self.edit(data, edit(self.labels(data)))
        with pytest.raises(ConfigError) as caught:
            self.numbers(data, changes)
        assert str(caught.value).startswith(("model.target_scaling: ", "loss.eps: "))
        assert why in str(caught.value)

    def test_no_random_number_is_taken(self, data: Path) -> None:
        from pytorch3dunet.augment import transforms

        def states() -> tuple[Any, ...]:
            augmentation = transforms.GLOBAL_RANDOM_STATE.get_state()[1:3]
            numpys = np.random.get_state()[1].tolist()
            return torch.get_rng_state().tolist(), random.getstate(), numpys, str(augmentation)

        before = states()
        self.numbers(data, {})
        assert states() == before

    def test_nothing_is_read_where_numbers_are_given_or_a_training_goes_on(self, data: Path) -> None:
        (data / "train.h5").unlink()
        assert self.numbers(data, {"model": {"target_scaling": NUMBERS}}) == NUMBERS
        assert self.numbers(data, {"trainer": {"resume": "last_checkpoint.pytorch"}}) == "standardize"


@pytest.mark.parametrize(("second", "warned"), [(13, False), (0.013, True)])
def test_a_channel_with_hardly_any_gradient_is_warned_of(
    second: float, warned: bool, log: pytest.LogCaptureFixture
) -> None:
    """MSE counts errors in the units of the labels: a thousandth of the unit is a millionth of the gradient."""
    numbers = {"mean": [12.5, 0], "std": [13, second]}
    trainer = SimpleNamespace(model=scaled(numbers, channels=2), loss_criterion=nn.MSELoss())
    factor = gradient_factor(trainer, Plan(True, loss_section={"name": "MSELoss"}, metric_name="MSE"))
    assert factor is not None
    lines = [record.message for record in log.records if record.levelno == logging.WARNING]
    assert len(lines) == warned
    assert all(line.startswith("output channel 1 has less than 1% of the gradient") for line in lines)

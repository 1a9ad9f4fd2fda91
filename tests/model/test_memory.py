"""What a checkpoint remembers, on upstream's real models and its real save and load."""

import copy
import logging
import pickle
from pathlib import Path

import pytest
import torch
from pytorch3dunet.unet3d.model import UNet3D, get_model
from pytorch3dunet.unet3d.utils import load_checkpoint, save_checkpoint
from torch import nn

import p3d_regression
from p3d_regression import CheckpointMismatchError
from p3d_regression.model import memory as checkpoint_memory

SOFTPLUS2 = {"name": "softplus", "beta": 2}


def config(channels: int = 1, **more: object) -> dict[str, object]:
    return {"name": "UNet3D", "in_channels": 1, "out_channels": channels, "f_maps": [8, 16], "num_groups": 4, **more}


def saved(directory: Path, model: nn.Module) -> str:
    state = {"model_state_dict": model.state_dict(), "optimizer_state_dict": {}, "num_epochs": 1}
    save_checkpoint(state, is_best=False, checkpoint_dir=str(directory))
    return str(directory / "last_checkpoint.pytorch")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "P3DRegression")
    return caplog


def output(model: nn.Module) -> torch.Tensor:
    x = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize(
    ("value", "channels"),
    [("none", 1), ("softplus", 1), (SOFTPLUS2, 1), ("softmax", 3), (["sigmoid", SOFTPLUS2], 2)],
)
@pytest.mark.parametrize("silent", [{}, {"final_sigmoid": False}, {"is_segmentation": False}])
def test_a_silent_config_takes_over_the_checkpoints(
    tmp_path: Path, log: pytest.LogCaptureFixture, value: object, channels: int, silent: dict[str, bool]
) -> None:
    trained = get_model(config(channels, final_activation=value))
    path = saved(tmp_path, trained)
    model = get_model(config(channels, **silent))
    log.clear()
    load_checkpoint(path, model)
    assert torch.equal(output(model), output(trained))
    (line,) = log.messages
    assert "taken from the checkpoint: the config has no line model.final_activation" in line
    assert line.startswith(f"p3d-regression {p3d_regression.__version__}: ")
    # and remembers it in turn
    again = get_model(config(channels))
    load_checkpoint(saved(tmp_path, model), again)
    assert torch.equal(output(again), output(trained))


def test_the_line_says_what_is_replaced(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, get_model(config(final_activation=SOFTPLUS2)))
    model = get_model(config())
    log.clear()
    load_checkpoint(path, model)
    assert "final activation {name: softplus, beta: 2.0}, output range [0, inf), taken from" in log.text
    assert "(pytorch-3dunet's Sigmoid is removed)" in log.text


@pytest.mark.parametrize(
    ("trained", "configured"),
    [("none", "Identity"), ("softplus", {"name": "SoftPlus", "beta": 1}), ("none", ["none"])],
)
def test_an_equal_config_is_fine(
    tmp_path: Path, log: pytest.LogCaptureFixture, trained: object, configured: object
) -> None:
    path = saved(tmp_path, get_model(config(final_activation=trained)))
    model = get_model(config(final_activation=configured))
    log.clear()
    load_checkpoint(path, model)
    assert log.messages == []


def test_a_different_config_is_an_error_with_both_values_and_both_ways_out(tmp_path: Path) -> None:
    path = saved(tmp_path, get_model(config(final_activation="none")))
    model = get_model(config(final_activation=SOFTPLUS2))
    before = output(model)
    with pytest.raises(CheckpointMismatchError) as caught:
        load_checkpoint(path, model)
    message = str(caught.value)
    assert message.startswith("model.final_activation: the config has {name: softplus, beta: 2.0}, ")
    assert "the checkpoint was trained with none." in message
    assert "delete the line final_activation from the config" in message
    assert "trainer.pre_trained" in message
    fixed = caught.value.found.fix.applied_to({"model": config(final_activation=SOFTPLUS2)})["model"]
    load_checkpoint(path, get_model(fixed))
    assert torch.equal(output(model), before), "weights were taken over"


def test_a_pre_trained_checkpoint_may_get_a_new_head(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    trained = get_model(config(final_activation="none"))
    path = saved(tmp_path, trained)
    model = get_model(config(final_activation="softplus"))
    log.clear()
    with checkpoint_memory.new_head_allowed():
        load_checkpoint(path, model)
    assert torch.equal(output(model), nn.Softplus()(output(trained)))
    (line,) = log.messages
    assert "final activation softplus from the config, on pre-trained weights that were trained with none" in line
    with pytest.raises(CheckpointMismatchError):
        load_checkpoint(path, model)


@pytest.mark.parametrize("value", ["none", "softplus"])
def test_a_plain_checkpoint_follows_the_config(tmp_path: Path, log: pytest.LogCaptureFixture, value: str) -> None:
    plain = get_model(config(is_segmentation=False))
    model = get_model(config(final_activation=value))
    log.clear()
    load_checkpoint(saved(tmp_path, plain), model)
    expected = output(plain) if value == "none" else nn.Softplus()(output(plain))
    assert torch.equal(output(model), expected)
    assert log.messages == []
    silent = get_model(config())
    load_checkpoint(saved(tmp_path, plain), silent)
    assert isinstance(silent.final_activation, nn.Sigmoid)


def test_what_is_written_is_plain_data_and_survives_a_weights_only_load(tmp_path: Path) -> None:
    path = saved(tmp_path, get_model(config(2, final_activation=["none", SOFTPLUS2])))
    state = torch.load(path, weights_only=True)["model_state_dict"]
    assert state._metadata[""]["p3d_regression"] == {
        "final_activation": ["none", {"name": "softplus", "beta": 2.0, "threshold": 20.0}],
        "version": p3d_regression.__version__,
        "plugins": [],
    }
    # no new keys
    assert state.keys() == get_model(config(2)).state_dict().keys()


def test_what_is_done_to_a_saved_state_does_not_reach_the_model() -> None:
    model = get_model(config(final_activation="softplus"))
    model.state_dict()._metadata[""]["p3d_regression"]["final_activation"]["beta"] = 7
    assert model.state_dict()._metadata[""]["p3d_regression"]["final_activation"]["beta"] == 1.0


def test_in_data_parallel_too(tmp_path: Path) -> None:
    trained = nn.DataParallel(get_model(config(final_activation="softplus")))
    model = nn.DataParallel(get_model(config()))
    model.load_state_dict(pickle.loads(pickle.dumps(trained.state_dict())))
    assert torch.equal(output(model), output(trained))
    with pytest.raises(CheckpointMismatchError):
        nn.DataParallel(get_model(config(final_activation="none"))).load_state_dict(trained.state_dict())


def test_a_model_built_from_its_class_too() -> None:
    trained = get_model(config(final_activation="softplus"))
    model = UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
    model.load_state_dict(trained.state_dict())
    assert torch.equal(output(model), output(trained))


class TestLoadingSeveralCheckpoints:
    """One after the other into one model whose config is silent, as ensembles and cross-validation do."""

    def test_each_brings_its_own(self, log: pytest.LogCaptureFixture) -> None:
        model = get_model(config())
        for value in ("softplus", "none", {"name": "bounded", "low": 0, "high": 3}, "softplus"):
            trained = get_model(config(final_activation=value))
            log.clear()
            model.load_state_dict(trained.state_dict())
            assert torch.equal(output(model), output(trained))
            (line,) = log.messages
            assert "(pytorch-3dunet's Sigmoid is removed)" in line

    @pytest.mark.parametrize("silent", [{}, {"is_segmentation": False}, {"final_sigmoid": False}])
    def test_a_plain_one_gives_upstreams_own_back(self, log: pytest.LogCaptureFixture, silent: dict[str, bool]) -> None:
        model, plain = get_model(config(2, **silent)), get_model(config(2, **silent))
        handle = model.final_conv.register_forward_hook(lambda *_: None)  # somebody else's
        model.load_state_dict(get_model(config(2, final_activation="softplus")).state_dict())
        model = copy.deepcopy(model) if not silent else model
        log.clear()
        model.load_state_dict(plain.state_dict())
        assert torch.equal(output(model), output(plain))
        assert log.messages == [
            f"p3d-regression {p3d_regression.__version__}: this checkpoint stores no final activation: "
            "the model uses that of pytorch-3dunet again"
        ]
        assert repr(model) == repr(plain)
        assert len(model.final_conv._forward_hooks) == 1
        handle.remove()
        assert len(model.final_conv._forward_hooks) == (0 if silent else 1)
        model.final_conv._forward_hooks.clear()
        assert "p3d_regression" not in model.state_dict()._metadata[""]
        assert b"p3d" not in pickle.dumps(model)

    def test_one_that_failed_leaves_nothing_that_decides_the_next(self) -> None:
        broken = get_model(config(final_activation="softplus")).state_dict()
        del broken[next(iter(broken))]
        model, plain = get_model(config()), get_model(config())
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict(broken)
        model.load_state_dict(plain.state_dict())
        assert torch.equal(output(model), output(plain))

    def test_one_that_was_set_by_hand_is_the_users_word(self) -> None:
        model = get_model(config())
        model.load_state_dict(get_model(config(final_activation="softplus")).state_dict())
        p3d_regression.set_final_activation(model, "tanh")
        with pytest.raises(CheckpointMismatchError):
            model.load_state_dict(get_model(config(final_activation="softplus")).state_dict())


def test_a_part_of_the_weights_without_the_head_is_no_checkpoint_of_this_model() -> None:
    state = get_model(config(final_activation="softplus")).state_dict()
    for key in [key for key in state if key.startswith("final_conv.")]:
        del state[key]
    silent, named = get_model(config()), get_model(config(final_activation="none"))
    for model in (silent, named):
        model.load_state_dict(state, strict=False)
    assert isinstance(silent.final_activation, nn.Sigmoid)
    assert "p3d_regression" not in silent.state_dict()._metadata[""]


def test_a_parametrised_head_remembers_too() -> None:
    trained, model = get_model(config(final_activation="softplus")), get_model(config())
    for each in (trained, model):
        nn.utils.parametrizations.weight_norm(each.final_conv)
    model.load_state_dict(trained.state_dict())
    assert torch.equal(output(model), output(trained))


def test_a_head_of_the_users_own_is_left_alone() -> None:
    model = get_model(config())
    model.final_conv = nn.Sequential(nn.Conv3d(8, 1, 1))
    model.load_state_dict(get_model(config(final_activation="softplus")).state_dict(), strict=False)
    assert isinstance(model.final_activation, nn.Sigmoid)


def test_inside_another_module_with_a_prefix() -> None:
    trained = nn.ModuleDict({"net": get_model(config(final_activation="softplus"))})
    model = nn.ModuleDict({"net": get_model(config())})
    model.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(output(model["net"]), output(trained["net"]))


def test_a_mismatch_of_long_lists_says_where() -> None:
    many = ["softplus"] * 120
    trained = get_model(config(120, final_activation=many))
    model = get_model(config(120, final_activation=[*many[:60], SOFTPLUS2, *many[61:]]))
    with pytest.raises(CheckpointMismatchError, match=r"first in channel 60: {name: softplus, beta: 2.0}, softplus\)"):
        model.load_state_dict(trained.state_dict())


def test_another_number_of_channels_is_left_to_torch() -> None:
    trained = get_model(config(3, final_activation="softmax"))
    model = get_model(config(1))
    with pytest.raises(RuntimeError, match="size mismatch for final_conv"):
        model.load_state_dict(trained.state_dict())
    assert isinstance(model.final_activation, nn.Sigmoid)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            {"final_activation": {"name": "squarepluss", "b": 4.0}, "version": "0.2", "plugins": ["p3d-square 1.0"]},
            "trained with {'name': 'squarepluss', 'b': 4.0}, which p3d-regression .* cannot build here "
            r"\('squarepluss' is not a known final activation.*\)\. Fix: install p3d-square 1\.0\.",
        ),
        ({"final_activation": "new", "version": "9.9", "plugins": []}, "Fix: install p3d-regression 9.9."),
        (
            {"final_activation": "none", "version": "9.9", "plugins": [], "quantized": 8},
            r"it holds quantized, which this version does not know\)\. Fix: install p3d-regression 9.9\.",
        ),
        (
            {"output": {"final_activation": "none", "quantized": 8, 3: 4}, "version": "9.9", "plugins": []},
            "it holds 3, quantized, which this version does not know",
        ),
        (
            {"output": {"final_activation": "none"}, "target_scaling": {"mean": [1.0], "std": [2.0]}},
            "it holds target_scaling, which this version does not know",
        ),
        ({"final_activation": ["none", "none"]}, "cannot build here"),
        ({"final": 3}, "cannot build here"),
        ({"final_activation": "none", "plugins": [""]}, "cannot build here"),
        ({"final_activation": "none", "plugins": 3}, "cannot build here"),
        ("text", "cannot build here"),
        (3, "cannot build here"),
    ],
)
def test_what_cannot_be_built_here_stops_the_load(kept: object, message: str) -> None:
    state = get_model(config(final_activation="none")).state_dict()
    state._metadata[""]["p3d_regression"] = kept
    with pytest.raises(CheckpointMismatchError, match=message):
        get_model(config()).load_state_dict(state)


def test_the_same_name_from_another_package_is_another_function() -> None:
    state = get_model(config(final_activation="softplus")).state_dict()
    state._metadata[""]["p3d_regression"]["plugins"] = ["softer 1.0"]
    with pytest.raises(
        CheckpointMismatchError, match=r"\(Here softplus comes from p3d-regr.*\)\. Fix: install softer 1\.0\."
    ):
        get_model(config()).load_state_dict(state)


def test_deactivated_nothing_is_looked_at() -> None:
    trained = get_model(config(final_activation="none"))
    p3d_regression.deactivate()
    try:
        model = UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
        model.load_state_dict(trained.state_dict())
        assert isinstance(model.final_activation, nn.Sigmoid)
        assert "_load_from_state_dict" not in vars(type(model).__mro__[1])
    finally:
        p3d_regression.activate()


def test_errors_are_config_errors() -> None:
    """So that ``p3d-regression run`` shows them as one clear message."""
    assert issubclass(CheckpointMismatchError, p3d_regression.ConfigError)

"""One meaning everywhere: an activation on upstream's real U-Nets, in this process."""

import copy
import io
import pickle

import pytest
import torch
from pytorch3dunet.unet3d import model as upstream_model
from pytorch3dunet.unet3d.model import get_model
from torch import nn

import p3d_regression
from p3d_regression.activations.registry import registry

CLASSES = ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D", "ResidualUNet2D"]
EXAMPLES = {row["name"]: row["example"] for row in registry().rows()}
MIXED = ["sigmoid", {"name": "softplus", "beta": 2}, "softplus", "none"]


def config(value: object, channels: int = 2, name: str = "UNet3D") -> dict[str, object]:
    return {
        "name": name,
        "in_channels": 1,
        "out_channels": channels,
        "f_maps": [8, 16],
        "num_groups": 4,
        "dropout_prob": 0.0,
        "final_activation": value,
    }


def plain_twin(model: nn.Module, name: str = "UNet3D", channels: int = 2) -> nn.Module:
    """Upstream's own model without a last layer, same weights, built past the plugin."""
    arguments = {
        key: value for key, value in config("none", channels, name).items() if key not in ("name", "final_activation")
    }
    twin = getattr(upstream_model, name)(**arguments, is_segmentation=False)
    twin.load_state_dict(dict(model.state_dict()))
    return twin


def example_input(name: str = "UNet3D") -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((1, 1, 16, 16) if "2D" in name else (1, 1, 8, 16, 16), generator=generator)


def by_hand(value: object) -> nn.Module:
    return {
        "softplus": nn.Softplus(),
        "softmax": nn.Softmax(dim=1),
        "tanh": nn.Tanh(),
        "exp": type("Exp", (nn.Module,), {"forward": lambda self, x: torch.exp(x)})(),
    }[value]


def test_the_trap_swapping_the_layer_by_hand_trains_on_other_values_than_are_predicted() -> None:
    """Upstream alone: its trainer computes the loss on the logits."""
    model = plain_twin(get_model(config("none")))
    model.final_activation = nn.Softplus()
    output, logits = model(example_input(), return_logits=True)
    assert not torch.equal(output, logits)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("value", ["softplus", "softmax", "tanh", "exp"])
def test_output_and_logits_are_the_activated_last_convolution(name: str, value: str) -> None:
    model = get_model(config(value, name=name))
    twin = plain_twin(model, name)
    x = example_input(name)
    for mode in (True, False):
        output, logits = model.train(mode)(x, return_logits=True)
        expected = by_hand(value)(twin.train(mode)(x))
        assert torch.equal(output, expected)
        assert torch.equal(logits, expected)
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("value", EXAMPLES.values(), ids=EXAMPLES)
def test_every_one_trains_and_gives_gradients_to_the_first_convolution(value: object) -> None:
    model = get_model(config(value))
    output, logits = model(example_input(), return_logits=True)
    assert output is logits
    (output * torch.arange(2).reshape(1, 2, 1, 1, 1)).square().mean().backward()
    weight = next(model.parameters())
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_a_list_gives_each_channel_its_own() -> None:
    model = get_model(config(MIXED, 4)).eval()
    logits = plain_twin(model, channels=4).eval()(example_input())
    expected = [
        torch.sigmoid(logits[:, 0]),
        nn.functional.softplus(logits[:, 1], beta=2),
        nn.functional.softplus(logits[:, 2]),
        logits[:, 3],
    ]
    torch.testing.assert_close(model(example_input()), torch.stack(expected, dim=1))


@pytest.mark.parametrize("value", [*EXAMPLES.values(), MIXED[:2]], ids=[*EXAMPLES, "list"])
@pytest.mark.parametrize("name", ["UNet3D", "ResidualUNetSE3D"])
def test_the_keys_and_shapes_of_the_weights_stay(name: str, value: object) -> None:
    model = get_model(config(value, name=name))
    twin = plain_twin(model, name)
    assert [(k, v.shape) for k, v in model.state_dict().items()] == [(k, v.shape) for k, v in twin.state_dict().items()]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("none", "Identity()"),
        ({"name": "softplus", "beta": 2}, "Softplus(beta=2.0, threshold=20.0)"),
        ({"name": "bounded", "low": -1, "high": 7}, "Bounded(low=-1.0, high=7.0)"),
        (["sigmoid", "tanh"], "PerChannel"),
    ],
)
def test_it_is_seen_when_the_model_is_printed(value: object, shown: str) -> None:
    assert f"(final_activation): {shown}" in repr(get_model(config(value)))


@pytest.fixture(params=["softplus", MIXED[:2], "unit_vector"], ids=["one", "list", "over channels"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return get_model(config(request.param)).eval()


def through_torch_save(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


class TestSurvives:
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch_save])
    def test_copies_and_pickles(self, model: nn.Module, duplicate) -> None:
        twin = duplicate(model)
        x = example_input()
        assert torch.equal(twin(x), model(x))
        key = "p3d_regression"
        assert twin.state_dict()._metadata[""][key] == model.state_dict()._metadata[""][key]
        p3d_regression.set_final_activation(twin, "tanh")
        assert not torch.equal(twin(x), model(x))

    def test_data_parallel(self, model: nn.Module) -> None:
        wrapped = nn.DataParallel(model)
        assert torch.equal(wrapped(example_input()), model(example_input()))
        assert "p3d_regression" in wrapped.state_dict()._metadata["module"]

    def test_the_replicas_that_data_parallel_makes(self, model: nn.Module) -> None:
        """As torch.nn.parallel.replicate does on several GPUs: modules without parameters, children linked anew."""
        conv = model.final_conv._replicate_for_data_parallel()
        conv._modules["final_activation"] = model.final_conv.final_activation._replicate_for_data_parallel()
        features = torch.randn(1, 8, 2, 4, 4)
        conv.weight, conv.bias = model.final_conv.weight, model.final_conv.bias
        assert torch.equal(conv(features), model.final_conv(features))

    @pytest.mark.parametrize("train", [False, True])
    def test_export(self, model: nn.Module, train: bool) -> None:
        x = example_input()
        exported = torch.export.export(model.train(train), (x,)).module()
        torch.testing.assert_close(exported(x), model(x))

    @pytest.mark.filterwarnings("ignore")  # torch has deprecated it, people still deploy with it
    def test_trace(self, model: nn.Module) -> None:
        x = example_input()
        torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))

    def test_compile(self, model: nn.Module) -> None:
        """Without a C++ compiler: the graph is captured and differentiated, not lowered to machine code."""
        x = example_input()
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))

    def test_exponential_moving_averages_of_weights(self, model: nn.Module) -> None:
        averaged = torch.optim.swa_utils.AveragedModel(model)
        assert torch.equal(averaged(example_input()), model(example_input()))

    def test_a_move_to_another_type(self, model: nn.Module) -> None:
        assert model.double()(example_input().double()).dtype == torch.float64


def test_another_one_replaces_it() -> None:
    model = get_model(config("softplus")).eval()
    logits = plain_twin(model).eval()(example_input())
    for value, expected in (("tanh", torch.tanh(logits)), ("none", logits), ("softplus", nn.Softplus()(logits))):
        p3d_regression.set_final_activation(model, value)
        assert torch.equal(model(example_input()), expected)
    assert len(model.final_conv._forward_hooks) == 1
    assert len(model._state_dict_hooks) == 1


def test_a_new_last_convolution_does_not_lose_it_in_silence() -> None:
    model = get_model(config("softplus")).eval()
    model.final_conv = nn.Conv3d(8, 3, 1)
    with pytest.raises(RuntimeError, match=r"final_conv was replaced.*softplus.*set_final_activation"):
        model(example_input())
    assert "p3d_regression" not in model.state_dict()._metadata[""]
    p3d_regression.set_final_activation(model, ["softplus", "none", "tanh"])
    assert model(example_input()).shape[1] == 3
    assert model.state_dict()._metadata[""]["p3d_regression"]["final_activation"][1] == "none"
    assert len(model._state_dict_hooks) == 1
    assert len(model._forward_pre_hooks) == 1


def test_a_layer_assigned_the_old_way_does_not_apply_on_top_in_silence() -> None:
    model = get_model(config("exp")).eval()
    model.final_activation = nn.Sigmoid()
    with pytest.raises(RuntimeError, match=r"final_activation was assigned.*exp was set: both would apply.*set_final"):
        model(example_input())
    assert "p3d_regression" not in model.state_dict()._metadata[""]


@pytest.mark.parametrize("before", [{"is_segmentation": False}, {}, {"final_activation": "softplus"}])
def test_a_model_that_was_compiled_and_run_does_not_keep_its_old_one(before: dict[str, object]) -> None:
    arguments = {key: value for key, value in config("none").items() if key != "final_activation"}
    model = get_model(arguments | before).eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(example_input())
        p3d_regression.set_final_activation(model, "exp")
        assert torch.equal(compiled(example_input()), model(example_input()))
        model.load_state_dict(get_model(config("exp")).state_dict())
        assert torch.equal(compiled(example_input()), model(example_input()))


def test_building_another_model_compiles_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset() -> None:
        raise AssertionError("every compiled model of the process is thrown away")

    torch.compile(get_model(config("softplus")), backend="eager")  # loads torch's compiler
    monkeypatch.setattr(torch.compiler, "reset", reset)
    get_model(config("softplus"))


def test_a_failed_replacement_changes_nothing() -> None:
    model = get_model(config("softplus")).eval()
    before = model(example_input())
    for value in ("nome", {"name": "softplus", "beta": 0}, ["none"]):
        with pytest.raises(p3d_regression.ConfigError):
            p3d_regression.set_final_activation(model, value)
    assert torch.equal(model(example_input()), before)


def test_deactivated_a_model_keeps_its_own() -> None:
    model = get_model(config("softplus")).eval()
    before = model(example_input())
    p3d_regression.deactivate()
    try:
        assert torch.equal(model(example_input()), before)
        assert "p3d_regression" in model.state_dict()._metadata[""]
    finally:
        p3d_regression.activate()


def test_a_silent_model_is_upstreams_own_to_the_last_attribute() -> None:
    arguments = {key: value for key, value in config("none").items() if key != "final_activation"}
    silent = get_model(arguments)
    assert not silent._forward_hooks
    assert not silent._state_dict_hooks
    assert not silent._load_state_dict_pre_hooks
    assert not silent.final_conv._forward_hooks
    assert b"p3d" not in pickle.dumps(silent)
    assert "p3d_regression" not in silent.state_dict()._metadata[""]

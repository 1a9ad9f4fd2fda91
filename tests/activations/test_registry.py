"""From names to activations, and their arguments."""

import inspect
import math
import sys

import pytest
import torch
import yaml
from torch import nn
from torch.nn.modules import activation as torchs

from p3d_regression import ConfigError, plugins
from p3d_regression.activations import modules, torch_nn
from p3d_regression.activations.activation import Activation
from p3d_regression.activations.final import build
from p3d_regression.activations.registry import FAMILY, registry, resolve
from p3d_regression.components.configured import Configured
from p3d_regression.components.parameters import with_arguments
from p3d_regression.components.registry import BUILT_IN, TORCH_NN, Registry
from p3d_regression.interval import Interval
from p3d_regression.text import fold

#: What cannot be a final activation -> a part of the reason.
REFUSED = {
    "PReLU": "learnable weights",
    "GLU": "changes the shape",
    "MultiheadAttention": "takes 3 inputs",
    "RReLU": "random in training",
    "Softmax2d": "does not take the output of a 3D U-Net",
}
ACCEPTED = sorted(set(torchs.__all__) - set(REFUSED))
REGISTRATIONS = registry().registrations()


def example(activation: Activation) -> object:
    return with_arguments(activation.name, activation.example)


def refusal(value: object, channels: int = 1) -> str:
    return str(refused(value, channels))


def refused(value: object, channels: int = 1) -> ConfigError:
    """The error for a value, after its fix was tried: it works."""
    with pytest.raises(ConfigError) as caught:
        resolve(value, channels).build()
    resolve(mended(value, caught.value), channels).build()
    return caught.value


def mended(value: object, error: ConfigError) -> object:
    return error.found.fix.applied_to({"model": {"final_activation": value}})["model"]["final_activation"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_usable_class_of_torch_is_known_by_its_own_name(name: str) -> None:
    final = resolve({"name": name, **dict.fromkeys(_required(name), 1)}, 2)
    assert isinstance(final.build(), getattr(nn, name))
    assert name in torch_nn.KNOWN, "torch_nn.py does not know it: it would be taken for unbounded"


def _required(name: str) -> list[str]:
    parameters = inspect.signature(getattr(nn, name)).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_cannot_work_is_refused_with_the_reason(name: str, reason: str) -> None:
    message = refusal(name, 2)
    assert message.startswith(f"model.final_activation: {name!r} cannot be a final activation: ")
    assert reason in message


def test_the_list_follows_the_installed_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that torch gets one day is used, its range taken for unbounded; ours keep their names."""

    class Squared(nn.Module):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x * x

    class Endless(Squared):
        def __init__(self, cap: float = math.inf) -> None:
            super().__init__()

    monkeypatch.setattr(torchs, "Squared", Squared, raising=False)
    monkeypatch.setattr(torchs, "Endless", Endless, raising=False)
    monkeypatch.setattr(torchs, "__all__", ["ReLU", "Squared", "Endless"])
    relu, squared, endless = torch_nn.activations()
    assert (relu.name, squared.name, list(squared.parameters)) == ("relu", "squared", ["scale"])
    assert str(squared.range_of({}, 1)) == "(-inf, inf)"
    assert "argument cap: its default inf" in endless.reason


def test_a_torch_that_grows_a_name_of_ours_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exp(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x

    monkeypatch.setattr(torchs, "Exp", Exp, raising=False)
    monkeypatch.setattr(torchs, "__all__", ["Exp", "ReLU"])
    own = {BUILT_IN: modules.activations(), TORCH_NN: torch_nn.activations()}
    anew = Registry(FAMILY, own, plugins.Plugins())
    assert anew.contested() == {}
    assert anew.configured("exp", {}, "here").component.build is modules.Exp


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("leaky_relu", "leaky_relu"),
        ("Leaky ReLU", "leaky_relu"),
        ("LeakyReLU", "leaky_relu"),
        ("LEAKY-RELU", "leaky_relu"),
        ("log_sigmoid", "logsigmoid"),
        ("hard_tanh", "hardtanh"),
        (" SoftPlus ", "softplus"),
        ("swish", "silu"),
        ("Identity", "none"),
        ("linear", "none"),
        ("Null", "none"),
        (None, "none"),
    ],
)
def test_case_spaces_and_underscores_do_not_matter(spelling: str | None, name: str) -> None:
    (entry,) = resolve(spelling, 1).entries
    assert entry.component.name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("magic", "For unbounded values write none."),
        ("", "For unbounded values write none."),
        ("x" * 100_000, "For unbounded values write none."),
        ("os.system", "A name is not an import path: a config cannot import code"),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    error = refused(name)
    message = str(error)
    assert "is not a known final activation. For unbounded values" in message
    assert hint in message
    assert "Allowed: bounded, celu, elu, exp, " in message
    assert len(message) < 1000
    assert "(see `p3d-regression activations`)" in message
    assert mended(name, error) == "none"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("nome", "none"),
        ("identiti", "none"),
        ("Liner", "none"),
        ("softpluss", "softplus"),
        ("leakyrelo", "leaky_relu"),
        ("softplus(beta=2)", {"name": "softplus", "beta": 2.0}),
        ("Soft_Pluss(beta = '0.5', treshold=10)", {"name": "softplus", "beta": 0.5, "threshold": 10.0}),
        ("bounded 0 70", {"name": "bounded", "low": 0.0, "high": 70.0}),
        ("clip", {"name": "bounded", "low": 0.0, "high": 70.0}),
        ("torch.nn.Softplus", "softplus"),
        ("nn.Softplus(beta=2)", {"name": "softplus", "beta": 2.0}),
        ({"name": "softpluss", "beta": 2, "treshold": "1e1"}, {"name": "softplus", "beta": 2.0, "threshold": 10.0}),
        ({"name": "bound", "low": -1, "hihg": 7}, {"name": "bounded", "low": -1.0, "high": 7.0}),
    ],
)
def test_a_name_that_is_almost_known(value: object, meant: object) -> None:
    error = refused(value)
    assert mended(value, error) == meant
    message = str(error)
    assert "is not a known final activation; did you mean " in message
    # one suggestion, not one among all names
    assert "celu" not in message
    assert "`p3d-regression activations` lists all names" in message
    assert ("A name is not an import path" in message) == ("nn." in str(value) and "(" not in str(value))
    assert ("Arguments are written in a mapping" in message) == ("(" in str(value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "softplus", "betta": 2}, ".betta: softplus has no such argument, did you mean beta?"),
        ({"name": "softplus", "beta": "two"}, ".beta: 'two' is not a number."),
        ({"name": "softplus", "beta": "1e-3"}, ".beta: '1e-3' is not a number (YAML reads it as a text; write 0.001)"),
        ({"name": "softplus", "beta": True}, ".beta: True is not a number."),
        ({"name": "softplus", "beta": None}, ".beta: None is not a number."),
        ({"name": "softplus", "beta": [1]}, ".beta: [1] is not a number."),
        ({"name": "softplus", "beta": float("nan")}, ".beta: nan is not a finite number."),
        ({"name": "softplus", "beta": float("inf")}, ".beta: inf is not a finite number."),
        ({"name": "softplus", "beta": 10**400}, "is not a finite number."),
        ({"name": "gelu", "approximate": 1}, ".approximate: 1 is not a text."),
        ({"name": "gelu", "approximate": "tan"}, "approximate argument must be either none or tanh"),
        ({"name": "none", "beta": 1}, ".beta: none has no such argument. none takes no arguments."),
        ({"name": "sigmoid", "args": 1}, ".args: sigmoid has no such argument"),
        ({"name": "bounded", "low": 0}, ": bounded lacks the argument high."),
        ({"name": "bounded"}, ": bounded lacks the argument low and high."),
        ({"name": "bounded", "low": 3, "high": 3}, "low (3) must be less than high (3)"),
        ({"name": "hardtanh", "min_val": 7}, "max_val"),
        ({"name": "softplus", "beta": 0}, "it returns inf for -8. It takes beta (a number, default 1.0)"),
        ({"name": "celu", "alpha": 0}, "cannot be computed: ZeroDivisionError: alpha cannot be 0 for CELU. It takes"),
        ({"name": "elu", "alpha": 1e39}, "cannot be computed: value cannot be converted to type float"),
        ({"name": "softshrink", "lambd": -1}, "lambda must be"),
        ({"name": "unit_vector", "eps": 0}, "eps (0) must be greater than 0"),
        ({"name": "relu", "inplace": True}, ".inplace: relu does not accept this argument here: it saves memory"),
        ({"name": "softmax", "dim": 1}, ".dim: softmax does not accept this argument here: it always acts over the"),
        ({"name": "hardtanh", "min_value": -2}, "it is torch's old spelling of min_val"),
        (["none", {"name": "softplus", "beta": "x"}], "model.final_activation[1].beta: 'x' is not a number."),
    ],
)
def test_arguments_are_checked_and_the_fix_works(value: object, message: str) -> None:
    found = refusal(value, 2)
    assert found.startswith("model.final_activation")
    assert message in found


def test_the_message_shows_what_is_allowed_in_a_line_that_works() -> None:
    message = refusal({"name": "softplus", "gamma": 1})
    assert "It takes beta (a number, default 1.0), threshold (a number, default 20.0)." in message
    assert message.endswith("Write:\n  model:\n    final_activation: softplus")


@pytest.mark.parametrize(
    ("value", "fixed"),
    [
        ({"name": "softplus", "betta": 2}, {"name": "softplus", "beta": 2.0}),
        ({"name": "softplus", "beta": "1e-3", "threshold": 7}, {"name": "softplus", "beta": 0.001, "threshold": 7.0}),
        ({"name": "softplus", "beta": "two"}, {"name": "softplus", "beta": 1.0}),
        ({"name": "softplus", "beta": 2, "betta": 3}, {"name": "softplus", "beta": 2.0}),
        ({"name": "none", "beta": 1}, "none"),
        ({"name": "bounded", "low": -5}, {"name": "bounded", "low": -5.0, "high": 70.0}),
        ({"name": "bounded", "low": 3, "high": 3}, {"name": "bounded", "low": 0.0, "high": 70.0}),
        ({"name": "softplus", "beta": 0}, {"name": "softplus", "beta": 1.0}),
        ({"name": "relu", "inplace": True}, "relu"),
        (["none", {"name": "softplus", "beta": "x"}], ["none", {"name": "softplus", "beta": 1.0}]),
        ([{"name": "softplus", "betta": 3}, "tanh"], [{"name": "softplus", "beta": 3.0}, "tanh"]),
    ],
)
def test_a_fix_keeps_what_the_user_has_written(value: object, fixed: object) -> None:
    assert mended(value, refused(value, 2)) == fixed


@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax", "unit_vector"])
def test_over_the_channels_means_two_or_more(name: str) -> None:
    resolve(name, 2).build()
    assert "acts over the channels, and model.out_channels is 1" in refusal(name, 1)
    assert "acts over the channels, and an entry of a list has one channel" in refusal([name, "none"], 2)


def test_softmax_on_one_channel_explains_why() -> None:
    message = refusal("softmax", 1)
    assert "the output would be 1 in every voxel for any input" in message
    assert "sigmoid is for a fraction" in message
    assert mended("softmax", refused("softmax")) == "sigmoid"
    assert mended("log_softmax", refused("log_softmax")) == "none"
    assert mended(["softmax", "none"], refused(["softmax", "none"], 2)) == "softmax"


def test_trying_them_out_takes_nothing_from_the_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    torch_nn.activations()
    for registration in REGISTRATIONS:
        resolve(example(registration.what), 2).build()
    assert torch.equal(torch.rand(1), expected)


def test_one_that_breaks_its_promise_without_arguments_is_to_be_replaced() -> None:
    entry = Configured(Activation("wide", nn.Identity, range=Interval(0.0), summary="for this test"), {}, "here")
    with pytest.raises(ConfigError) as caught:
        build(entry, 1)
    assert str(caught.value) == (
        "here: wide cannot be a final activation: it returns values from -8 to 8 and declares the range [0, inf). "
        "Fix: write another final activation; `p3d-regression activations` lists all."
    )


def test_nor_does_a_plugins_that_draws_when_it_is_built() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.rand(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    entry = Configured(Activation("drawing", Drawing, range=Interval(), summary="for this test"), {}, "here")
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build(entry, 1)
    assert torch.equal(torch.rand(1), expected)


def test_threads_that_ask_first_get_one_registry() -> None:
    import threading

    from p3d_regression.activations import registry as home

    home.registry.cache_clear()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    found: list[object] = []
    try:
        threads = [threading.Thread(target=lambda: found.append(registry())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_softmax_is_over_the_channels() -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(resolve("softmax", 3).build()(x).sum(dim=1), torch.ones(2, 4, 5, 6))


@pytest.mark.parametrize("registration", REGISTRATIONS, ids=lambda registration: registration.what.name)
def test_each_says_what_it_is_for_and_has_an_example(registration) -> None:
    assert 10 < len(registration.what.summary) < 100
    assert not registration.what.summary.startswith("torch.nn.")
    resolve(example(registration.what), 2).build()


def test_names_are_unique() -> None:
    names = [
        fold(name) for registration in REGISTRATIONS for name in (registration.what.name, *registration.what.aliases)
    ]
    assert len(names) == len(set(names))
    assert registry().contested() == {}


class TestWhatACheckpointKeeps:
    """The plain form: where it is equal, so is the function."""

    @pytest.mark.parametrize(
        ("one", "other", "channels"),
        [
            ("softplus", {"name": "Softplus", "beta": 1, "threshold": 20.0}, 1),
            ("softplus", ["softplus", "softplus"], 2),
            ("none", "linear", 1),
            ("swish", "silu", 1),
            (["none", {"name": "elu"}], [None, {"name": "ELU", "alpha": 1}], 2),
            ({"name": "bounded", "low": 0, "high": 1}, {"name": "bounded", "low": 0.0, "high": 1.0}, 1),
        ],
    )
    def test_equal(self, one: object, other: object, channels: int) -> None:
        assert resolve(one, channels).plain == resolve(other, channels).plain

    @pytest.mark.parametrize(
        ("one", "other", "channels"),
        [
            ("softplus", {"name": "softplus", "beta": 2}, 1),
            ("none", ["none", "softplus"], 2),
            (["softplus", "none"], ["none", "softplus"], 2),
            ("bounded low", "none", 1),
        ],
    )
    def test_different(self, one: object, other: object, channels: int) -> None:
        one = {"name": "bounded", "low": 0, "high": 1} if one == "bounded low" else one
        assert resolve(one, channels).plain != resolve(other, channels).plain

    @pytest.mark.parametrize("registration", REGISTRATIONS, ids=lambda registration: registration.what.name)
    def test_is_a_valid_value_with_nothing_left_to_default(self, registration) -> None:
        kept = resolve(example(registration.what), 2).plain
        assert resolve(kept, 2).plain == kept
        if registration.what.parameters:
            assert set(kept) == {"name", *registration.what.parameters}


def test_what_it_says_can_be_pasted_into_a_config() -> None:
    value = [{"name": "softplus", "beta": 1e-7}, {"name": "gelu", "approximate": "tanh"}, "none", "elu"]
    final = resolve(value, 4)
    assert str(final) == "[{name: softplus, beta: 1.0e-07}, {name: gelu, approximate: tanh}, none, elu]"
    assert resolve(yaml.safe_load(str(final)), 4).plain == final.plain


def test_a_hundred_channels_are_described_in_one_short_line() -> None:
    final = resolve(["sigmoid", *["softplus"] * 99, "tanh"], 101)
    assert final.describe() == (
        "channel 0 sigmoid, output range [0, 1]; channels 1 to 99 softplus, output range [0, inf); "
        "channel 100 tanh, output range [-1, 1]"
    )
    assert len(final.build().activations) == 3
    assert len(str(final)) <= 300


def test_looking_names_up_imports_nothing() -> None:
    before = set(sys.modules)
    for name in ("antigravity", "os.system", "torch.nn.ReLU", "__import__('antigravity')"):
        refusal(name)
        refusal({"name": name, "low": "__import__('antigravity')"})
    assert set(sys.modules) == before

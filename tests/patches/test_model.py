"""The builder and the constructors, in this process, on the real upstream."""

import copy
import logging
import pickle

import pytest
import torch
from pytorch3dunet.unet3d import model as upstream_model
from pytorch3dunet.unet3d.model import get_model
from torch import nn

import p3d_regression
from p3d_regression.patches import model as patched

CLASSES = ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D", "ResidualUNet2D"]


def config(name: str = "UNet3D", **more: object) -> dict[str, object]:
    return {"name": name, "in_channels": 1, "out_channels": 2, "f_maps": [8, 16], "num_groups": 4, **more}


def example_input(name: str) -> torch.Tensor:
    return torch.randn(1, 1, 16, 16) if "2D" in name else torch.randn(1, 1, 8, 16, 16)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Everything the plugin tells the user, as if nothing had been told yet."""
    monkeypatch.setattr(patched, "_warned", set())
    caplog.set_level(logging.INFO, "P3DRegression")
    return caplog


@pytest.mark.parametrize("name", CLASSES)
def test_the_output_is_the_last_convolution(name: str) -> None:
    torch.manual_seed(0)
    ours = get_model(config(name, final_activation="none"))
    torch.manual_seed(0)
    theirs = get_model(config(name, is_segmentation=False))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = example_input(name)
    for mode in (True, False):
        torch.manual_seed(1)
        output, logits = ours.train(mode)(x, return_logits=True)
        torch.manual_seed(1)
        expected = theirs.train(mode)(x)
        assert torch.equal(output, expected)
        assert torch.equal(logits, expected)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("beside", [{}, {"final_sigmoid": True}, {"final_sigmoid": False}, {"is_segmentation": True}])
def test_what_stands_beside_the_key_does_not_matter(name: str, beside: dict[str, bool]) -> None:
    assert get_model(config(name, final_activation="none", **beside)).final_activation is None


def test_without_the_key_upstream_decides() -> None:
    assert isinstance(get_model(config()).final_activation, nn.Sigmoid)
    assert isinstance(get_model(config(final_sigmoid=False)).final_activation, nn.Softmax)
    assert get_model(config(is_segmentation=False)).final_activation is None


def test_the_users_config_is_not_changed() -> None:
    ours = config(final_activation="none")
    before = copy.deepcopy(ours)
    get_model(ours)
    assert ours == before


def test_it_says_once_what_it_built(log: pytest.LogCaptureFixture) -> None:
    get_model(config(final_activation="Identity"))
    version = p3d_regression.__version__
    assert log.messages == [f"p3d-regression {version}: final activation none, output range (-inf, inf)"]


def test_a_contradiction_is_logged_once_in_one_line(log: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        get_model(config(final_activation="none", is_segmentation=True, final_sigmoid=False))
    (line,) = [record.message for record in log.records if record.levelno == logging.WARNING]
    assert "is_segmentation: true and final_sigmoid: false in the same section has no effect" in line
    assert "\n" not in line


def test_a_text_that_looks_like_a_boolean_is_shown_as_the_text_it_is(log: pytest.LogCaptureFixture) -> None:
    """Upstream takes any text for true."""
    get_model(config(final_activation="none", is_segmentation="false"))
    assert any('is_segmentation: "false" in the same section has no effect' in line for line in log.messages)


def test_the_portable_pair_is_no_contradiction(log: pytest.LogCaptureFixture) -> None:
    get_model(config(final_activation="none", is_segmentation=False, final_sigmoid=True))
    assert not [record for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "value",
    [
        "nome",
        False,
        True,
        3,
        [],
        ["none"],
        {"name": {"name": "none"}},
        {"name": "softplus", "beta": 0},
        {"name": "softplus", "gamma": 1},
        {"name": "bounded", "low": 1},
        "prelu",
    ],
)
def test_a_bad_value_stops_before_any_weight_is_allocated(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    def allocate(*args: object, **kwargs: object) -> None:
        raise AssertionError("a convolution was allocated")

    monkeypatch.setattr(nn.Conv3d, "__init__", allocate)
    with pytest.raises(p3d_regression.ConfigError, match=r"^model\.final_activation"):
        get_model(config(final_activation=value))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_does_not_swallow_the_key(name: str) -> None:
    arguments = config(name, final_activation="none")
    del arguments["name"]
    with pytest.raises(p3d_regression.ConfigError, match=r"'none' reached the class " + name) as caught:
        getattr(upstream_model, name)(**arguments)
    assert "p3d_regression.set_final_activation(model, 'none')" in str(caught.value)


def test_a_users_own_subclass_does_not_swallow_it_either() -> None:
    class Mine(upstream_model.UNet3D):
        pass

    with pytest.raises(p3d_regression.ConfigError, match="the class Mine"):
        Mine(in_channels=1, out_channels=1, final_activation="none")


class TestSetFinalActivation:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_on_a_model_built_from_its_class(self, wrapped: bool) -> None:
        unet = upstream_model.UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
        keys = list(unet.state_dict())
        model = nn.DataParallel(unet) if wrapped else unet
        assert p3d_regression.set_final_activation(model, "none") is model
        assert unet.final_activation is None
        assert list(unet.state_dict()) == keys

    def test_refuses_what_is_not_a_unet(self) -> None:
        with pytest.raises(TypeError, match="Linear is not one of pytorch3dunet's U-Nets"):
            p3d_regression.set_final_activation(nn.Linear(1, 1), "none")

    def test_refuses_a_wrapper_that_would_take_it_and_ignore_it(self) -> None:
        class Passing(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def __getattr__(self, name: str) -> object:
                try:
                    return super().__getattr__(name)
                except AttributeError:
                    return getattr(self.inner, name)

        unet = upstream_model.UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
        with pytest.raises(TypeError, match="Set the final activation on the U-Net itself, before it is wrapped"):
            p3d_regression.set_final_activation(Passing(unet), "none")

    def test_refuses_what_it_does_not_understand(self) -> None:
        unet = upstream_model.UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4)
        with pytest.raises(p3d_regression.ConfigError, match="did you mean none"):
            p3d_regression.set_final_activation(unet, "nome")
        assert isinstance(unet.final_activation, nn.Sigmoid)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_models_can_be_copied_and_pickled(duplicate) -> None:
    model = get_model(config(final_activation="none")).eval()
    x = example_input("UNet3D")
    assert torch.equal(duplicate(model)(x), model(x))


def test_a_checkpoint_loads_in_a_plain_model_and_back() -> None:
    ours, plain = get_model(config(final_activation="none")), get_model(config(is_segmentation=False))
    plain.load_state_dict(ours.state_dict())
    ours.load_state_dict(plain.state_dict())


def test_deactivating_keeps_what_others_have_wrapped_around_ours() -> None:
    ours = upstream_model.UNet3D.__init__

    def theirs(self: nn.Module, *args: object, **kwargs: object) -> None:
        ours(self, *args, **kwargs)

    upstream_model.UNet3D.__init__ = theirs
    try:
        p3d_regression.deactivate()
        assert upstream_model.UNet3D.__init__ is theirs
        upstream_model.UNet3D(in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4, final_activation="none")
    finally:
        upstream_model.UNet3D.__init__ = ours.__wrapped__
        p3d_regression.activate()
    assert upstream_model.UNet3D.__init__.__wrapped__ is ours.__wrapped__

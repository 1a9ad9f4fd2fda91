"""Outputs that follow the raw volume: forms in a config, models that have it, numbers that are measured."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.model import get_model
from torch import nn

import p3d_regression
from p3d_regression import CheckpointMismatchError, ConfigError
from p3d_regression.activations.registry import resolve
from p3d_regression.labels.linear import Pairs, RawAndLabels
from p3d_regression.losses.build import build
from p3d_regression.losses.build import resolve as resolve_loss
from p3d_regression.scaling.gradient import gradient_size
from p3d_regression.scaling.line import line_of
from p3d_regression.scaling.modules import FollowRaw
from p3d_regression.scaling.spec import Spec, parse, spec_of
from p3d_regression.scaling.target import TargetScaling, restored, scaling_of
from p3d_regression.scaling.terms import Follow, Line, Numbers

GIVEN = {"intercept": 5.0, "slope": 2.0, "scale": 3.0}
LINE = Line(5.0, 2.0, 3.0)


def unet(value: object = None, channels: int = 1, in_channels: int = 1, **more: object) -> Any:
    torch.manual_seed(0)
    scaling = {} if value is None else {"target_scaling": value}
    section = {"name": "UNet3D", "f_maps": [8, 16], "num_groups": 4, "final_activation": "none", **scaling, **more}
    return get_model({**section, "in_channels": in_channels, "out_channels": channels}).eval()


@pytest.fixture
def raw() -> torch.Tensor:
    return 100 + 20 * torch.randn(2, 1, 8, 16, 16, generator=torch.Generator().manual_seed(1))


class TestForms:
    @pytest.mark.parametrize("kind", ["patch", "residual", "Residual"])
    def test_words_are_to_be_measured(self, kind: str) -> None:
        for value in (kind, {"name": kind}, [kind]):
            spec = parse(value, 1)
            assert spec.terms == (Follow(kind.lower(), 0),)
            assert spec.is_measured
            assert spec.is_open
            assert spec.plain == kind.lower()

    def test_numbers_are_taken_as_they_are(self) -> None:
        spec = parse({"name": "patch", **GIVEN}, 1)
        assert spec.terms == (Follow("patch", 0, LINE),)
        assert not spec.is_open
        # a training still has to measure the size of the gradient
        assert spec.is_measured
        assert not parse({"name": "patch", **GIVEN, "spread": 2.0}, 1).is_measured

    @pytest.mark.parametrize(
        ("channels", "in_channels", "wanted"), [(2, 1, [0, 0]), (3, 3, [0, 1, 2]), (2, None, [0, 1])]
    )
    def test_channels_that_belong_together(self, channels: int, in_channels: int | None, wanted: list[int]) -> None:
        terms = parse("residual", channels, in_channels).terms
        assert [term.in_channel for term in terms if isinstance(term, Follow)] == wanted

    def test_a_list_has_one_for_each_channel(self) -> None:
        spec = parse(["patch", "standardize", "none", {"mean": 1, "std": 2}], 4, 1)
        assert spec.terms == (Follow("patch", 0), None, Numbers(0.0, 1.0), Numbers(1.0, 2.0))
        assert parse(spec.plain, 4, 1) == spec

    @pytest.mark.parametrize(
        ("value", "channels", "in_channels", "why"),
        [
            ("patches", 1, 1, "did you mean patch?"),
            ({"name": "mean"}, 1, 1, "'mean' is not one of patch, residual"),
            ({"name": "patch", "slope": 1}, 1, 1, "has no intercept and no scale"),
            ({"name": "patch", "spread": 2}, 1, 1, "has no intercept and no slope and no scale"),
            ({"name": "patch", **GIVEN, "scale": 0}, 1, 1, "0 is not above 0"),
            ({"name": "patch", **GIVEN, "slope": "x"}, 1, 1, "is not a number"),
            ({"name": "patch", "std": 2}, 1, 1, "has the key 'std'"),
            ("residual", 1, 2, "needs in_channel"),
            ({"name": "residual", "in_channel": -1}, 1, 2, "is not the number of a channel"),
            ({"name": "residual", "in_channel": 2}, 1, 2, "channels start at 0"),
        ],
    )
    def test_what_is_not_understood(self, value: object, channels: int, in_channels: int, why: str) -> None:
        section = {"target_scaling": value, "in_channels": in_channels}
        with pytest.raises(ConfigError, match=r"^model\.target_scaling") as caught:
            spec_of(section, channels)
        assert why in str(caught.value)
        config = {"model": dict(section)}
        spec_of(caught.value.found.fix.applied_to(config)["model"], channels)

    @pytest.mark.parametrize("final", ["softplus", "sigmoid", "exp", {"name": "bounded", "low": 0, "high": 5}])
    def test_bounds_would_move(self, final: object) -> None:
        with pytest.raises(ConfigError, match="the bound would move") as caught:
            scaling_of(parse({"name": "patch", **GIVEN}, 1), resolve(final, 1))
        config = {"model": {"final_activation": final, "target_scaling": "patch"}}
        fixed = caught.value.found.fix.applied_to(config)["model"]
        spec = spec_of(fixed, 1)
        scaling_of(spec or Spec((Numbers(0.0, 1.0),)), resolve(final, 1), [Numbers(1.0, 2.0)])

    def test_a_checkpoint_holds_all_of_it(self) -> None:
        terms = (Follow("residual", 0, Line(1.5, 2.5, 0.1, 3.0)), Numbers(1.0, 2.0))
        scaling = TargetScaling(terms)
        again = restored(scaling.plain, resolve("none", 2))
        assert again == scaling
        assert isinstance(again.terms[0], Follow)
        assert again.terms[0].line is not None
        assert again.terms[0].line.spread == 3.0

    def test_in_words(self) -> None:
        scaling = TargetScaling(
            (Follow("patch", 0, LINE), Follow("residual", 1, Line(0.0, 1.0, 0.5)), Numbers(0.0, 4.0))
        )
        assert scaling.describe(resolve(["none"] * 3, 3)) == (
            "channel 0 = 5 + 2 * mean(raw patch) + 3 * std(raw patch) * x; "
            "channel 1 = 1 * raw channel 1 + 0.5 * std(raw channel 1 patch) * x; channel 2 = 4 * x"
        )


class TestModels:
    @pytest.mark.parametrize("kind", ["patch", "residual"])
    def test_is_the_formula(self, kind: str, raw: torch.Tensor) -> None:
        model, plain = unet({"name": kind, **GIVEN}), unet()
        std = raw.std((1, 2, 3, 4), correction=0, keepdim=True)
        level = raw if kind == "residual" else raw.mean((1, 2, 3, 4), keepdim=True)
        torch.testing.assert_close(model(raw), 5 + 2 * level + 3 * std * plain(raw))
        torch.testing.assert_close(model.train()(x=raw).detach(), model.eval()(raw).detach())
        outputs = model(raw, return_logits=True)
        assert torch.equal(outputs[0], outputs[1])
        assert model.state_dict().keys() == plain.state_dict().keys()

    @pytest.mark.parametrize("kind", ["patch", "residual"])
    def test_follows_another_unit_of_the_raw_volume(self, kind: str, raw: torch.Tensor) -> None:
        model = unet({"name": kind, "intercept": 0, "slope": 1, "scale": 0.5})
        with torch.no_grad():
            found, wanted = model(3 * raw + 500), 3 * model(raw) + 500
        assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.max() - wanted.min())

    @pytest.mark.parametrize("kind", ["patch", "residual"])
    def test_constant_patches_are_finite_and_right(self, kind: str) -> None:
        found = unet({"name": kind, **GIVEN})(torch.full((1, 1, 8, 16, 16), 7.0))
        torch.testing.assert_close(found, torch.full_like(found, 5 + 2 * 7.0))
        found.sum().backward()

    def test_each_patch_has_its_own_level(self, raw: torch.Tensor) -> None:
        model = unet({"name": "patch", **GIVEN})
        torch.testing.assert_close(model(raw)[:1], model(raw[:1]))

    def test_channels_by_name(self) -> None:
        raw = torch.randn(1, 2, 8, 16, 16)
        value = ["none", {"name": "residual", **GIVEN, "in_channel": 1}, {"mean": 1, "std": 2}]
        found, plain = unet(value, 3, 2)(raw), unet(None, 3, 2)(raw)
        torch.testing.assert_close(found[:, 0], plain[:, 0])
        torch.testing.assert_close(found[:, 1], 5 + 2 * raw[:, 1] + 3 * raw[:, 1].std(correction=0) * plain[:, 1])
        torch.testing.assert_close(found[:, 2], 1 + 2 * plain[:, 2])

    def test_single_planes(self) -> None:
        raw = torch.randn(2, 1, 16, 16)
        found, plain = unet({"name": "residual", **GIVEN}, name="UNet2D")(raw), unet(name="UNet2D")(raw)
        std = raw.std((1, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(found, 5 + 2 * raw + 3 * std * plain)

    def test_can_be_copied_pickled_wrapped_and_moved(self, raw: torch.Tensor) -> None:
        model = unet({"name": "residual", **GIVEN})
        wanted = model(raw)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), nn.DataParallel(model)):
            assert torch.equal(other(raw), wanted)
        assert isinstance(model.final_conv.target_scaling, FollowRaw)
        half = copy.deepcopy(model).bfloat16()(raw.bfloat16())
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, wanted, rtol=0.05, atol=5)

    def test_compiled_and_exported(self, raw: torch.Tensor) -> None:
        model = unet({"name": "patch", **GIVEN})
        with torch.no_grad():
            wanted = model(raw)
            program = torch.export.export(model, (raw,))
            torch.testing.assert_close(program.module()(raw), wanted)
            compiled = torch.compile(model, backend="eager")
            torch.testing.assert_close(compiled(raw), wanted)

    def test_from_python(self, raw: torch.Tensor) -> None:
        model = unet()
        plain = model(raw)
        p3d_regression.set_target_scaling(model, {"name": "residual", **GIVEN})
        assert not torch.equal(model(raw), plain)
        p3d_regression.set_target_scaling(model, "none")
        assert torch.equal(model(raw), plain)
        assert not model._forward_hooks
        with pytest.raises(ConfigError, match="only a training measures"):
            p3d_regression.set_target_scaling(model, "residual")

    def test_a_checkpoint_brings_the_numbers(self, raw: torch.Tensor) -> None:
        trained = unet({"name": "residual", **GIVEN, "spread": 4})
        for section in ({}, {"target_scaling": "residual"}, {"target_scaling": {"name": "residual", **GIVEN}}):
            model = unet(**section)
            model.load_state_dict(trained.state_dict())
            assert torch.equal(model(raw), trained(raw))
        for other in ("patch", "standardize", "none", {"name": "residual", **GIVEN, "slope": 4}):
            with pytest.raises(CheckpointMismatchError, match=r"model\.target_scaling"):
                unet(other).load_state_dict(trained.state_dict())
        with pytest.raises(CheckpointMismatchError):
            unet("residual").load_state_dict(unet({"mean": 1, "std": 2}).state_dict())


def shown(raw: np.ndarray, label: np.ndarray, *, unit: float = 1.0, offset: float = 0.0) -> Line:
    """The numbers of patches of shape (N, D, H, W); the file holds ``offset + unit * raw``."""
    found, stored = RawAndLabels(), Pairs()
    for one, other in zip(raw, label, strict=True):
        found.add(one, other)
        stored.merge(Pairs.of(one, offset + unit * one))
    line = line_of(Follow("residual", 0), found, stored, "x").line
    assert line is not None
    return line


class TestMeasured:
    draw = np.random.default_rng(0)
    true = 500 + 100 * draw.normal(size=(20, 4, 16, 16)) + 200 * draw.normal(size=(20, 1, 1, 1))
    noise = draw.normal(size=true.shape)

    def test_labels_in_the_units_of_the_raw_volume(self) -> None:
        line = shown(self.true + 60 * self.noise, self.true)
        assert (line.intercept, line.slope) == (0.0, 1.0)
        assert line.scale * (line.spread or 0) == pytest.approx(60, rel=0.01)

    def test_labels_in_the_units_of_the_file(self) -> None:
        line = shown((self.true + 60 * self.noise - 500) / 200, self.true, unit=200, offset=500)
        assert (line.intercept, line.slope) == (pytest.approx(500), pytest.approx(200))

    def test_labels_proportional_to_the_raw_volume(self) -> None:
        raw = np.abs(self.true)
        line = shown(raw + 1 * self.noise.clip(-1, 1), 0.02 * raw)
        assert line.intercept == 0
        assert line.slope == pytest.approx(0.02, rel=0.01)

    def test_other_lines_are_those_of_the_means_of_patches(self) -> None:
        """Noise makes that of the least squares too flat: -0.42 in place of -0.5."""
        line = shown(self.true + 100 * self.noise, 3 - 0.5 * self.true)
        assert line.slope == pytest.approx(-0.5, rel=0.01)

    def test_without_levels_they_are_those_of_the_least_squares(self) -> None:
        true = self.true - self.true.mean((1, 2, 3), keepdims=True)
        raw = true + 30 * self.noise
        line = shown(raw, 3 - 0.5 * true)
        slope, intercept = np.polyfit(raw.ravel(), (3 - 0.5 * true).ravel(), 1)
        assert line.slope == pytest.approx(slope, rel=1e-6)
        assert line.intercept == pytest.approx(intercept, rel=1e-6)

    def test_labels_that_do_not_follow_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"explains only 0\.\d%"):
            shown(self.noise, self.true)
        with pytest.raises(ConfigError, match="are constant"):
            shown(np.ones_like(self.true), self.true)

    def test_merged_pairs_are_those_of_all(self) -> None:
        x, y = self.true.ravel(), (0.3 * self.true + self.noise).ravel()
        whole, merged = Pairs.of(x, y), Pairs()
        for part in np.array_split(np.arange(x.size), 7):
            merged.merge(Pairs.of(x[part], y[part]))
        for name in ("count", "x", "y", "xx", "yy", "xy"):
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9)
        assert merged.explained == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
        assert merged.error(2.0, 0.5) == pytest.approx(np.mean((y - 2 - 0.5 * x) ** 2))

    def test_what_is_left_of_a_patch(self) -> None:
        found = RawAndLabels()
        mask = self.noise > 0
        for raw, label, counts in zip(self.true, self.true**2, mask, strict=True):
            found.add(raw, label, counts)
        means = self.true.mean((1, 2, 3), keepdims=True)
        wanted = np.sqrt(np.mean((self.true**2 - 7 - 900 * means)[mask] ** 2))
        assert found.left(7, 900, by_voxel=False) == pytest.approx(wanted)
        wanted = np.sqrt(np.mean((self.true**2 - 7 - 900 * self.true)[mask] ** 2))
        assert found.left(7, 900, by_voxel=True) == pytest.approx(wanted)
        assert found.spread == pytest.approx(math.sqrt(np.mean(self.true.var((1, 2, 3)))))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_gradient_is_that_of_standardised_labels(unit: float) -> None:
    loss = resolve_loss({"name": "MSELoss"}, 1)
    scaling = TargetScaling((Follow("residual", 0, Line(5.0, unit, 0.5 * unit, 4.0)),))
    found = gradient_size(build(loss, None), scaling, resolve("none", 1).ranges, [(0, False)], loss=loss)
    assert found is not None
    assert found.factor == pytest.approx(1 / (0.5 * unit * 4.0) ** 2, rel=1e-5)

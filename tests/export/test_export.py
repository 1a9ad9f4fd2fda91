"""A checkpoint in another form, and every reason not to write it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

import p3d_regression
from p3d_regression.cli.main import main
from support.checkpoints import Trained, section


def in_plain_upstream(result: Result, out: Path, x: torch.Tensor) -> torch.Tensor:
    """What an upstream that knows nothing of this project makes of the file and the printed section."""
    p3d_regression.deactivate()
    try:
        from pytorch3dunet.unet3d import model as module
        from pytorch3dunet.unet3d.utils import load_checkpoint

        unet = module.get_model(yaml.safe_load(result.stdout)["model"])
        load_checkpoint(str(out), unet)
        with torch.no_grad():
            return unet.eval()(x)
    finally:
        p3d_regression.activate()


class TestPlain:
    @pytest.mark.parametrize(
        "model",
        [
            {"final_activation": "none", "target_scaling": {"mean": 17_000, "std": 13_000}},
            {"final_activation": "none", "target_scaling": {"mean": 0.001, "std": 1.0e-5}, "name": "ResidualUNet3D"},
            {"channels": 2, "final_activation": "none", "target_scaling": {"mean": [5, -3], "std": [2, 0.25]}},
            {"channels": 2, "final_activation": ["none", "none"], "target_scaling": ["none", {"mean": 1, "std": 9}]},
            {"final_activation": "none", "is_segmentation": False},
            {"final_activation": "none", "final_sigmoid": False},
            {"final_activation": "sigmoid"},
            {"channels": 3, "final_activation": "softmax"},
        ],
    )
    def test_plain_upstream_computes_the_same(self, model: dict[str, Any], tmp_path: Path) -> None:
        trained, out = Trained(tmp_path, **model), tmp_path / "plain.pytorch"
        result = trained.export(out)
        assert result.exit_code == 0, result.output
        x, expected = trained.output()
        torch.testing.assert_close(in_plain_upstream(result, out, x), expected, rtol=1e-5, atol=1e-6 * expected.std())
        assert "final_activation" not in result.stdout
        assert "target_scaling" not in result.stdout

    def test_nothing_of_this_project_is_left_in_it(self, tmp_path: Path) -> None:
        trained = Trained(tmp_path, final_activation="none", target_scaling={"mean": 5, "std": 2})
        out = tmp_path / "plain.pytorch"
        assert trained.export(out).exit_code == 0
        assert b"p3d" not in out.read_bytes()
        assert b"target_scaling" not in out.read_bytes()
        state = torch.load(out, weights_only=True)
        # what the optimizer remembers belongs to the weights before
        assert state.keys() == {"num_iterations", "model_state_dict"}
        before = torch.load(trained.path, weights_only=True)["model_state_dict"]
        changed = {key for key, value in state["model_state_dict"].items() if not torch.equal(value, before[key])}
        assert changed == {"final_conv.weight", "final_conv.bias"}
        torch.testing.assert_close(state["model_state_dict"]["final_conv.weight"], 2 * before["final_conv.weight"])
        assert not list(tmp_path.glob(".*"))

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            ({"final_activation": "softplus"}, "cannot express the final activation softplus"),
            ({"final_activation": "softplus", "target_scaling": {"mean": 0, "std": 3}}, "final activation softplus"),
            ({"final_activation": {"name": "bounded", "low": 0, "high": 70}}, "{name: bounded, low: 0.0, high: 70.0}"),
            ({"channels": 2, "final_activation": ["sigmoid", "none"]}, "cannot express an activation per channel"),
        ],
    )
    def test_what_it_cannot_express_is_refused_with_the_reason(
        self, model: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        out = tmp_path / "plain.pytorch"
        result = Trained(tmp_path, **model).export(out)
        assert result.exit_code == 1
        assert reason in result.stderr
        assert "--format onnx" in result.stderr
        assert not out.exists()

    def test_a_plain_checkpoint_is_one_already(self, tmp_path: Path) -> None:
        result = Trained(tmp_path, is_segmentation=False).export(tmp_path / "out.pytorch")
        assert result.exit_code == 1
        assert "is a plain checkpoint already: pytorch-3dunet predicts with it as it is" in result.stderr

    def test_a_head_that_was_altered_cannot_be_folded_into(self, tmp_path: Path) -> None:
        def normalised(state: dict[str, Any]) -> None:
            state["final_conv.parametrizations.weight.original0"] = state.pop("final_conv.weight")

        result = Trained(
            tmp_path, change=normalised, final_activation="none", target_scaling={"mean": 5, "std": 2}
        ).export(tmp_path / "out.pytorch")
        assert result.exit_code == 1
        assert "does not fit the section model" in result.stderr

    def test_the_config_may_be_a_prediction_config_that_says_nothing(self, tmp_path: Path) -> None:
        trained = Trained(tmp_path, final_activation="none", target_scaling={"mean": 5, "std": 2})
        config = tmp_path / "predict.yml"
        config.write_text(yaml.safe_dump({"model": section(), "model_path": "x"}))
        out = tmp_path / "plain.pytorch"
        result = trained.export(out, "--config", config)
        assert result.exit_code == 0, result.output
        assert str(config) in result.stderr
        assert yaml.safe_load(result.stdout)["model"] == section(is_segmentation=False)

    def test_it_does_not_guess_which_network_it_was(self, tmp_path: Path) -> None:
        """Weights fit into networks that compute something else."""
        trained = Trained(tmp_path, final_activation="none", target_scaling={"mean": 5, "std": 2})
        logs = trained.path.parent / "logs" / "2027"
        logs.mkdir()
        same = {**trained.section, "target_scaling": "standardize"}
        (logs / "again.yml").write_text(yaml.safe_dump({"model": same, "trainer": {"resume": None}}))
        assert trained.export(tmp_path / "out.pytorch").exit_code == 0
        other = {**same, "num_groups": 8}
        (logs / "other.yml").write_text(yaml.safe_dump({"model": other, "trainer": {"resume": None}}))
        result = trained.export(tmp_path / "again.pytorch")
        assert result.exit_code == 1
        assert "have different networks: name the training or prediction config" in result.stderr
        assert not (tmp_path / "again.pytorch").exists()

    def test_each_channel_is_compared_in_its_own_unit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from p3d_regression.export import portable

        folded = portable._folded

        def without_the_second(weights: Any, scaling: Any) -> Any:
            found = folded(weights, scaling)
            found["final_conv.weight"][1] = 0
            return found

        monkeypatch.setattr(portable, "_folded", without_the_second)
        trained = Trained(
            tmp_path, channels=2, final_activation="none", target_scaling={"mean": 0, "std": [1000, 0.001]}
        )
        assert "does not compute what the checkpoint does" in trained.export(tmp_path / "out.pytorch").stderr


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path, final_activation="none", target_scaling={"mean": 5, "std": 2})


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["nonsuch.pytorch", "out.pytorch"], "nonsuch.pytorch does not exist"),
            (["no_checkpoint.pytorch", "out.pytorch"], "cannot be read as a checkpoint"),
            (["tensor.pytorch", "out.pytorch", "--config", "train.yml"], "it has no model_state_dict"),
            (["best_checkpoint.pytorch", "nonsuch/out.pytorch"], "nonsuch is not a directory"),
            (
                ["moved.pytorch", "out.pytorch"],
                "name the training or prediction config of the checkpoint with --config",
            ),
            (["moved.pytorch", "out.pytorch", "--config", "empty.yml"], "empty.yml has no section model"),
            (["moved.pytorch", "out.pytorch", "--config", "no.yml"], "no.yml is not YAML"),
            (["moved.pytorch", "out.pytorch", "--config", "other.yml"], "does not fit the section model of"),
            (["moved.pytorch", "out.pytorch", "--config", "scaled.yml"], "the config has {mean: 1.0, std: 1.0e-06}"),
            (["moved.pytorch", "out.pytorch", "--config", "misspelled.yml"], "did you mean target_scaling?"),
        ],
    )
    def test_what_does_not_fit_says_so(self, trained: Trained, tmp_path: Path, arguments: list[str], why: str) -> None:
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        (moved / "moved.pytorch").write_bytes(trained.path.read_bytes())
        (moved / "no_checkpoint.pytorch").write_text("text")
        torch.save(torch.zeros(1), moved / "tensor.pytorch")
        scaled = {"final_activation": "none", "target_scaling": {"mean": 1, "std": 1.0e-6}}
        for name, model in {
            "train.yml": trained.section,
            "empty.yml": None,
            "other.yml": section(f_maps=[16, 32]),
            "scaled.yml": section(**scaled),
            "misspelled.yml": section(target_scalling="standardize"),
        }.items():
            (moved / name).write_text(yaml.safe_dump({"model": model}))
        (moved / "no.yml").write_text("model: [")
        (moved / "best_checkpoint.pytorch").write_bytes(trained.path.read_bytes())
        before = sorted(moved.iterdir())
        resolved = [str(moved / a) if not a.startswith("--") else a for a in arguments]
        if why == "cannot be read as a checkpoint":
            resolved += ["--config", str(moved / "train.yml")]
        result = CliRunner().invoke(main, ["export", *resolved])
        assert result.exit_code == 1, result.output
        assert why in result.stderr
        assert sorted(moved.iterdir()) == before


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def of_two_channels(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(
        tmp_path_factory.mktemp("graphs"),
        channels=2,
        final_activation=["softplus", "none"],
        target_scaling={"mean": [0, 500], "std": [13, 40]},
    )


def test_a_checkpoint_executes_no_code(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where torch is told to unpickle whatever it finds."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model_state_dict": Touch(tmp_path / "executed")}, trained.path)
    result = trained.export(tmp_path / "out.pytorch")
    assert result.exit_code == 1
    assert "cannot be read as a checkpoint" in result.stderr
    assert not (tmp_path / "executed").exists()


class TestGraphs:
    def test_onnx(self, of_two_channels: Trained, tmp_path: Path) -> None:
        import onnxruntime

        out = tmp_path / "model.onnx"
        result = of_two_channels.export(out)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        for shape in ((1, 1, 16, 32, 32), (3, 1, 9, 33, 40)):
            x, expected = of_two_channels.output(shape)
            (found,) = session.run(["prediction"], {"raw": x.numpy()})
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
        assert not [path for path in tmp_path.iterdir() if path != out]

    def test_pt2(self, of_two_channels: Trained, tmp_path: Path) -> None:
        out = tmp_path / "model.pt2"
        assert of_two_channels.export(out).exit_code == 0
        module = torch.export.load(out).module()
        for shape in ((1, 1, 16, 32, 32), (3, 1, 9, 33, 40)):
            x, expected = of_two_channels.output(shape)
            torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)

    def test_of_two_dimensions(self, tmp_path: Path) -> None:
        trained = Trained(tmp_path, name="UNet2D", final_activation="softplus", target_scaling={"mean": 0, "std": 9})
        assert trained.export(tmp_path / "model.pt2").exit_code == 0
        x, expected = trained.output((2, 1, 32, 48))
        module = torch.export.load(tmp_path / "model.pt2").module()
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)

    def test_a_missing_package_is_named(
        self, of_two_channels: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("p3d_regression.export.graph.find_spec", lambda name: None)
        result = of_two_channels.export(tmp_path / "model.onnx")
        assert result.exit_code == 1
        assert "needs onnx and onnxscript and onnxruntime: pip install 'p3d-regression[export]'" in result.stderr

    @pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
    def test_torch_2_5_is_refused(
        self, of_two_channels: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """A stand-in for it: of the hints for dimensions it has AUTO and STATIC only."""
        monkeypatch.delattr(torch.export.Dim, "DYNAMIC")
        result = of_two_channels.export(tmp_path / name)
        assert result.exit_code == 1
        assert f"--format {name[6:]} needs torch 2.6 or newer" in result.stderr

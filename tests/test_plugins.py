"""Third-party plugins: the example, and small packages written here, found through their entry points."""

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from support.doctor import ask_doctor
from support.environments import ROOT, Environment, Programs, build_wheel, install_to
from support.lab import Job, Lab
from support.plugins import write_plugin
from support.preforked import Preforked

BUILD = """
    import p3d_regression
    from pytorch3dunet.unet3d.model import get_model

    def build(value):
        return get_model(dict(name="UNet3D", in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4,
                              final_activation=value))
"""

SQUARE = """
    import torch
    from p3d_regression import Activation, Interval, hookimpl

    class Square(torch.nn.Module):
        def forward(self, x):
            return x * x

    @hookimpl
    def p3d_activations():
        return [Activation("square", Square, range=Interval(0.0), summary="squared")]
"""


@pytest.fixture
def environment(forked: Preforked, tmp_path: Path) -> Preforked:
    return forked.having(PYTHONPATH=str(tmp_path))


def run(environment: Programs, code: str) -> subprocess.CompletedProcess[str]:
    return environment.python_code(textwrap.dedent(BUILD) + textwrap.dedent(code))


def check(environment: Programs, code: str) -> str:
    result = run(environment, code)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    """The error, without the lines of its example."""
    return result.stderr[result.stderr.rindex("ConfigError: ") :]


def test_a_loss_that_another_package_has_already_is_an_error_when_it_is_used(
    environment: Preforked, tmp_path: Path
) -> None:
    source = """
        import torch
        from p3d_regression import Loss, Metric, hookimpl

        @hookimpl
        def p3d_losses():
            return [Loss("HuberLoss", torch.nn.L1Loss, summary="mine")]

        @hookimpl
        def p3d_metrics():
            return ["nonsense"]
    """
    write_plugin(tmp_path, "greedy", source)
    code = """
        from pytorch3dunet.unet3d.losses import get_loss_criterion
        from pytorch3dunet.unet3d.metrics import get_evaluation_metric
        print(get_loss_criterion({"loss": {"name": "L1_Loss"}, "device": "cpu"}))
        print(get_evaluation_metric({"eval_metric": {"name": "MAE"}}))
        get_loss_criterion({"loss": {"name": "HuberLoss"}, "device": "cpu"})
    """
    result = run(environment, code)
    assert "VoxelMean" in result.stdout
    assert "MeanAbsoluteError" in result.stdout
    assert "the plugin greedy (greedy 1.0) is not loaded: TypeError: p3d_metrics returned 'nonsense'" in result.stderr
    assert "'HuberLoss' is registered by torch.nn and greedy 1.0" in last_line(result)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where the example is installed."""
    site = tmp_path_factory.mktemp("site")
    wheel = build_wheel(ROOT / "examples" / "p3d-squareplus", tmp_path_factory.mktemp("wheel"))
    install_to(site, wheel)
    return site


@pytest.fixture
def example(forked: Preforked, site: Path) -> Preforked:
    """The environment with the example installed."""
    return forked.having(PYTHONPATH=str(site))


class TestTheExample:
    def test_trains_and_predicts_from_a_config(self, example: Preforked, forked: Preforked, tmp_path: Path) -> None:
        lab = Lab(tmp_path, {"example": example})
        model = {"final_activation": {"name": "squareplus", "b": 2}}
        trained = lab.do(Job("example", model, predict={}, labels=(0.0, 20.0)))
        assert trained.prediction.min() >= 0
        assert trained.prediction.max() > 1
        assert "final activation {name: squareplus, b: 2.0}, output range [0, inf)" in trained.train_log
        # elsewhere, where the plugin is missing, nothing is written under another function
        predictions = next((trained.directory / "predictions").iterdir())
        predictions.unlink()
        result = forked.run("predict3dunet", "--config", trained.directory / "predict3dunet.yml")
        assert result.returncode != 0
        assert "CheckpointMismatchError: model.final_activation: the checkpoint was trained with" in result.stderr
        assert "install p3d-squareplus 0.1.0" in result.stderr
        assert not predictions.exists()

    def test_is_listed(self, example: Preforked, plugin: Environment, site: Path) -> None:
        rows = json.loads(example.run("p3d-regression", "activations", "--json").stdout)
        (row,) = [row for row in rows if row["name"] == "squareplus"]
        assert (row["origin"], row["distribution"]) == ("plugin", "p3d-squareplus 0.1.0")
        assert row["range"] == [0.0, None]
        # a fresh interpreter, and the one that it starts
        fresh = plugin.having(PYTHONPATH=str(site))
        found = json.loads(fresh.run("p3d-regression", "doctor", "--json").stdout)
        assert found["active"] is True
        assert found["plugins"] == [
            {"name": "squareplus", "distribution": "p3d-squareplus 0.1.0", "state": "loaded", "detail": "squareplus"}
        ]

    def test_doctor_for_a_person(self, example: Preforked) -> None:
        assert "plugin loaded   p3d-squareplus 0.1.0  (squareplus)" in ask_doctor(example).stdout

    def test_is_short(self) -> None:
        source = (ROOT / "examples" / "p3d-squareplus" / "src" / "p3d_squareplus.py").read_text()
        assert len([line for line in source.splitlines() if line.strip()]) < 20

    def test_blocked(self, example: Preforked) -> None:
        for name in ("squareplus", "p3d-squareplus", "other, P3D_Squareplus"):
            result = run(example.having(P3D_REGRESSION_BLOCK_PLUGINS=name), "build('squareplus')")
            assert result.returncode != 0
            message = last_line(result)
            assert "'squareplus' is not a known final activation" in message
            assert (
                f"not loaded: squareplus (p3d-squareplus 0.1.0) (blocked: P3D_REGRESSION_BLOCK_PLUGINS={name})"
                in message
            )


def test_plugins_load_when_the_key_is_used_and_not_before(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", "print('loaded')\n" + textwrap.dedent(SQUARE))
    silent = """
        get_model(dict(name="UNet3D", in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4))
    """
    assert "loaded" not in check(environment, silent)
    assert check(environment, "build('square'); build('none')").count("loaded") == 1


def test_two_plugins_claim_one_name(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE)
    write_plugin(tmp_path, "other_squares", SQUARE)
    message = last_line(run(environment, "build('square')"))
    assert "'square' is registered by other-squares 1.0 and p3d-square 1.0" in message
    assert "P3D_REGRESSION_BLOCK_PLUGINS" in message
    # everything else works, and either of them does without the other
    check(environment, "build('none')")
    check(environment.having(P3D_REGRESSION_BLOCK_PLUGINS="p3d_square"), "build('square')")
    found = json.loads(ask_doctor(environment, "--json").stdout)
    assert found["contested"] == {"square": ["other-squares 1.0", "p3d-square 1.0"]}
    assert "contested       square  (registered by" in ask_doctor(environment).stdout


def test_a_plugin_does_not_take_a_name_of_torch_in_silence(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE.replace('"square"', '"soft_plus"'))
    message = last_line(run(environment, "build('softplus')"))
    assert "'softplus' is registered by torch.nn and p3d-square 1.0" in message


FAILURES = {
    "does not import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exits": ("raise SystemExit('no licence')", "SystemExit: no licence"),
    "raises when asked": (
        "from p3d_regression import hookimpl\n@hookimpl\ndef p3d_activations():\n    raise OSError('no disk')",
        "OSError: no disk",
    ),
    "returns something else": (
        "from p3d_regression import hookimpl\n@hookimpl\ndef p3d_activations():\n    return ['square']",
        "TypeError: p3d_activations returned 'square', which is not an Activation",
    ),
    "has a misspelled hook": (
        "from p3d_regression import hookimpl\n@hookimpl\ndef p3d_activation():\n    return []",
        "TypeError: it implements unknown hooks: p3d_activation; the hooks are p3d_activations",
    ),
    "has no hook": ("", "TypeError: it implements none of this project's hooks; the hooks are p3d_activations"),
    "has an alias of letters": (
        SQUARE.replace('summary="squared"', 'summary="squared", aliases=("zoom")'),
        "final activation square: aliases are a tuple of names, not the text 'zoom'",
    ),
    "has a default that no checkpoint can keep": (
        SQUARE.replace("def forward", "def __init__(self, cap: float = float('inf')): pass\n        def forward"),
        "final activation square, argument cap: its default inf, which a checkpoint has to hold, is not a number",
    ),
    "has a bad name": (
        SQUARE.replace('"square"', '"My Square"'),
        "final activation 'My Square': a name consists of lower",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_broken_plugin_costs_one_warning(environment: Preforked, tmp_path: Path, failure: str) -> None:
    source, reason = FAILURES[failure]
    write_plugin(tmp_path, "broken", source)
    write_plugin(tmp_path, "p3d_square", SQUARE)
    # even where warnings are errors
    result = run(environment.having(PYTHONWARNINGS="error::UserWarning"), "build('square'); build('none'); build('x')")
    warning = f"p3d-regression: the plugin broken (broken 1.0) is not loaded: {reason}"
    assert result.stderr.count("p3d-regression: the plugin") == 1
    assert warning in result.stderr.replace("ValueError: ", "")
    # and what may have been its names say so
    message = last_line(result)
    assert "'x' is not a known final activation" in message
    assert "It may belong to a plugin that is not loaded: broken (broken 1.0) (failed: " in message


def test_an_alias_that_equals_the_name_is_no_conflict(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE.replace('summary="squared"', 'summary="squared", aliases=("Squ_are",)'))
    check(environment, "build('square')")


def test_a_plugin_cannot_pass_itself_off_as_torch(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE.replace('"square"', '"elu"'))
    (tmp_path / "p3d_square-1.0.dist-info" / "entry_points.txt").write_text("[p3d_regression]\ntorch.nn = p3d_square\n")
    assert "'elu' is registered by torch.nn and p3d-square 1.0" in last_line(run(environment, "build('elu')"))


def test_a_hook_of_a_newer_version_may_be_optional(environment: Preforked, tmp_path: Path) -> None:
    newer = "\n    @hookimpl(optionalhook=True)\n    def p3d_of_tomorrow():\n        return []\n"
    write_plugin(tmp_path, "p3d_square", SQUARE + newer)
    check(environment, "build('square')")


def test_the_table_outlives_a_plugin_with_a_range_that_is_none(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE.replace("Interval(0.0)", "lambda arguments, channels: (0, 1)"))
    rows = json.loads(environment.run("p3d-regression", "activations", "--json").stdout)
    (row,) = [row for row in rows if row["name"] == "square"]
    assert row["range_text"] == "unknown"
    assert "its range is (0, 1), not an Interval" in row["use"]
    assert "cannot be computed: its range is (0, 1)" in last_line(run(environment, "build('square')"))


def test_a_newer_version_of_a_plugin_is_a_warning(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "p3d_square", SQUARE)
    code = """
        trained = build('square')
        state = trained.state_dict()
        state._metadata['']['p3d_regression']['plugins'] = ['p3d-square 0.9']
        trained.load_state_dict(state)
    """
    printed = check(environment, code)
    assert "trained with square of p3d-square 0.9, here it is p3d-square 1.0" in printed


def test_doctor_names_a_broken_plugin_and_still_works(environment: Preforked, tmp_path: Path) -> None:
    write_plugin(tmp_path, "broken", "import no_such_module")
    result = ask_doctor(environment, "--json")
    assert result.returncode == 0, result.stdout
    (found,) = json.loads(result.stdout)["plugins"]
    assert found["state"] == "failed"
    assert found["detail"] == "ModuleNotFoundError: No module named 'no_such_module'"


OTHERS = """
    class Reciprocal(torch.nn.Module):
        def forward(self, x):
            return 1 / x

    class Complex(torch.nn.Module):
        def forward(self, x):
            return x + 1j

    class Twice(torch.nn.Module):
        def forward(self, x):
            return x, x

    class RandomScale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = float(torch.rand(1))

        def forward(self, x):
            return self.scale * x * x
"""

BROKEN_PROMISES = {
    "learnable weights": ("torch.nn.PReLU", "it has learnable weights or buffers"),
    "another shape": (
        "torch.nn.Flatten",
        "it returns shape (1, 17) of torch.float32 for shape (1, 1, 17, 1, 1) of torch.float32",
    ),
    "another type": ("Complex", "it returns shape (1, 1, 17, 1, 1) of torch.complex64 for shape"),
    "a tuple": ("Twice", "it returns tuple for shape"),
    "random at birth": ("RandomScale", "it is random, so training and prediction would use different functions"),
    "another range": ("torch.nn.Identity", "it returns values from -8 to 8 and declares the range [0, inf)"),
    "random in training": ("torch.nn.Dropout", "it is random, so training and prediction would"),
    "infinity": ("Reciprocal", "it returns inf for 0"),
    "no module": ("lambda: 3", "'int' object has no attribute 'train'"),
}


@pytest.mark.parametrize("promise", BROKEN_PROMISES)
def test_a_promise_that_is_broken_stops_before_training(environment: Preforked, tmp_path: Path, promise: str) -> None:
    build, reason = BROKEN_PROMISES[promise]
    source = SQUARE.replace(", Square,", f", {build},").replace("    @hookimpl", f"{OTHERS}\n    @hookimpl")
    write_plugin(tmp_path, "p3d_square", source)
    message = last_line(run(environment, "build('square')"))
    assert message.startswith("ConfigError: model.final_activation: square cannot be")
    assert reason in message

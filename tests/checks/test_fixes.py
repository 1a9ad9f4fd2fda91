"""Every fix works: applied to the config, its finding is gone and no other error is there.

The configs are those that the tests know: the examples of the rules, sections of another kind, configs as the
documentation of pytorch-3dunet shows them, the project's own example, those of the demo, and any config at all.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks import test_broken_input as broken_input
from checks import test_upstreams_examples as upstreams_examples
from p3d_regression.checks.registry import rules
from p3d_regression.checks.rule import Finding, Rule
from p3d_regression.checks.run import Report, check_file
from p3d_regression.demo.jobs import JOBS
from p3d_regression.demo.training import Run
from support.checks import Silent, merged
from support.environments import ROOT
from support.lab import prediction_config, training_config, write_config
from support.rules import OWN, write_example, write_rule_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rule_data(tmp_path_factory.mktemp("fixes"))


def wrong_fixes(path: Path, *, with_data: bool) -> list[str]:
    """What is wrong with the fixes of the findings in a config file."""
    config = yaml.load(path.read_text(), yaml.CSafeLoader)
    before = check(path, with_data=with_data)
    wrong = []
    for finding in before.findings:
        if not finding.found.fix.changes:
            wrong += [] if finding.found.fix.advice else [f"says nothing: {finding}"]
            continue
        fixed = finding.found.fix.applied_to(config)
        after = check(write_config(path.with_name("fixed.yml"), fixed), with_data=with_data)
        wrong += [f"stays: {finding}"] if place(finding) in map(place, after.findings) else []
        wrong += [f"{finding} brings {other}" for other in brought(finding, before, after)]
    return wrong


def check(path: Path, *, with_data: bool) -> Report:
    report = check_file(str(path), [], rules(), with_data=with_data, progress=Silent())
    assert report.failures == []
    return report


def place(finding: Finding) -> tuple[str, str]:
    return finding.rule.code, finding.found.key


def brought(finding: Finding, before: Report, after: Report) -> list[Finding]:
    """Errors that a fix has caused, and not merely uncovered."""
    known = {place(other) for other in before.findings}
    more = [other for other in after.findings if other.is_error and place(other) not in known]
    if unread(before) - unread(after):
        # the volumes were not read before
        more = [other for other in more if other.rule.needs != "volumes"]
    # a path or a name that is an example is there to be replaced
    examples = [change.key for change in finding.found.fix.changes if change.note]
    return [other for other in more if other.found.key not in examples]


def unread(report: Report) -> set[str]:
    """The phases whose volumes nobody has read."""
    assert report.view is not None
    read = {name for name, phase in report.view.phases.items() if phase.statistics}
    return set(report.view.phase_names) - read


@pytest.mark.parametrize("lines", ["bad", "good"])
@pytest.mark.parametrize("rule", OWN, ids=lambda rule: rule.code)
def test_examples_of_the_rules(rule: Rule, lines: str, data: Path, tmp_path: Path) -> None:
    path = write_example(rule, getattr(rule, lines), data, tmp_path / "config.yml")
    # what is found in a good example is not what it is about; its volumes need not be read
    assert wrong_fixes(path, with_data=lines == "bad" or rule.needs == "volumes") == []


@pytest.mark.parametrize("changes", broken_input.WRONG_KINDS, ids=str)
def test_sections_of_another_kind(changes: dict[str, Any], data: Path, tmp_path: Path) -> None:
    config = merged(training_config(data, broken_input.MODEL), changes)
    assert wrong_fixes(write_config(tmp_path / "train.yml", config), with_data=True) == []


TENSOR = {"name": "ToTensor", "expand_dims": True}
ROTATE = {"name": "RandomRotate", "axes": [[2, 1]], "order": 3}
ELASTIC = {"name": "ElasticDeformation", "spline_order": 3}


def transforms(raw: list[Any], label: list[Any], **sections: Any) -> dict[str, Any]:
    return {"loaders": {"train": {"transformer": {"raw": raw, "label": label}}}, **sections}


#: Faults that come together, or whose fix depends on other lines.
FAULTS: list[dict[str, Any]] = [
    transforms([TENSOR], [{"name": "Pony"}, {"name": "Cow"}, TENSOR]),
    transforms([TENSOR], ["Pony", None, "ToTensor"]),
    transforms([{"name": "Standardise"}, TENSOR], [{"name": "RandomContrast"}, {"name": "Relabel"}, TENSOR]),
    transforms([ROTATE, ELASTIC, TENSOR], [TENSOR]),
    transforms([ROTATE, ELASTIC, TENSOR], [TENSOR], loss={"name": "MSELoss", "ignore_index": -6}),
    transforms([TENSOR], [ROTATE, {"name": "ToTensor"}]),
    transforms([TENSOR], [{"name": "ToTensor", "expand_dim": True, "dtyp": "int64"}]),
    transforms([{"name": "Standardize"}], [{"name": "ToTensor", "expand_dims": True, "dtype": "int99"}]),
    {"trainer": {"epochs": 5, "validate_every": "7", "pony": 1, 3: 4}},
    {"optimizer": {"name": "adam", "lr": "1e-3", "momentum": 0.9, None: 1}},
    {"optimizer": {"name": "SGD", "learning_rate": "1e-3", "weight_decay": "1e-5"}},
    {"lr_scheduler": {"name": "StepLr", "step_sise": 9}},
    {"lr_scheduler": {"name": "StepLR", "pony": 9}},
    {"loaders": {"train": {"slice_builder": {"patch_shape": [9, 16, 900], "stride_shape": [9, 8, 900]}}}},
    {"model": {"final_activation": "sigmoid"}, "loss": {"name": "BCELoss"}},
    {"model": {"out_channels": 3, "final_activation": ["none", "softplus", "none"]}},
    {"loss": None, "eval_metric": None, "trainer": None, "optimizer": None},
    {"loss": "MSELoss", "eval_metric": "R2Score", "optimizer": "AdamW", "lr_scheduler": "StepLR"},
]


@pytest.mark.parametrize("changes", FAULTS, ids=str)
def test_faults_that_come_together(changes: dict[str, Any], data: Path, tmp_path: Path) -> None:
    config = merged(training_config(data, broken_input.MODEL), changes)
    assert wrong_fixes(write_config(tmp_path / "train.yml", config), with_data=True) == []


@pytest.mark.parametrize("example", upstreams_examples.EXAMPLES, ids=lambda example: example.__name__)
def test_configs_as_pytorch_3dunet_documents_them(example: Callable[[Path], Any], tmp_path: Path) -> None:
    upstreams_examples.write_example_data(tmp_path)
    assert wrong_fixes(write_config(tmp_path / "train.yml", example(tmp_path)), with_data=True) == []


def test_the_projects_own_example(tmp_path: Path) -> None:
    path = tmp_path / "train.yml"
    path.write_text((ROOT / "examples" / "distance.yml").read_text())
    for with_data in (True, False):
        assert wrong_fixes(path, with_data=with_data) == []


@pytest.mark.parametrize("job", JOBS)
def test_configs_of_the_demo(job: str, data: Path, tmp_path: Path) -> None:
    for name in JOBS[job].files():
        shutil.copy(data / "train.h5", tmp_path / f"{name}.h5")
    run = Run(JOBS[job], tmp_path, tmp_path, 6)
    for path, text in run.configs().items():
        path.write_text(text)
        assert wrong_fixes(path, with_data=True) == []


MODELS: list[dict[str, Any]] = [
    {"final_activation": "none"},
    {},
    {"final_sigmoid": False},
    {"is_segmentation": False},
    {"is_segmentation": True, "final_activation": "none"},
    {"final_activaton": "softplus"},
]


@pytest.mark.parametrize("name", ["UNet3D", "ResidualUNet3D", "UNet2D"])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_configs_of_the_lab(model: dict[str, Any], name: str, data: Path, tmp_path: Path) -> None:
    for made in (training_config, prediction_config):
        config = made(data, {"name": name} | model)
        assert wrong_fixes(write_config(tmp_path / "config.yml", config), with_data=True) == []

"""Changes to a config, applied and as lines."""

import copy
import datetime
import json
import math
import pickle

import pytest
import yaml

from p3d_regression import ConfigError, Found
from p3d_regression.fix import DELETE, Change, Fix, advise, delete, write

STEPS = [{"name": "Standardize"}, {"name": "RandomRotate"}, {"name": "ToTensor", "expand_dims": True}]
CONFIG = {"model": {"final_sigmoid": False, "f_maps": [8, 16]}, "loaders": {"train": {"transformer": {"label": STEPS}}}}


@pytest.mark.parametrize(
    ("fix", "key", "expected"),
    [
        (write("model.final_activation", "none"), "model.final_activation", "none"),
        (write("model", {"name": "UNet3D"}), "model", {"name": "UNet3D"}),
        (write("trainer.eval_score_higher_is_better", False), "trainer", {"eval_score_higher_is_better": False}),
        (delete("model.final_sigmoid"), "model", {"f_maps": [8, 16]}),
        (delete("model.no.such.key"), "model", CONFIG["model"]),
        (write("model.f_maps[1]", 32), "model.f_maps", [8, 32]),
        (write("model.f_maps[2]", 32), "model.f_maps", [8, 16, 32]),
        (delete("model.f_maps[0]"), "model.f_maps", [16]),
        (delete("model.f_maps[0]", "model.f_maps[1]"), "model.f_maps", []),
        (write("loaders.train.transformer.label[1].order", 3), "loaders.train.transformer.label[1].order", 3),
        (write("model.f_maps.deep", 1), "model.f_maps", {"deep": 1}),
    ],
)
def test_applied(fix: Fix, key: str, expected: object) -> None:
    before = copy.deepcopy(CONFIG)
    found = fix.applied_to(CONFIG)
    for part in Change(key).path:
        found = found[part]
    assert found == expected
    assert before == CONFIG


def test_the_lines_say_what_is_applied() -> None:
    """Pasted into an empty config they are the changes."""
    fix = write("model.final_activation", "none") + write("model.target_scaling", {"mean": 1.5, "std": 2.0})
    fix += write("loss", {"name": "HuberLoss", "delta": 2.0})
    assert yaml.safe_load(str(fix)) == fix.applied_to({})
    assert yaml.safe_load("{" + fix.in_one_line + "}") == fix.applied_to({})


def test_lines() -> None:
    assert str(write("model.f_maps", [8, 16])) == "model:\n  f_maps: [8, 16]"
    assert str(delete("model.fmaps") + write("model.f_maps", [8])) == "model:\n  # delete fmaps\n  f_maps: [8]"
    assert str(delete("model.fmaps", "loss.weight")) == "delete model.fmaps and loss.weight"
    assert str(advise("crop the volume")) == "crop the volume"
    assert not Fix()
    assert (write("a.b", 1, "with your bounds") + advise("and crop the volume")).in_one_line == (
        "a: {b: 1}; and crop the volume"
    )


def test_lines_of_lists() -> None:
    steps = [{"name": "RandomFlip"}, {"name": "ToTensor"}]
    assert str(write("a.raw", steps)) == "a:\n  raw:\n    - {name: RandomFlip}\n    - {name: ToTensor}"
    assert str(write("a.raw[1]", steps[1])) == "a:\n  raw:\n    - {name: ToTensor}  # in place of item 2"
    assert str(write("a.raw[1]", steps[1], "your bounds")) == "a:\n  raw:\n    - {name: ToTensor}  # your bounds"
    assert str(write("a.raw[1].order", 3)) == "a:\n  raw:\n    -  # item 2\n      order: 3"


def test_an_error_shows_it() -> None:
    error = ConfigError("model.final_activation", "'x' is not known.", write("model.final_activation", "none"))
    assert str(error) == ("model.final_activation: 'x' is not known. Write:\n  model:\n    final_activation: none")
    assert str(ConfigError("loss.weight", "has no effect.", delete("loss.weight"))) == (
        "loss.weight: has no effect. Fix: delete loss.weight."
    )
    found = pickle.loads(pickle.dumps(error)).found
    assert (found.key, str(found.fix)) == ("model.final_activation", str(error.found.fix))
    assert pickle.loads(pickle.dumps(delete("a"))).changes[0].value is DELETE
    assert DELETE is copy.deepcopy(DELETE)


def test_in_json() -> None:
    fix = write("loss.ignore_index", math.nan) + write("a", {1: [datetime.date(2026, 1, 2), True]}) + delete("b[0]")
    assert json.loads(json.dumps([change.as_dict() for change in fix.changes], allow_nan=False)) == [
        {"key": "loss.ignore_index", "value": ".nan"},
        {"key": "a", "value": {"1": ["2026-01-02", True]}},
        {"key": "b[0]", "delete": True},
    ]


@pytest.mark.parametrize(
    ("key", "section"), [("model.f_maps[0]", "model"), ("loss", "loss"), ("steps[1].name", "steps"), ("", "")]
)
def test_a_finding_knows_its_section(key: str, section: str) -> None:
    assert Found(key, "is wrong").section == section
    assert Found(key, "is wrong", "lines of a plugin").fix == advise("lines of a plugin")

"""Rules by code, and rules of plugins."""

import json
from pathlib import Path

import pytest

from p3d_regression.checks.registry import rules, select
from p3d_regression.checks.rule import Finding, Rule
from p3d_regression.errors import Found
from support.lab import training_config, write_config, write_volumes
from support.plugins import write_plugin
from support.preforked import Preforked

PLUGIN = """
    from p3d_regression import Found, Rule, hookimpl

    def check(view):
        rate = view.get("optimizer.learning_rate")
        if rate > 0.01:
            yield Found("optimizer.learning_rate", f"{rate} diverges in our lab", "optimizer:\\n  learning_rate: 0.001")

    @hookimpl
    def p3d_rules():
        return [Rule("LAB101", "fast-learning", "warning", check, why="It diverges.", bad="...", good="...")]
"""


def a_rule(**changes: object) -> Rule:
    values = {
        "code": "LAB101",
        "name": "a-rule",
        "severity": "error",
        "check": lambda view: [],
        "why": "",
        "bad": "",
        "good": "",
    }
    return Rule(**values | changes)


class TestSelect:
    def test_codes_beginnings_and_names(self) -> None:
        assert [rule.code for rule in select(["P3D202"], [])] == ["P3D202"]
        assert {rule.code[:4] for rule in select(["p3d2"], [])} == {"P3D2"}
        assert [rule.code for rule in select(["score-direction"], [])] == ["P3D202"]
        assert select([], []) == rules()
        assert select(["P3D2"], ["P3D202"]) == [rule for rule in select(["P3D2"], []) if rule.code != "P3D202"]

    @pytest.mark.parametrize("unknown", ["P3D999", "XYZ", ""])
    def test_unknown_ones(self, unknown: str) -> None:
        with pytest.raises(ValueError, match=f"{unknown!r} is not a rule"):
            select([unknown], [])
        with pytest.raises(ValueError, match="is not a rule"):
            select([], [unknown])


class TestRule:
    @pytest.mark.parametrize(
        "changes",
        [{"code": "lab101"}, {"code": "LAB"}, {"name": "A Rule"}, {"severity": "info"}, {"needs": "network"}],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(self, changes: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="rule "):
            a_rule(**changes)

    def test_a_finding_in_one_line(self) -> None:
        lines = "trainer:\n  eval_score_higher_is_better: false"
        finding = Finding(a_rule(), Found("trainer", "is wrong", lines))
        assert str(finding) == "LAB101 a-rule: trainer: is wrong. Fix: trainer: {eval_score_higher_is_better: false}"
        assert str(Finding(a_rule(), Found("trainer", "is wrong"))) == "LAB101 a-rule: trainer: is wrong"
        assert str(Finding(a_rule(), Found("a", "is wrong", "delete the line"))).endswith("Fix: delete the line")


class TestPlugins:
    def config(self, directory: Path) -> Path:
        write_volumes(directory)
        model = {"name": "UNet3D", "final_activation": "none"}
        return write_config(directory / "train.yml", training_config(directory, model))

    def check(self, forked: Preforked, site: Path, *arguments: object) -> tuple[int, list[dict], str]:
        environment = forked.having(PYTHONPATH=str(site))
        result = environment.run("p3d-regression", "check", "--no-data", "--json", *arguments)
        return result.returncode, json.loads(result.stdout), result.stderr

    def test_add_rules(self, forked: Preforked, tmp_path: Path) -> None:
        write_plugin(tmp_path, "lab_rules", PLUGIN)
        code, (found,), _ = self.check(forked, tmp_path, self.config(tmp_path))
        assert code == 0
        assert [finding["code"] for finding in found["findings"]] == ["LAB101"]
        assert found["findings"][0]["message"] == "0.02 diverges in our lab"
        code, (found,), _ = self.check(forked, tmp_path, tmp_path / "train.yml", "--ignore", "LAB")
        assert found["findings"] == []
        # and in a training
        result = forked.having(PYTHONPATH=str(tmp_path)).run("train3dunet", "--config", tmp_path / "train.yml")
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("WARNING P3DRegression - LAB101 fast-learning: ") == 1

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("LAB101", "P3D202"), "has a code that is already in use, or that starts with P3D"),
            (("rate > 0.01", "rate.nonsense"), "the rule LAB101 failed (AttributeError: 'float' object"),
            (("return [Rule(", "return [print, Rule("), "which is not a Rule"),
        ],
    )
    def test_a_broken_one_costs_no_training(
        self, forked: Preforked, tmp_path: Path, change: tuple[str, str], said: str
    ) -> None:
        write_plugin(tmp_path, "lab_rules", PLUGIN.replace(*change))
        path = self.config(tmp_path)
        code, (found,), stderr = self.check(forked, tmp_path, path)
        assert said in stderr + str(found["failures"])
        assert code == (2 if found["failures"] else 0)
        result = forked.having(PYTHONPATH=str(tmp_path)).run("train3dunet", "--config", path)
        assert result.returncode == 0, result.stderr
        assert said in result.stdout + result.stderr

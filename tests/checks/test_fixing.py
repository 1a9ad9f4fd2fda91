"""``p3d-regression check --fix`` and ``--diff``."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from p3d_regression.checks import fixing
from p3d_regression.checks.config_text import UnchangeableError, changed
from p3d_regression.checks.rule import Finding, Rule
from p3d_regression.cli.main import main
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, advise, delete, write
from support.checks import Silent
from support.lab import training_config, write_config, write_volumes

CONFIG = """\
# distances to a membrane
model:
  name: UNet3D   # the larger one did not fit
  in_channels: 1
  out_channels: 1
  fmaps: [8, 16]
  # since last week
  final_activation: none
loss: {name: MSELoss}
eval_metric: {name: MSE}
optimizer:
  learning_rate: 1e-3  # fast
trainer:
  checkpoint_dir: checkpoints

  max_num_epochs: 3
  max_num_iterations: 10
  eval_score_higher_is_better: true  # copied
loaders:
  train: &train
    file_paths: [train.h5]
    slice_builder: {name: SliceBuilder, patch_shape: [4, 64, 64], stride_shape: [4, 64, 64]}
    transformer:
      raw:
        - name: ToTensor
          expand_dims: true
      label:
        - name: ToTensor
          expand_dims: true
  val:
    <<: *train
    file_paths: [val.h5]
"""

FIXED = (
    CONFIG.replace("  fmaps:", "  f_maps:").replace("1e-3  #", "0.001 #").replace("better: true  #", "better: false #")
)


def run(*arguments: object) -> Result:
    """The command, in this process: an error that is not caught is raised."""
    return CliRunner().invoke(main, ["check", "--no-data", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.yml"
    path.write_text(CONFIG)
    return path


class TestFix:
    def test_comments_and_order_stay(self, config: Path) -> None:
        config.chmod(0o640)
        result = run("--fix", config)
        assert config.read_text() == FIXED
        assert result.exit_code == 0
        assert "fixed P3D102 model.fmaps: model: {f_maps: [8, 16]}; delete model.fmaps" in result.stdout
        assert config.stat().st_mode & 0o777 == 0o640
        assert list(config.parent.iterdir()) == [config]

    @pytest.mark.parametrize("start", ["---\n", "# for the cluster\n--- # a document\n\n"])
    @pytest.mark.parametrize("end", ["", "...\n"])
    def test_the_marks_of_a_document_stay(self, config: Path, start: str, end: str) -> None:
        config.write_text(start + CONFIG + end)
        assert run("--fix", config).exit_code == 0
        assert config.read_text() == start + FIXED + end

    def test_a_second_time_there_is_nothing_to_do(self, config: Path) -> None:
        run("--fix", config)
        before = config.stat().st_mtime_ns
        result = run("--fix", config)
        assert "fixed" not in result.stdout
        assert config.stat().st_mtime_ns == before

    def test_only_what_was_selected(self, config: Path) -> None:
        assert run("--fix", "--select", "P3D102", config).exit_code == 0
        assert config.read_text() == CONFIG.replace("  fmaps:", "  f_maps:")

    def test_the_exit_status_is_that_of_what_is_left(self, config: Path) -> None:
        config.write_text(CONFIG.replace("  out_channels: 1\n", ""))
        result = run("--fix", config)
        assert result.exit_code == 1
        assert "P3D108 error model.out_channels: is missing" in result.stdout
        # how many there are is not for the command to say
        assert "out_channels" not in config.read_text()
        assert "f_maps" in config.read_text()

    def test_in_json(self, config: Path) -> None:
        (report,) = json.loads(run("--fix", "--json", config).stdout)
        assert [found["code"] for found in report["fixed"]] == ["P3D102", "P3D202", "P3D210"]
        assert report["fixed"][0]["changes"] == [
            {"key": "model.f_maps", "value": [8, 16]},
            {"key": "model.fmaps", "delete": True},
        ]
        assert report["findings"] == []

    def test_several_and_one_that_is_no_config(self, config: Path) -> None:
        other, missing = config.with_name("other.yml"), config.with_name("missing.yml")
        other.write_text(CONFIG)
        result = run("--fix", config, missing, other)
        assert result.exit_code == 2
        assert "No such file or directory" in result.stdout
        assert config.read_text() == other.read_text() == FIXED

    def test_with_data(self, tmp_path: Path) -> None:
        write_volumes(tmp_path)
        path = write_config(tmp_path / "train.yml", training_config(tmp_path, {"name": "UNet3D"}))
        result = CliRunner().invoke(main, ["check", "--fix", str(path)], catch_exceptions=False)
        assert result.exit_code == 0
        model = yaml.safe_load(path.read_text())["model"]
        assert (model["final_activation"], model["target_scaling"]) == ("none", "standardize")


class TestDiff:
    def test_prints_and_changes_nothing(self, config: Path) -> None:
        result = run("--diff", config)
        assert result.exit_code == 0
        assert result.stdout.startswith(f"--- {config}\n+++ {config}\n@@")
        assert "-  fmaps: [8, 16]\n+  f_maps: [8, 16]\n" in result.stdout
        assert "fixed P3D102" in result.stderr
        assert config.read_text() == CONFIG

    def test_an_end_without_a_line_break(self, config: Path) -> None:
        rate = "optimizer:\n  learning_rate: 1e-3"
        config.write_text(CONFIG.replace(f"{rate}  # fast\n", "") + rate)
        assert "\\ No newline at end of file\n" in run("--diff", config).stdout


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--fix", "--diff"], "cannot be combined"),
            (["--diff", "--json"], "--diff prints a diff"),
            (["--fix", "--model.name", "UNet2D"], "cannot change the options --model.name UNet2D"),
        ],
    )
    def test_options(self, config: Path, arguments: list[str], said: str) -> None:
        result = run(config, *arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert config.read_text() == CONFIG

    def test_standard_input(self) -> None:
        result = run("/dev/stdin", "--fix")
        assert result.exit_code == 2
        assert "standard input cannot be fixed" in result.stderr

    def stays(self, config: Path, said: str) -> None:
        before = config.read_bytes()
        result = run("--fix", config)
        assert result.exit_code == 2
        assert said in result.stdout
        assert "the file stays as it is" in result.stdout
        assert config.read_bytes() == before
        assert list(config.parent.iterdir()) == [config]

    def test_a_key_given_twice(self, config: Path) -> None:
        config.write_text(CONFIG + "device: cpu\ndevice: cuda\n")
        self.stays(config, "gives device a second time")

    def test_a_full_disk(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        self.stays(config, "No space left on device")

    def test_a_read_only_file(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        self.stays(config, "it is read-only")

    def test_another_hand(self, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.fsync
        monkeypatch.setattr(os, "fsync", lambda n: (config.write_text(CONFIG + "# mine\n"), real(n)))
        result = run("--fix", config)
        assert "another program has changed it in the meantime" in result.stdout
        assert config.read_text() == CONFIG + "# mine\n"

    def test_no_regular_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in run("--fix", tmp_path / "pipe").stdout

    def test_fixes_that_contradict_each_other(self, config: Path) -> None:
        def wants(value: int, code: str) -> Rule:
            def check(view: Any) -> Iterator[Found]:
                if view.get("manual_seed") != value:
                    yield Found("manual_seed", "is another", write("manual_seed", value))

            return Rule(code, "a-rule", "error", check, "", "", "")

        report, diff = fixing.fix_file(
            str(config), [wants(1, "A001"), wants(2, "A002")], with_data=False, progress=Silent(), writes=True
        )
        assert report.failures == ["the fixes of A001 contradict each other; the file stays as it is"]
        assert diff == ""
        assert config.read_text() == CONFIG


def test_a_link_stays_a_link(config: Path) -> None:
    link = config.with_name("link.yml")
    link.symlink_to(config.name)
    run("--fix", link)
    assert link.is_symlink()
    assert config.read_text() == FIXED


class TestText:
    @pytest.mark.parametrize(
        ("text", "fix", "expected"),
        [
            ("a: 1  # x\nb: 2\n", delete("a"), "b: 2\n"),
            ("a: 1\n# about b\nb: 2\n", delete("a"), "# about b\nb: 2\n"),
            ("m:\n    a: 1\n    # c\nn: 2\n", write("m.b", [1, 2]), "m:\n    a: 1\n    b: [1, 2]\n    # c\nn: 2\n"),
            ("m: {a: 1}\n", write("m.b", 2), "m: {a: 1, b: 2}\n"),
            ("m:\nn: 1\n", write("m", {"a": {"b": 1}}), "m:\n  a:\n    b: 1\nn: 1\n"),
            ("a: yes\nb: 0o1\nc: 010\n", write("d", "no"), "a: yes\nb: 0o1\nc: 010\nd: 'no'\n"),
            ("a: 1\r\n# b\r\nb: 2\r\n", write("a", 3), "a: 3\r\n# b\r\nb: 2\r\n"),
            ("l:\n- {n: 1}\n# second\n- {n: 2}\n", delete("l[0]"), "l:\n# second\n- {n: 2}\n"),
            ("l:\n    - n: 1\n      o: 2\n", write("l[0].o", 3), "l:\n    - n: 1\n      o: 3\n"),
            ("a: 1\nb: 2\n", write("c", 5) + delete("a"), "c: 5\nb: 2\n"),
            ("m:\n  n: A  # x\n  o: 1\n", write("m", {"n": "B", "p": 2}), "m:\n  n: B  # x\n  p: 2\n"),
            ("a: 1.50\nb:   2\n", write("c", float("nan")), "a: 1.50\nb:   2\nc: .nan\n"),
        ],
    )
    def test_changed(self, text: str, fix: Fix, expected: str) -> None:
        assert changed(text, fix) == expected

    @pytest.mark.parametrize(
        "text", ["a: &x {b: 1}\nc: *x\n", "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n", "a: &x\n  b: 1\nc: [*x, *x]\n"]
    )
    def test_aliases_stay_or_the_change_is_refused(self, text: str) -> None:
        for fix in (write("e", 1), write("a.b", 2), delete("a"), write("c.b", 3), delete("c.b")):
            try:
                found = changed(text, fix)
            except UnchangeableError:
                continue
            assert yaml.safe_load(found) == fix.applied_to(yaml.safe_load(text))
            assert ("&x" in found) == ("*x" in found)


def test_fixes_of_different_parts_go_together() -> None:
    rule = Rule("A001", "a-rule", "error", lambda view: [], "", "", "")
    fixes = [write("a.b", 1), advise("look"), write("a.c", 2), write("a", {}), write("l[0]", 1), delete("l[1]")]
    fixes += [write("d", 1, "for example"), write("e", 1)]
    found = [Finding(rule, Found(str(index), "", fix)) for index, fix in enumerate(fixes)]
    assert [finding.found.key for finding in fixing._together(found)] == ["0", "2", "4", "7"]

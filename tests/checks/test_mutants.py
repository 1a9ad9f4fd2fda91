"""Whatever is wrong with a config, checking it ends, and says something."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent
from support.lab import training_config, write_config
from support.mutants import MODEL, check_mutants

#: What is no config at all is said as a failure.
NO_CONFIG = ("is neither a training config", "is empty", "is a ", "has no ")


@pytest.mark.parametrize(("count", "with_data"), [(300, False), (60, True)])
def test_mutants(tmp_path: Path, count: int, with_data: bool) -> None:
    for path, report, _ in check_mutants(tmp_path, count, with_data=with_data, seed=count):
        failures = [failure for failure in report.failures if not failure.startswith(NO_CONFIG)]
        assert failures == [], path.read_text()


def aliases(kind: str) -> str:
    open_, close = "[]" if kind == "list" else "{}"
    lines = [f"a0: &a0 {open_}{'x: 1' if kind != 'list' else 1}{close}"]
    for n in range(1, 12):
        items = ", ".join((f"k{j}: " if kind != "list" else "") + f"*a{n - 1}" for j in range(9))
        lines.append(f"a{n}: &a{n} {open_}{items}{close}")
    return "\n".join([*lines, "trainer: {x: *a11}", "model: *a11"])


#: Texts, and what is said of each.
ENDLESS = [
    (f"model: {'[' * 20000}{']' * 20000}", "is not YAML"),
    (f"trainer: {'{a: ' * 3000}1{'}' * 3000}", "is not YAML"),
    (aliases("list"), "its aliases stand for"),
    (aliases("mapping"), "its aliases stand for"),
    ("trainer: &t\n  self: *t\nmodel: {name: UNet3D}", "has no end"),
    ("trainer: {}\nmodel: &m\n  f_maps: [*m]", "has no end"),
]


def test_texts_without_an_end(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.yml" for number in range(len(ENDLESS))]
    for path, (text, _) in zip(paths, ENDLESS, strict=True):
        path.write_text(text)
    # in a process of its own: it would take all memory, or for ever
    command = [sys.executable, "-m", "p3d_regression", "check", "--no-data", *paths]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    # in the order of the files, whatever the width of the terminal
    printed = " ".join(result.stdout.split())
    found = re.findall("|".join({said for _, said in ENDLESS}), printed)
    assert found == [said for _, said in ENDLESS]
    assert "Traceback" not in result.stdout + result.stderr


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    config = yaml.safe_dump(training_config(tmp_path, MODEL))
    path = tmp_path / "a.yml"
    path.write_text(f"one: &one {{manual_seed: 3}}\ntwo: &two {{device: cpu}}\n<<: *one\n<<: *two\n{config}")
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    assert "P3D215" not in {finding.rule.code for finding in report.findings}
    write_config(path, training_config(tmp_path, MODEL))
    path.write_text(path.read_text() + "device: cuda\n")
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    assert [f.found.key for f in report.findings if f.rule.code == "P3D215"] == ["device"]


def test_the_checks_at_the_start_survive_it(tmp_path: Path) -> None:
    from p3d_regression.checks.at_start import check_at_start

    config = training_config(tmp_path, MODEL)
    config["notes"] = config
    check_at_start(config, "train")  # it logs that it could not check

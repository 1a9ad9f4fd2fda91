"""What the documents tell people to write is valid."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from p3d_regression.activations.registry import registry, resolve
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.losses import build as losses
from p3d_regression.losses.build import build
from p3d_regression.metrics import score as metrics
from support.checks import Silent
from support.doctor import ask_doctor
from support.environments import ROOT
from support.lab import training_config, write_config, write_volumes
from support.plugins import write_plugin
from support.preforked import Preforked

PAGES = ["README.md", "docs/final-activation.md"]

PROSE = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*/*.md")]

_LOSSES_PAGE = (ROOT / "docs/losses-and-metrics.md").read_text()


def documented(page: str) -> list[str]:
    """Every value that a page puts behind the key, and in the first table of the page on activations."""
    text = (ROOT / page).read_text()
    values = re.findall(r"(?<!model\.)final_activation: ((?:\[[^]\n]*\]|\{[^}\n]*\}|[\w-]+))", text)
    rows = re.search(r"\| your labels are .*?\n\n", text, re.DOTALL)
    if rows:
        values += [row.split("|")[2].strip(" `") for row in rows[0].strip().splitlines()[2:]]
    return values


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_has_a_target(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_every_value_can_be_built(page: str) -> None:
    values = documented(page)
    assert len(values) >= 5
    for text in values:
        value = yaml.safe_load(text)
        resolve(value, len(value) if isinstance(value, list) else 2).build()


def test_the_page_names_the_projects_own() -> None:
    text = Path(ROOT / "docs/final-activation.md").read_text()
    for registration in registry().registrations():
        if registration.origin == "built-in":
            assert f"`{registration.what.name}`" in text or f"{{name: {registration.what.name}" in text


def test_every_example_in_a_table_has_the_range_that_the_page_claims() -> None:
    text = Path(ROOT / "docs/final-activation.md").read_text()
    claims = re.findall(r"`([^`]+)`\s+is `(\[[^`]+[\])])`", text)
    assert len(claims) == 2
    for value, claimed in claims:
        (interval,) = resolve(yaml.safe_load(value), 1).ranges
        low, high = (float(bound) for bound in claimed.strip("[])").split(","))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)


def test_every_config_on_the_page_of_losses_and_metrics_is_understood() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", _LOSSES_PAGE, re.DOTALL)]
    assert len(blocks) >= 5
    for config in blocks:
        channels = config.get("model", {}).get("out_channels")
        if "loss" in config:
            build(losses.resolve(config["loss"], channels))
        if "eval_metric" in config:
            metrics.try_on(metrics.resolve(config["eval_metric"]), (16, 32, 32))


def test_every_name_in_the_tables_of_that_page_is_understood() -> None:
    loss_table, metric_table = re.findall(r"\| (?:your labels are|you want to know) \|.*?\n\n", _LOSSES_PAGE, re.DOTALL)
    for row in loss_table.strip().splitlines()[2:]:
        for text in re.findall(r"`([^`]+)`", row.split("|")[2]):
            value = yaml.safe_load(text)
            if value not in ("delta", "channelwise"):
                losses.resolve(value if isinstance(value, dict) else {"name": value})
    for row in metric_table.strip().splitlines()[2:]:
        for text in re.findall(r"`([^`]+)`", row.split("|")[2]):
            value = yaml.safe_load(text)
            metrics.resolve(value if isinstance(value, dict) else {"name": value})


def test_the_plugin_on_that_page_trains(forked: Preforked, tmp_path: Path) -> None:
    source, *others = re.findall(r"```python\n(.*?)```", _LOSSES_PAGE, re.DOTALL)
    for other in others:
        compile(other, "docs", "exec")
    write_plugin(tmp_path, "charbonnier", source)
    write_volumes(tmp_path)
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"}, iterations=2)
    config["loss"] = {"name": "charbonnier", "eps": 0.5, "ignore_index": 3.0}
    config["eval_metric"] = {"name": "max_error"}
    del config["trainer"]["eval_score_higher_is_better"]
    environment = forked.having(PYTHONPATH=str(tmp_path))
    result = environment.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
    assert result.returncode == 0, result.stderr
    assert "loss {name: Charbonnier, eps: 0.5}, metric MaxError (lower is better)" in result.stdout
    tables = [environment.run("p3d-regression", name).stdout for name in ("losses", "metrics")]
    assert [("charbonnier 1.0" in table) for table in tables] == [True, True]
    assert "MaxError" in ask_doctor(environment).stdout


EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_without_findings(path: Path) -> None:
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    assert report.failures == []
    assert report.findings == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, forked: Preforked, tmp_path: Path) -> None:
    """On small volumes of its kind, with a small network."""
    config = yaml.safe_load(path.read_text())
    for seed, phase in enumerate(("train", "val")):
        draw = np.random.default_rng(seed)
        level = np.linspace(1000, 200, 8)[:, None, None] * np.ones((8, 64, 80 - 16 * seed))
        clean = level + 30 * gaussian_filter(draw.normal(size=level.shape), 2) / 0.1
        raw = clean + 40 * draw.normal(size=level.shape)
        with h5py.File(tmp_path / f"{phase}.h5", "w") as file:
            channels = config["model"]["in_channels"]
            file["raw"] = np.stack([raw] * channels) if channels > 1 else raw
            file["label"] = np.stack([clean] * channels) if channels > 1 else clean
        section = config["loaders"][phase]
        section["file_paths"] = [str(tmp_path / f"{phase}.h5")]
        section["slice_builder"] |= {"patch_shape": [4, 64, 64], "stride_shape": [4, 64, 16]}
    config["model"] |= {"f_maps": [8, 16]}
    config["trainer"] |= {"checkpoint_dir": str(tmp_path / "checkpoints"), "max_num_iterations": 2}
    config["trainer"] |= {"validate_after_iters": 1, "log_after_iters": 2}
    config["loaders"]["num_workers"] = 0
    written = write_config(tmp_path / "train.yml", config)
    report = check_file(str(written), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    about_data = {"P3D516", "P3D517"} if path.stem in ("distance", "channels") else {"P3D517"}
    assert {finding.rule.code for finding in report.findings} <= about_data
    result = forked.run("train3dunet", "--config", written)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "checkpoints" / "best_checkpoint.pytorch").exists()

"""What the documents tell people to write is valid."""

import re
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from p3d_regression.activations.registry import registry, resolve
from p3d_regression.checks import docs
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

PAGES = ["docs/index.md", "docs/final-activation.md"]

PROSE = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*/*.md")]

#: Pages of the site that mkdocs_hooks.py makes. `mkdocs build --strict` checks the links to them.
GENERATED = {"messages.md", "commands.md", "names.md", "compatibility.md"} | docs.pages().keys()

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
        target = (page.parent / path).resolve() if path else page
        if target.is_relative_to(ROOT / "docs") and target.relative_to(ROOT / "docs").as_posix() in GENERATED:
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_works_on_pypi_and_its_links_have_targets() -> None:
    """There is no checkout around it: every link is absolute, and leads to a page of the site or a file of main."""
    text = (ROOT / "README.md").read_text()
    addresses = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    site, repository = addresses["Documentation"], addresses["Repository"]
    assert site.rstrip("/") == docs.DOCS_URL
    raw = repository.replace("https://github.com", "https://raw.githubusercontent.com")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 20
    for link in links:
        assert link.startswith("https://"), link
        if link.startswith(site):
            path = f"{link.removeprefix(site).strip('/')}.md"
            assert path in GENERATED or (ROOT / "docs" / path).exists(), link
        for start in (f"{repository}/blob/main/", f"{raw}/main/"):
            if link.startswith(start):
                assert (ROOT / link.removeprefix(start)).exists(), link
    assert len(re.sub(r"\]\([^)]*\)", "]", text).split()) <= 700


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

RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.md"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_without_findings(path: Path) -> None:
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    assert report.failures == []
    assert report.findings == []


def write_recipe_volume(path: Path, kind: str, seed: int) -> None:
    """A small volume of the kind that an example is for."""
    draw = np.random.default_rng(seed)
    level = np.linspace(1000, 200, 8)[:, None, None] * np.ones((8, 64, 80 - 16 * min(seed, 1)))
    clean = level + 30 * gaussian_filter(draw.normal(size=level.shape), 2) / 0.1
    raw = clean + 40 * draw.normal(size=level.shape)
    if kind == "channels":
        raw, clean = np.stack([raw] * 2), np.stack([clean] * 2)
    if kind == "mask_and_distance":
        clean = np.stack([clean > 600, clean / 100 - 6])
    if kind == "dose":
        raw, clean = np.stack([raw, 1000.0 * (level > 600)]), np.maximum(clean, 0) / 20
    if kind in ("dose", "missing_labels"):
        clean[:, :8] = np.nan
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["raw"], file["label"] = raw.astype(np.float32), clean.astype(np.float32)


def test_there_is_a_recipe_for_each_example() -> None:
    used = {re.search(r"examples/(\w+)\.yml", page.read_text())[1] for page in RECIPES}
    assert used | {"distance"} == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_runs_as_it_is_written(page: Path, forked: Preforked, tmp_path: Path) -> None:
    """Its commands and its config, on small volumes of its kind, with a small network."""
    text = page.read_text()
    (example,) = set(re.findall(r"examples/(\w+)\.yml", text))
    config = yaml.safe_load((ROOT / "examples" / f"{example}.yml").read_text())
    for seed, phase in enumerate(("train", "val", "test")):
        write_recipe_volume(tmp_path / phase / "a.h5", example, seed)
    for phase in ("train", "val"):
        section = config["loaders"][phase]
        section["file_paths"] = [str(tmp_path / phase)]
        section["slice_builder"] |= {"patch_shape": [4, 64, 64], "stride_shape": [4, 64, 16]}
    config["model"] |= {"f_maps": [8, 16]}
    config["trainer"] |= {"checkpoint_dir": str(tmp_path / "checkpoints"), "max_num_iterations": 2}
    config["trainer"] |= {"validate_after_iters": 1, "log_after_iters": 2}
    config["loaders"]["num_workers"] = 0
    written = write_config(tmp_path / "train.yml", config)
    report = check_file(str(written), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    about_data = {"P3D516", "P3D517"}
    assert {finding.rule.code for finding in report.findings} <= about_data
    commands = re.search(r"```\n(.*?)```", text, re.DOTALL)[1].replace("*.h5", "a.h5").splitlines()
    assert len(commands) == 5
    for command in commands[1:]:
        program, *arguments = (
            str(tmp_path / word) if re.search(r"\.(yml|pytorch|h5)$", word) else word for word in command.split()
        )
        out = ["--out", tmp_path] if "init" in arguments else []
        result = forked.run(program, *arguments, *out)
        # 1: two iterations are worse than a guess, and evaluate says so
        assert result.returncode == 0 or program == "p3d-regression", command + result.stdout + result.stderr[-2000:]
    assert "R2" in result.stdout, result.stderr
    assert (tmp_path / "predictions" / "a_predictions.h5").exists()

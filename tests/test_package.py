"""What the package promises about itself: what it imports, what it installs, where its version stands."""

import ast
import re
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import p3d_regression
from support.environments import ROOT, Environment
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked

SOURCE = ROOT / "src" / "p3d_regression"
HEAVY = ("torch", "torchmetrics", "pluggy", "click", "rich", "yaml", "numpy", "pytorch3dunet")


def imported_names(path: Path) -> set[str]:
    """The modules that a file imports, at any depth; relative imports as the package's own."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("p3d_regression" if node.level else str(node.module))
    return found


def test_autoload_imports_sys_only() -> None:
    tree = ast.parse((SOURCE / "_autoload.py").read_text())
    at_import_time = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert at_import_time == {"import sys"}
    assert imported_names(SOURCE / "_autoload.py") == {"sys", "p3d_regression"}


@pytest.mark.parametrize("module", ["p3d_regression", "p3d_regression.patches.activation", "p3d_regression._autoload"])
def test_importing_it_imports_nothing_heavy(plugin: Environment, module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    assert plugin.check(code).strip() == "[]"


def test_activation_before_upstream_is_used_imports_nothing_heavy(plugin: Environment) -> None:
    """What runs inside `import torch` must not make it slower."""
    ours = "import sys; print([m for m in ('pluggy', 'click', 'rich', 'yaml', 'pytorch3dunet') if m in sys.modules])"
    assert plugin.check(f"import torch; {ours}").strip() == "[]"
    assert plugin.check(f"import p3d_regression; p3d_regression.activate(); {ours}").strip() == "[]"


#: Imported by the process that is forked: what is imported after this was needed.
FORGET = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in ("pluggy", "torchmetrics")]:
    del sys.modules[name]
"""


def test_a_model_without_the_key_needs_none_of_it(forked: Preforked) -> None:
    """No plugin is loaded, nothing of theirs is imported."""
    code = """
        from pytorch3dunet.unet3d.model import get_model
        model = get_model(dict(name="UNet3D", in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4))
        model.load_state_dict(model.state_dict())
        theirs = ("pluggy", "p3d_regression.plugins", "p3d_regression.activations.registry")
        print([module for module in theirs if module in sys.modules])
    """
    assert forked.check(FORGET + textwrap.dedent(code)).splitlines()[-1] == "[]"


def test_torchmetrics_is_imported_where_a_metric_of_it_is_named(forked: Preforked, tmp_path: Path) -> None:
    write_volumes(tmp_path)
    asked = """
        import yaml
        from pytorch3dunet.unet3d.trainer import create_trainer
        create_trainer(yaml.safe_load(open({path!r})))
        print("torchmetrics" in sys.modules)
    """
    for metric, imported in (("MSE", "False"), ("R2Score", "True")):
        config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"})
        config["loss"], config["eval_metric"] = {"name": "HuberLoss"}, {"name": metric}
        del config["trainer"]["eval_score_higher_is_better"]
        path = str(write_config(tmp_path / "train.yml", config))
        assert forked.check(FORGET + textwrap.dedent(asked.format(path=path))).splitlines()[-1] == imported


def test_public_names_exist_and_are_listed() -> None:
    for name in p3d_regression.__all__:
        assert getattr(p3d_regression, name).__doc__
        assert name in dir(p3d_regression)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        p3d_regression.nothing  # noqa: B018


def test_the_version_stands_in_one_place() -> None:
    version = re.escape(p3d_regression.__version__)
    files = [*SOURCE.rglob("*.py"), ROOT / "pyproject.toml"]
    holders = [path.name for path in files if re.search(rf"(?<![\d.]){version}(?![\d.])", path.read_text())]
    assert holders == ["_version.py"]
    assert f"## [{p3d_regression.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_conda_recipe_asks_for_the_same_as_pip() -> None:
    """Under the names of conda-forge."""
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == p3d_regression.__version__
    names = {"pytorch": "torch", "pytorch-3dunet": "pytorch3dunet"}
    asked = dict(line.partition(" ")[::2] for line in recipe["requirements"]["run"] if not line.startswith("python "))
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {names.get(name, name) + version for name, version in asked.items()} == set(dependencies)


def test_the_wheel_costs_interpreters_without_torch_nothing(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "p3d_regression/py.typed" in names
    assert not [name for name in names if name.endswith((".pth", ".start")) or "customize" in name]
    tops = {name.split("/")[0] for name in names}
    assert tops == {"p3d_regression", f"p3d_regression-{p3d_regression.__version__}.dist-info"}


def test_a_plain_interpreter_does_not_load_it(plugin: Environment) -> None:
    assert plugin.check("import sys; print('p3d_regression' in sys.modules)").strip() == "False"


def test_doctests() -> None:
    import doctest
    import importlib

    tried = 0
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        result = doctest.testmod(importlib.import_module(".".join(parts).removesuffix(".__init__")))
        assert result.failed == 0
        tried += result.attempted
    assert tried > 0

"""``p3d-regression doctor``: whether the plugin becomes active in this environment, and if not, why."""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from p3d_regression._version import __version__
from p3d_regression.patches import activation

_RUN = "or run `p3d-regression run train3dunet ...`"


@dataclass(frozen=True)
class Diagnosis:
    """What ``p3d-regression doctor`` found.

    Attributes:
        active: the plugin becomes active in a fresh interpreter of this environment.
        reason: why it does not, with the fix; None if it does.
        versions: of Python, torch, pytorch3dunet and p3d-regression; None for what cannot be imported.
        patches: ``target``, ``state`` and ``detail`` of each, as in :func:`p3d_regression.patches.activation.patches`.
        torchmetrics_error: why torchmetrics cannot be imported, with the fix; None if it can. Without its metrics the
            plugin is active all the same.
        registry_errors: ``activations``, ``losses`` or ``metrics`` -> why they cannot be listed.
        commands: where the shell finds the commands of pytorch-3dunet, and whether they belong to this environment.
        plugins: ``name``, ``distribution``, ``state`` and ``detail`` of each installed plugin of this project.
        contested: names of activations, losses or metrics that several distributions claim -> the distributions.
    """

    active: bool
    reason: str | None
    versions: dict[str, str | None]
    patches: list[dict[str, str]]
    torchmetrics_error: str | None
    registry_errors: dict[str, str]
    commands: dict[str, dict[str, Any]]
    plugins: list[dict[str, str]]
    contested: dict[str, list[str]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose() -> Diagnosis:
    """Ask a fresh interpreter. Takes as long as importing torch and pytorch3dunet does."""
    found = _probe()
    reason = _reason(found)
    return Diagnosis(
        active=reason is None,
        reason=reason,
        versions={
            "python": platform.python_version(),
            "torch": found.get("torch"),
            "pytorch3dunet": found.get("pytorch3dunet"),
            "p3d-regression": __version__,
        },
        patches=found.get("patches", []),
        torchmetrics_error=_torchmetrics(found),
        registry_errors=found.get("registry_errors", {}),
        commands={name: _locate(name) for name in ("train3dunet", "predict3dunet")},
        plugins=found.get("plugins", []),
        contested=found.get("contested", {}),
    )


def _probe() -> dict[str, Any]:
    script = Path(__file__).with_name("doctor_probe.py")
    # -P: the console scripts of pytorch-3dunet do not import from the current directory either
    child = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (child.stderr.strip().splitlines() or ["no output"])[-1]
        return {"crash": f"a fresh interpreter ended with exit code {child.returncode}: {last}"}
    return found


def _reason(found: dict[str, Any]) -> str | None:
    """The first obstacle to the plugin, in the order of its start."""
    autoload = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1")
    broken = "; ".join(
        f"{patch['target']}: {patch['detail']}"
        for patch in found.get("patches", [])
        if patch["state"] in ("unsupported", "failed")
    )
    if "crash" in found:
        return str(found["crash"])
    if found["torch"] is None:
        return f"torch cannot be imported ({found['torch_error']})."
    if found["pytorch3dunet"] is None:
        return f"pytorch3dunet cannot be imported ({found['pytorch3dunet_error']}); pip install pytorch3dunet."
    if activation.is_disabled():
        return f"P3D_REGRESSION_DISABLE={os.environ['P3D_REGRESSION_DISABLE']} switches the plugin off; unset it."
    if not found["supports_autoload"]:
        return f"torch {found['torch']} does not load plugins; install torch 2.5 or newer, {_RUN}."
    if autoload != "1":
        return f"TORCH_DEVICE_BACKEND_AUTOLOAD={autoload} keeps torch from loading plugins; unset it, {_RUN}."
    if not found["entry_point"]:
        return f"p3d-regression is importable but not installed, so torch does not find it; pip install it, {_RUN}."
    if found["warnings"]:
        return str(found["warnings"][0])
    if not found["active"] and any(patch["state"] == "failed" for patch in found["patches"]):
        return f"p3d-regression {__version__} is damaged ({broken}); install it again."
    if not found["active"]:
        versions = f"p3d-regression {__version__} does not support pytorch3dunet {found['pytorch3dunet']}"
        return f"{versions} ({broken or found['pytorch3dunet_error']}). Install a version that it supports."
    return None


def _torchmetrics(found: dict[str, Any]) -> str | None:
    error = found.get("torchmetrics_error")
    if error is None:
        return None
    torchvision = f"the torchvision that fits torch {found['torch']}"
    fix = f"install {torchvision if 'torchvision' in error else 'torchmetrics again'}"
    return f"cannot be imported ({error}): its metrics are not available; {fix}"


def _without_home(text: str) -> str:
    """JSON with ~ for the home directory: people publish it in bug reports, and the directory holds their name."""
    home = Path.home()
    # "/" is the home of users without one
    return text if home == Path(home.anchor) else text.replace(json.dumps(str(home))[1:-1], "~")


def _locate(command: str) -> dict[str, Any]:
    path = shutil.which(command)
    here = path is not None and Path(path).parent.resolve() == Path(sysconfig.get_path("scripts")).resolve()
    return {"path": path, "this_environment": here}


@click.command(short_help="Find out whether the plugin is active here, and if not, why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show also what is in order: commands and patches.")
def doctor(as_json: bool, verbose: bool) -> None:
    """Find out whether the plugin becomes active in this environment, and if not, why.

    Imports torch and pytorch-3dunet in a fresh interpreter. Shows what is wrong, and with -v everything.

    Exit status: 0 active, 1 not active.
    """
    diagnosis = diagnose()
    if as_json:
        click.echo(_without_home(json.dumps(diagnosis.as_dict(), indent=2)))
    else:
        _print_diagnosis(diagnosis, verbose=verbose)
    sys.exit(0 if diagnosis.active else 1)


def _print_diagnosis(diagnosis: Diagnosis, *, verbose: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    def line(name: str, value: str, colour: str = "", more: str = "") -> None:
        # Text, not markup: a path may hold square brackets. Not wrapped, so that paths stay whole.
        console.print(Text.assemble(f"{name:<16}", (value, colour), f"  {more}" if more else ""), soft_wrap=True)

    console = Console(highlight=False)
    if diagnosis.active:
        console.print(Text("OK, active: train3dunet and predict3dunet understand model.final_activation", "green"))
    else:
        console.print(Text(f"NOT active: {diagnosis.reason}", "red"), soft_wrap=True)
    console.print(", ".join(f"{name} {version or 'not found'}" for name, version in diagnosis.versions.items()))
    for name, command in diagnosis.commands.items():
        other = command["path"] and not command["this_environment"]
        warning = "belongs to another environment, which may lack the plugin" if other else ""
        if verbose or not command["this_environment"]:
            colour = "" if command["this_environment"] else "yellow"
            line(name, command["path"] or "not on PATH", colour, warning)
    for patch in diagnosis.patches:
        good = patch["state"] in ("applied", "not needed")
        # inactive ones follow from the reason above
        if verbose or not (good or patch["state"] == "inactive"):
            line(patch["state"], patch["target"], "green" if good else "red", f"({patch['detail']})")
    for plugin in diagnosis.plugins:
        good = plugin["state"] == "loaded"
        line(
            f"plugin {plugin['state']}", plugin["distribution"], "green" if good else "yellow", f"({plugin['detail']})"
        )
    for name, claims in diagnosis.contested.items():
        line("contested", name, "red", f"(registered by {' and '.join(claims)})")
    if diagnosis.torchmetrics_error:
        line("torchmetrics", diagnosis.torchmetrics_error, "red")
    for name, error in diagnosis.registry_errors.items():
        line("broken", f"the {name} cannot be listed ({error})", "red")

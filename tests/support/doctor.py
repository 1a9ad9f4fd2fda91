"""``p3d-regression doctor`` without the seven seconds of the interpreter that it asks."""

import subprocess
from pathlib import Path

import p3d_regression.cli
from support.preforked import Preforked

_PROBE = Path(p3d_regression.cli.__file__).with_name("doctor_probe.py")


def ask_doctor(environment: Preforked, *options: str) -> subprocess.CompletedProcess[str]:
    """Run its probe as a fork, then the command, which gets the probe's answer instead of starting an interpreter."""
    probed = environment.run("python", _PROBE)
    return environment.python_code(f"""
import subprocess
subprocess.run = lambda command, **_: subprocess.CompletedProcess(
    command, {probed.returncode}, {probed.stdout!r}, {probed.stderr!r}
)
from p3d_regression.cli.main import main
main(["doctor", *{options!r}])
""")

"""Python environments with and without the plugin, and programs run in them."""

import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Variables of the caller that would change what is tested.
_CLEARED = (
    "TORCH_DEVICE_BACKEND_AUTOLOAD",
    "P3D_REGRESSION_DISABLE",
    "P3D_REGRESSION_BLOCK_PLUGINS",
    "P3D_REGRESSION_CHECKS",
    "PYTHONPATH",
    "PYTHONWARNINGS",
)

#: Variables of the tests and of whatever they run: on tiny volumes threads wait for each other most of their time.
FAST = {
    "P3D_REGRESSION_TRACEBACK": "1",
    "OMP_NUM_THREADS": "1",
    # memory is used again, not given back at every training step, which is a quarter of the time
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}

#: Variables of whatever is run.
_ALWAYS = {
    # a console script does not see the current directory, so `python -c` must not either
    "PYTHONSAFEPATH": "1",
    "COLUMNS": "200",
    **FAST,
}


class Programs(ABC):
    """Somewhere to run programs."""

    @abstractmethod
    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a console script, or ``python`` itself, to its end."""

    @abstractmethod
    def having(self, **variables: str) -> "Programs":
        """The same with more environment variables."""

    def python_code(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a piece of Python in an interpreter of its own."""
        return self.run("python", "-c", textwrap.dedent(code))

    def check(self, code: str) -> str:
        """Run a piece of Python that must succeed; return what it printed."""
        result = self.python_code(code)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@dataclass(frozen=True)
class Environment(Programs):
    """An interpreter, its scripts, and variables to set for whatever runs in it.

    Attributes:
        python: the interpreter; console scripts lie beside it.
        variables: environment variables.
        scripts: a directory whose console scripts are preferred to those.
    """

    python: Path
    variables: dict[str, str] = field(default_factory=dict)
    scripts: Path | None = None

    @classmethod
    def current(cls) -> "Environment":
        return cls(Path(sys.executable))

    def having(self, **variables: str) -> "Environment":
        """The same with more environment variables."""
        return replace(self, variables=self.variables | variables)

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a console script, or ``python`` itself, of this environment to its end."""
        return subprocess.run(
            self._command(*command), env=self.all_variables(), cwd=cwd, capture_output=True, text=True, check=False
        )

    def start(self, *command: object, output: Path) -> subprocess.Popen[bytes]:
        """Start the same and do not wait for its end; what it prints goes to a file."""
        with output.open("wb") as file:
            return subprocess.Popen(self._command(*command), env=self.all_variables(), stdout=file, stderr=file)

    def serve(self, code: str) -> subprocess.Popen[str]:
        """Start a piece of Python that answers lines on its standard input with lines on its standard output."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._command("python", "-c", code), env=self.all_variables(), stdin=pipe, stdout=pipe, text=True
        )

    def script(self, name: str) -> Path:
        """Where a console script lies."""
        preferred = self.scripts / name if self.scripts else None
        return preferred if preferred and preferred.exists() else self.python.parent / name

    def all_variables(self) -> dict[str, str]:
        """What a program of this environment finds in ``os.environ``."""
        variables = {key: value for key, value in os.environ.items() if key not in _CLEARED}
        return variables | _ALWAYS | self.variables

    def _command(self, program: object, *arguments: object) -> list[str]:
        if program == "python":
            start = [self.python]
        else:
            script = self.script(str(program))
            # pip writes a script of --target for the interpreter that it runs in itself
            start = [script] if script.parent == self.python.parent else [self.python, script]
        return [str(part) for part in (*start, *arguments)]


def bare_environment(directory: Path) -> Environment:
    """Make a virtual environment that has everything this one has, linked, but not the plugin."""
    venv.create(directory, with_pip=False, symlinks=True)
    scripts = directory / Path(sysconfig.get_path("scripts")).name
    python = scripts / Path(sys.executable).name
    libraries = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    for folder in (Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")):
        for entry in folder.iterdir():
            target = libraries / entry.name
            if "p3d_regression" not in entry.name and entry.suffix != ".pth" and not target.exists():
                target.symlink_to(entry)
    for command in ("train3dunet", "predict3dunet"):
        _, *rest = (Path(sys.executable).parent / command).read_text().splitlines()
        script = scripts / command
        script.write_text("\n".join([f"#!{python}", *rest]))
        script.chmod(0o755)
    return Environment(python)


def build_wheel(source: Path, directory: Path) -> Path:
    """Build the wheel of a source tree with what is installed here, without a network."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, source)
    (wheel,) = directory.glob("*.whl")
    return wheel


def install_to(directory: Path, wheel: Path) -> None:
    """``pip install --target``: for users who may not write to the environment."""
    pip("install", "--no-deps", "--no-index", "--target", directory, wheel)


#: What upstream 1.3.8 needs on Python 3.10 and newer: a name that has moved since.
_SHIM = """\
import collections.abc
collections.Sequence = collections.abc.Sequence
"""


def fork_environment(directory: Path) -> Environment:
    """This environment with upstream 1.3.8 in front: a fork on PyPI that installs the same import package.

    Raises:
        subprocess.CalledProcessError: there is no package index.
    """
    command = ["-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", "--target", directory]
    subprocess.run([sys.executable, *command, "pytorch3dunet-spotmax==1.0.0"], check=True)
    (directory / "sitecustomize.py").write_text(_SHIM)
    return replace(Environment.current().having(PYTHONPATH=str(directory)), scripts=directory / "bin")


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

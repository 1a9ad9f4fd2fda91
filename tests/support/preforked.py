"""Programs of an environment, each in an interpreter of its own, without importing torch for each of them anew.

An interpreter needs four seconds to import what these programs need. Here one process of the environment imports torch,
told not to load its plugins, and every third-party package; each program is a fork of that process. In a fork, `import
torch` does what the last lines of torch/__init__.py do: it loads the entry points. So a fork begins where a fresh
interpreter is at the end of `import torch`, with nothing of this project or of pytorch-3dunet imported. That a fresh
interpreter gets there is tested with ``Environment.run``, once for each kind of program.
"""

import json
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from support.environments import Environment, Programs

_SERVER = """
import importlib, importlib.machinery, json, logging, os, runpy, sys, threading, types, warnings
import torch
import pytorch3dunet.train, pytorch3dunet.predict
import importlib.metadata, click.testing, pluggy, rich.console, rich.table, torchmetrics, yaml

# the first optimizer of a process loads torch's compiler
torch.optim.Adam([torch.zeros(1, requires_grad=True)])

# all that imports of pytorch-3dunet leave behind; its loggers would get their handlers once more
for name in pytorch3dunet.unet3d.utils.loggers:
    del logging.root.manager.loggerDict[name]
for name in list(sys.modules):
    if name.partition(".")[0] == "pytorch3dunet":
        del sys.modules[name]
assert "p3d_regression" not in sys.modules


class Wake:
    # Finds torch where it is loaded already, and does the rest of its import.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torch":
            return None
        spec = importlib.machinery.ModuleSpec(name, Wake, origin=torch.__spec__.origin, is_package=True)
        spec.submodule_search_locations = torch.__path__
        return spec

    @staticmethod
    def create_module(spec):
        return torch

    @staticmethod
    def exec_module(module):
        if torch._is_device_backend_autoload_enabled():
            torch._import_device_backends()


def start(program, arguments, variables):
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    importlib.invalidate_caches()
    for option in filter(None, variables.get("PYTHONWARNINGS", "").split(",")):
        warnings._setoption(option)
    del sys.modules["torch"]
    sys.meta_path.insert(0, Wake)
    if program == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
    elif program == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for name in ("stdout", "stderr"):
                file = open(f"{request['output']}.{name}", "w", buffering=1)
                os.dup2(file.fileno(), getattr(sys, name).fileno())
            start(request["program"], request["arguments"], request["variables"])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            # upstream does not close its event writer, and nothing waits for its thread here
            for thread in threading.enumerate():
                if type(thread).__name__ == "_AsyncWriterThread":
                    thread.stop()
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (AttributeError, ValueError):
                    pass  # the program has closed it
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
"""


class _Server:
    """The process that is forked, started when it is first needed."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment.having(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._runs = 0
        self._lock = Lock()

    def run(self, program: str, arguments: list[str], variables: dict[str, str]) -> tuple[int, str, str]:
        with self._lock:
            if self._process is None:
                self._process = self._environment.serve(_SERVER)
            assert self._process.stdin
            assert self._process.stdout
            self._runs += 1
            output = self._directory / f"{self._runs}"
            request = {"program": program, "arguments": arguments, "variables": variables, "output": str(output)}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
        printed, errors = (output.with_suffix(suffix).read_text() for suffix in (".stdout", ".stderr"))
        return code, printed, errors

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.close()
            self._process.wait(60)
            self._process.stdout.close()


@dataclass(frozen=True)
class Preforked(Programs):
    """An environment whose programs are forks; use it as a context manager.

    Args:
        environment: whose interpreter, scripts and variables.
        directory: for what the programs print.
    """

    environment: Environment
    directory: Path
    server: _Server = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.server is None:
            object.__setattr__(self, "server", _Server(self.environment, self.directory))

    def __enter__(self) -> "Preforked":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def having(self, **variables: str) -> "Preforked":
        """The same with more environment variables, PYTHONPATH and PYTHONWARNINGS among them."""
        return replace(self, environment=self.environment.having(**variables))

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """What ``Environment.run`` does."""
        program, *arguments = map(str, command)
        if program == "python":
            program, *arguments = arguments
        else:
            program = str(self.environment.script(program))
        code, printed, errors = self.server.run(program, arguments, self.environment.all_variables())
        return subprocess.CompletedProcess(command, code, printed, errors)

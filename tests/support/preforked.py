"""Upstream's console scripts, many times, without importing torch for each of them anew.

A console script takes four seconds to import what it needs. Here one process of an environment imports it, as the
script would, and each run is a fork of that process which then executes the installed script. Tests of how the plugin
becomes active start the scripts themselves, see ``Environment.run``.
"""

import json
import subprocess
from pathlib import Path

from support.environments import Environment

_SERVER = """
import json, os, runpy, sys, threading
import pytorch3dunet.train, pytorch3dunet.predict
import torch
import torchmetrics  # most of what is run here names one of its metrics

# the first optimizer of a process loads torch's compiler
torch.optim.Adam([torch.zeros(1, requires_grad=True)])

for line in sys.stdin:
    script, *arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for name in ("stdout", "stderr"):
                file = open(f"{script['output']}.{name}", "w", buffering=1)
                os.dup2(file.fileno(), getattr(sys, name).fileno())
            sys.argv = [script["path"], *arguments]
            runpy.run_path(script["path"], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            # upstream does not close its event writer, and nothing waits for its thread here
            for thread in threading.enumerate():
                if type(thread).__name__ == "_AsyncWriterThread":
                    thread.stop()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
"""


class Preforked:
    """Runs console scripts of an environment; use it as a context manager.

    Args:
        environment: whose scripts and variables.
        directory: for what the scripts print.
    """

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._runs = 0

    def __enter__(self) -> "Preforked":
        self._server = self._environment.serve(_SERVER)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def run(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """What ``Environment.run`` does, for upstream's two commands."""
        self._runs += 1
        output = self._directory / f"{self._runs}"
        script = {"path": str(self._environment.script(command)), "output": str(output)}
        self._server.stdin.write(json.dumps([script, *map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        printed = [output.with_suffix(suffix).read_text() for suffix in (".stdout", ".stderr")]
        return subprocess.CompletedProcess([command, *arguments], code, *printed)

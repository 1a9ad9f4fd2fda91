"""Upstream alone, made to walk into what the rules of ``p3d-regression check`` warn of."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import LABEL_RANGE, Labels, Trained, prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

#: Nothing is wrong with this one: it ends in its last convolution.
MODEL = {"name": "UNet3D", "is_segmentation": False}

#: What a question to upstream starts with; its answer is the last line that it prints.
_QUESTION = """\
import json, sys
import numpy as np
import torch
import yaml

with open(sys.argv[1]) as file:
    config = yaml.safe_load(file)
"""


@dataclass(frozen=True)
class Run:
    """One run of a command of upstream.

    Attributes:
        config: its config file.
        found: codes of the rules that found something in the config, before the command was run.
        result: how it ended.
        left: what it left behind.
    """

    config: Path
    found: set[str]
    result: subprocess.CompletedProcess[str]
    left: Trained

    def succeeded(self) -> "Run":
        """Insist on it."""
        assert self.result.returncode == 0, self.result.stdout[-2000:] + self.result.stderr[-4000:]
        return self

    def failed_with(self, error: str) -> "Run":
        """Insist on it: the last line of the traceback starts with this."""
        assert self.result.returncode != 0, self.result.stdout[-2000:]
        last = [line for line in self.result.stderr.splitlines() if line and not line.startswith(" ")][-1]
        assert last.startswith(error), self.result.stderr[-4000:]
        return self


@dataclass(frozen=True)
class Trap:
    """A directory with volumes, and upstream's commands on them.

    The changes are lines that make a config other than the sound one; ``...`` takes a line away.
    """

    server: Preforked
    directory: Path

    def training_config(self, changes: Mapping[str, Any], *, iterations: int = 4) -> dict[str, Any]:
        config = training_config(self.directory, MODEL, iterations=iterations)
        return _without_gaps(merged(config, changes))

    def train(self, changes: Mapping[str, Any], *, iterations: int = 4) -> Run:
        return self._run("train3dunet", self.training_config(changes, iterations=iterations))

    def predict(self, changes: Mapping[str, Any]) -> Run:
        return self._run("predict3dunet", merged(prediction_config(self.directory, MODEL), changes))

    def _run(self, command: str, config: Mapping[str, Any]) -> Run:
        path = write_config(self.directory / f"{command}.yml", _without_gaps(config))
        found = codes(path)
        return Run(path, found, self.server.run(command, "--config", path), Trained(self.directory, "", ""))

    def ask(self, question: str, changes: Mapping[str, Any]) -> tuple[Any, set[str]]:
        """Let upstream's own functions say what they make of a training config.

        Args:
            question: Python that knows ``config`` and prints JSON.
            changes: of the config.

        Returns:
            the answer, and codes of the rules that find something in the config.
        """
        config = merged(training_config(self.directory, MODEL), changes)
        path = write_config(self.directory / "asked.yml", _without_gaps(config))
        script = self.directory / "question.py"
        script.write_text(_QUESTION + question)
        result = self.server.run(str(script), path)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return json.loads(result.stdout.splitlines()[-1]), codes(path)

    def edit(self, name: str, **datasets: Any) -> None:
        """Replace datasets of ``train.h5`` or ``val.h5``, or add some: arrays, or functions of what is there."""
        with h5py.File(self.directory / f"{name}.h5", "a") as file:
            for key, value in datasets.items():
                new = value({key: dataset[()] for key, dataset in file.items()}) if callable(value) else value
                if key in file:
                    del file[key]
                file[key] = np.asarray(new)


class Traps:
    """Makes them, each in a directory of its own."""

    def __init__(self, server: Preforked, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self._made = 0

    def new(self, *, labels: Labels = LABEL_RANGE) -> Trap:
        self._made += 1
        directory = self._directory / f"trap-{self._made}"
        directory.mkdir()
        write_volumes(directory, labels=labels)
        return Trap(self._server, directory)


#: Recommends a line for labels that are far from mean 0 and standard deviation 1, as those of the traps are.
RECOMMENDATION = "P3D704"


def codes(path: Path) -> set[str]:
    """Of the rules that find something wrong in a config file and its data."""
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code for finding in report.findings} - {RECOMMENDATION}


def is_recommended(path: Path) -> bool:
    """Whether the labels of a config file want a target scaling."""
    chosen = [rule for rule in rules() if rule.code == RECOMMENDATION]
    return bool(check_file(str(path), [], chosen, with_data=True, progress=Silent()).findings)


def _without_gaps(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return config
    return {key: _without_gaps(value) for key, value in config.items() if value is not ...}

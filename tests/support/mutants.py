"""Valid configs with one thing changed at random: dropped, misspelled, moved, or of another type.

``python -m support.mutants COUNT [--data]`` in the directory ``tests`` checks that many and prints what it took.
"""

import copy
import datetime
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import Report, check_file
from support.checks import Silent
from support.lab import prediction_config, training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}

#: What people and programs write in the place of something else.
VALUES: list[Any] = [None, [], {}, "", "text", "1e-3", "10", -1, 0, 0.5, 10**9, float("nan"), [None], [[1]], True]
VALUES += [datetime.date(2026, 1, 1), [1, 2, 3], {"name": "x"}, ["a", "b"], "none"]


def places(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a config."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def mutant(config: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    path = draw.choice(list(places(changed)))
    home, key = at(changed, path[:-1]), path[-1]
    kind = draw.choice(["drop", "misspell", "value", "value", "value", "move"])
    if kind == "drop":
        del home[key]
    elif kind == "misspell" and isinstance(key, str):
        place = draw.randrange(len(key))
        home[key[:place] + draw.choice("xyz_") + key[place + 1 :]] = home.pop(key)
    elif kind == "move" and isinstance(key, str) and len(path) > 1:
        above = at(changed, path[:-2])
        if isinstance(above, dict):
            above[key] = home.pop(key)
    else:
        home[key] = copy.deepcopy(draw.choice(VALUES))
    return changed


def check_mutants(
    directory: Path, count: int, *, with_data: bool, seed: int = 0
) -> Iterator[tuple[Path, Report, float]]:
    """Check mutants of a training and a prediction config; yields the file, the report, and the seconds."""
    draw = random.Random(seed)
    directory.mkdir(exist_ok=True)
    write_volumes(directory)
    train = training_config(directory, MODEL)
    train["lr_scheduler"] = {"name": "ReduceLROnPlateau", "mode": "min", "patience": 10}
    predict = prediction_config(directory, {"name": "UNet3D"})
    for number in range(count):
        config = mutant(train if number % 3 else predict, draw)
        path = write_config(directory / f"mutant_{number}.yml", config)
        start = time.perf_counter()
        report = check_file(str(path), [], rules(), with_data=with_data, progress=Silent())
        yield path, report, time.perf_counter() - start


def main() -> None:
    count, with_data = int(sys.argv[1]), "--data" in sys.argv
    slowest, failures, errors, clean = 0.0, [], 0, 0
    with tempfile.TemporaryDirectory() as directory:
        for path, report, seconds in check_mutants(Path(directory), count, with_data=with_data):
            slowest = max(slowest, seconds)
            failures += [f"{path.name}: {failure}" for failure in report.failures]
            errors += any(finding.is_error for finding in report.findings)
            clean += not report.findings
    print(*failures, sep="\n")
    print(f"{count} mutants: {errors} with errors, {clean} with no finding, {len(failures)} failures")
    print(f"slowest {slowest:.2f} s")


if __name__ == "__main__":
    main()

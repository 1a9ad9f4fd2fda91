"""The time of `p3d-regression check --no-data` beyond the imports of a training, in paired runs of whole processes.

    python benchmarks/check_time.py [--pairs N]

Each pair runs `python -c "import pytorch3dunet.train"` and the command on a training config, in alternating order.
Prints the median difference in seconds and the median ratio of wall time, with the quartiles.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.environments import Environment  # noqa: E402
from support.lab import training_config, write_config  # noqa: E402


def seconds(environment: Environment, *command: object) -> float:
    start = time.perf_counter()
    result = environment.run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    environment = Environment.current()
    with tempfile.TemporaryDirectory() as directory:
        config = training_config(Path(directory), {"name": "UNet3D", "final_activation": "none"})
        path = write_config(Path(directory, "train.yml"), config)
        sides = {
            "import": ("python", "-c", "import pytorch3dunet.train"),
            "check": ("p3d-regression", "check", "--no-data", path),
        }
        for command in sides.values():
            seconds(environment, *command)  # fill the file cache and write the byte code
        measured: list[dict[str, float]] = []
        for index in range(pairs):
            order = list(sides) if index % 2 else list(reversed(sides))
            measured.append({name: seconds(environment, *sides[name]) for name in order})
    print(f"{pairs} pairs, check --no-data against import pytorch3dunet.train, median of wall time (quartiles)")
    print(f"difference in s   {summary([pair['check'] - pair['import'] for pair in measured])}")
    print(f"ratio             {summary([pair['check'] / pair['import'] for pair in measured])}")


def summary(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.3f} ({low:.3f} .. {high:.3f})"


if __name__ == "__main__":
    main()

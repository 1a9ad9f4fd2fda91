"""The cost of the plugin at start-up, in paired runs of whole interpreters with and without it.

    python benchmarks/import_time.py [--pairs N]

Creates two virtual environments that differ only in the plugin. Each statement is run in both, in alternating order,
and the ratio with/without is taken pair by pair, so that a drift in the speed of the machine affects both sides. Prints
the median ratio of wall time and of processor time, with the quartiles.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.environments import Environment, bare_environment, build_wheel, install_to  # noqa: E402

STATEMENTS = ["pass", "import torch", "import pytorch3dunet.train"]


def measure(environment: Environment, statement: str) -> tuple[float, float]:
    """Wall and processor seconds of one interpreter."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([environment.python, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(with_plugin: Environment, without: Environment, statement: str, pairs: int) -> None:
    for environment in (with_plugin, without):
        measure(environment, statement)  # fill the file cache and write the byte code
    wall, processor = [], []
    for index in range(pairs):
        sides = [with_plugin, without] if index % 2 else [without, with_plugin]
        times = {id(side): measure(side, statement) for side in sides}
        plugin, plain = times[id(with_plugin)], times[id(without)]
        wall.append(plugin[0] / plain[0])
        processor.append(plugin[1] / plain[1])
    print(f"{statement:<30} {summary(wall)}   {summary(processor)}", flush=True)


def summary(ratios: list[float]) -> str:
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({low:.3f} .. {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as directory:
        without, with_plugin = (bare_environment(Path(directory, name)) for name in ("without", "with"))
        (libraries,) = Path(directory, "with").glob("lib/python*/site-packages")
        install_to(libraries, build_wheel(ROOT, Path(directory, "wheel")))
        active = "import torch, p3d_regression; assert p3d_regression.is_active()"
        assert subprocess.run([with_plugin.python, "-c", active], check=False).returncode == 0
        assert subprocess.run([without.python, "-c", active], check=False, capture_output=True).returncode != 0
        print(f"{pairs} pairs, median ratio with/without the plugin (quartiles)")
        print(f"{'':<30} {'wall time':<24} processor time")
        for statement in STATEMENTS:
            compare(with_plugin, without, statement, pairs)


if __name__ == "__main__":
    main()

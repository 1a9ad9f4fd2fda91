"""The whole demo: data, training, prediction, report."""

import errno
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from p3d_regression.demo.training import Run
from p3d_regression.errors import DemoError

#: Marks a directory as made by the demo, and lists its files as they were written: name -> SHA-256.
MARKER = ".p3d-regression-demo.json"


def run_demo(out: Path, *, iterations: int, compare: bool) -> None:
    """Train, predict and report.

    Args:
        out: directory for everything that is written; made if need be.
        iterations: of training.
        compare: also train with the last layers of pytorch-3dunet itself.

    Raises:
        DemoError: a package is missing, ``out`` contains foreign or changed files, the disk is full, or a command
            failed.
    """
    _require("nilearn", "matplotlib")
    try:
        _run_demo(out.absolute(), iterations, compare)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DemoError(
            f"{out}: {str(error.strerror).lower()}; choose a directory on another disk with --out."
        ) from error


def _run_demo(out: Path, iterations: int, compare: bool) -> None:
    from p3d_regression.demo.data import load_hemispheres
    from p3d_regression.demo.report import draw, evaluate, read_prediction, table
    from p3d_regression.evaluation.report import write

    runs = _plan(out, iterations, compare)
    console = Console()
    if (out / MARKER).exists():
        console.print(f"Replacing the earlier demo in {out}", markup=False, soft_wrap=True)
    _claim(out, runs)
    console.print("Computing the distance to white matter in the MNI152 brain ...")
    train, test = load_hemispheres()
    train.write(runs["none"].train_file)
    test.write(runs["none"].test_file)
    predictions, evaluations = {}, {}
    for run in runs.values():
        _train(run, console)
        run.predict()
        predictions[_title(run)] = read_prediction(run.predictions)
        evaluations[_title(run)] = evaluate(run.directory / "predict.yml")
    draw(predictions, test, out / "demo.png")
    main = next(iter(evaluations.values()))
    write(main, out / "report.html")
    _remember(out, _files(out, runs))
    console.print(table(evaluations))
    console.print(f"The prediction is {main.verdict}.", markup=False, highlight=False, soft_wrap=True)
    files = [out / "report.html", out / "demo.png", *runs["none"].configs(), runs["none"].predictions]
    console.print(
        "Report, picture, configs and prediction:", *files, sep="\n  ", markup=False, highlight=False, soft_wrap=True
    )


def _require(*modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise DemoError(f"The demo needs {' and '.join(missing)}: pip install 'p3d-regression[demo]'")


def _plan(out: Path, iterations: int, compare: bool) -> dict[str, Run]:
    directories = {"none": out}
    if compare:
        directories |= {"sigmoid": out / "upstream-sigmoid", "softmax": out / "upstream-softmax"}
    return {
        layer: Run(layer, directory, out / "train.h5", out / "test.h5", iterations)
        for layer, directory in directories.items()
    }


def _title(run: Run) -> str:
    if run.final_layer == "none":
        return "final_activation: none"
    return f"pytorch-3dunet's {run.final_layer}"


def _files(out: Path, runs: dict[str, Run]) -> list[Path]:
    """The results of these runs, whether they exist yet or not."""
    files = [out / "train.h5", out / "test.h5", out / "demo.png", out / "report.html"]
    for run in runs.values():
        files += [*run.configs(), *run.outputs()]
    return files


def _claim(out: Path, runs: dict[str, Run]) -> None:
    """Make the directories and write the configs; refuse to touch anything the demo did not write."""
    marker = out / MARKER
    if not marker.exists() and out.exists() and any(out.iterdir()):
        raise DemoError(f"{out} is not empty and was not made by this demo; choose another directory with --out.")
    written = _read_marker(marker)
    for name, digest in written.items():
        path = out / name
        if path.exists() and _digest(path) != digest:
            raise DemoError(f"{path} has been changed since the demo wrote it; choose another directory with --out.")
    configs = {path: text for run in runs.values() for path, text in run.configs().items()}
    for path in configs:
        if path.exists() and _key(path, out) not in written:
            raise DemoError(f"{path} was not written by this demo; choose another directory with --out.")
    # not listed until the end of the run: an interrupted one leaves them half replaced
    for path in _files(out, runs):
        written.pop(_key(path, out), None)
    # listed before they are written, and never half written: the next run accepts them wherever this one ends
    for path, text in configs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        written[_key(path, out)] = hashlib.sha256(text.encode()).hexdigest()
    _write(marker, json.dumps(written, indent=2))
    for path, text in configs.items():
        _write(path, text)


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(text.encode())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _read_marker(marker: Path) -> dict[str, str]:
    if not marker.exists():
        return {}
    try:
        written: dict[str, str] = json.loads(marker.read_text())
    except ValueError as error:
        raise DemoError(f"{marker} is damaged; choose another directory with --out.") from error
    return written


def _remember(out: Path, paths: list[Path]) -> None:
    """Add the current content of the files to the marker."""
    written = _read_marker(out / MARKER) | {_key(path, out): _digest(path) for path in paths if path.exists()}
    _write(out / MARKER, json.dumps(written, indent=2))


def _key(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _train(run: Run, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(_title(run), total=run.iterations)

        def show(finished: int, mse: float | None) -> None:
            bar.update(task, completed=finished)
            if mse is not None:
                title = f"{_title(run)}, validation MSE {mse:.1f}"
                bar.update(task, description=title)
                if not console.is_terminal:
                    console.print(f"{title} after {min(finished, run.iterations)} of {run.iterations} iterations")

        run.train(show)
        bar.update(task, completed=run.iterations)

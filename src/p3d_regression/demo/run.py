"""The whole demo: data, training, prediction, report."""

import errno
import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from p3d_regression.demo.jobs import JOBS, UPSTREAMS_LAYERS, Job
from p3d_regression.demo.training import Run
from p3d_regression.errors import DemoError

#: Marks a directory as made by the demo, and lists its files as they were written: name -> SHA-256.
MARKER = ".p3d-regression-demo.json"

_SHOWS = (
    "Trained on the back and the front of a brain, validated and tested on two parts between; only voxels of the brain "
    "count. This shows that the software works, not how well a U-Net generalises to another person."
)


def run_demo(out: Path, *, job: str, iterations: int, compare: bool) -> Path:
    """Train, predict and report.

    Args:
        out: directory for everything that is written; made if need be.
        job: a key of :data:`p3d_regression.demo.jobs.JOBS`.
        iterations: of training.
        compare: also train with the last layers of pytorch-3dunet itself.

    Returns:
        The report, an HTML file.

    Raises:
        DemoError: a package is missing, ``out`` contains foreign or changed files, the disk is full, or a command
            failed.
    """
    _require("nilearn", "matplotlib")
    try:
        return _run_demo(out.absolute(), job, iterations, compare)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DemoError(
            f"{out}: {str(error.strerror).lower()}; choose a directory on another disk with --out."
        ) from error


def _run_demo(out: Path, chosen: str, iterations: int, compare: bool) -> Path:
    from p3d_regression.demo.data import load_brain
    from p3d_regression.demo.report import draw, evaluate, read_prediction, table
    from p3d_regression.evaluation.report import write
    from p3d_regression.evaluation.words import remarks

    job = JOBS[chosen]
    runs = _plan(out, job, iterations, compare)
    main = runs["none"]
    console = Console()
    if (out / MARKER).exists():
        console.print(f"Replacing the earlier demo in {out}", markup=False, soft_wrap=True)
    _claim(out, runs)
    console.print(f"{job.title}: making volumes of the MNI152 brain ...", markup=False, soft_wrap=True)
    parts = job.parts(load_brain())
    for path, part in zip(main.volumes(), parts.values(), strict=True):
        part.write(path)
    predictions, evaluations = {}, {}
    for layer, run in runs.items():
        title = _title(run, layer)
        _train(run, title, console)
        run.predict()
        predictions[title] = read_prediction(run.predictions)
        evaluations[title] = evaluate(run.directory / "predict.yml")
    draw(job, predictions, parts["test"], out / "demo.png")
    found = next(iter(evaluations.values()))
    report = out / "report.html"
    write(found, report)
    _remember(out, _files(out, runs))
    console.print(table(job, evaluations))
    console.print(f"The prediction is {found.verdict}.", markup=False, highlight=False, soft_wrap=True)
    for remark in remarks(found.plain):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    console.print(_SHOWS, markup=False, highlight=False, soft_wrap=True)
    files = [report, out / "demo.png", *main.configs(), main.predictions]
    console.print(
        "Report, picture, configs and prediction:", *files, sep="\n  ", markup=False, highlight=False, soft_wrap=True
    )
    return report


def _require(*modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise DemoError(f"The demo needs {' and '.join(missing)}: pip install 'p3d-regression[demo]'")


def _plan(out: Path, job: Job, iterations: int, compare: bool) -> dict[str, Run]:
    runs = {"none": Run(job, out, out, iterations)}
    if compare:
        for layer, line in UPSTREAMS_LAYERS.items():
            runs[layer] = Run(replace(job, model=(line,)), out / f"upstream-{layer}", out, iterations)
    return runs


def _title(run: Run, layer: str) -> str:
    if layer != "none":
        return f"pytorch-3dunet's {layer}"
    return run.job.model[0].partition("  #")[0]


def _files(out: Path, runs: dict[str, Run]) -> list[Path]:
    """The results of these runs, whether they exist yet or not."""
    files = [out / "demo.png", out / "report.html"]
    for run in runs.values():
        files += [*run.volumes(), *run.configs(), *run.outputs()]
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


def _train(run: Run, title: str, console: Console) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=run.iterations)

        def show(finished: int, score: float | None) -> None:
            bar.update(task, completed=finished)
            if score is not None:
                scored = f"{title}, validation R2 {score:.3f}"
                bar.update(task, description=scored)
                if not console.is_terminal:
                    progress = f"{scored} after {min(finished, run.iterations)} of {run.iterations} iterations"
                    console.print(progress, markup=False, soft_wrap=True)

        run.train(show)
        bar.update(task, completed=run.iterations)

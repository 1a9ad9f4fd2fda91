"""From volumes to configs that ``check`` finds nothing against."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p3d_regression._version import __version__
from p3d_regression.checks import registry
from p3d_regression.checks.docs import DOCS_URL
from p3d_regression.checks.reading import Progress
from p3d_regression.checks.rule import Finding
from p3d_regression.checks.run import check_file
from p3d_regression.conversion.pairing import Found
from p3d_regression.errors import VolumesError
from p3d_regression.planning import decisions, layout, prediction
from p3d_regression.planning.decisions import Facts
from p3d_regression.planning.fingerprint import Fingerprint, look, measure
from p3d_regression.planning.machine import this_machine
from p3d_regression.planning.plan import Plan
from p3d_regression.planning.size import choose
from p3d_regression.planning.task import SAME, Task, explained, task_of
from p3d_regression.schema.build import schema
from p3d_regression.text import as_size
from p3d_regression.volumes.writing import write_whole

#: Fixes that bring another rule to its turn come to an end after so many.
_MOST_ROUNDS = 6

#: Kinds of labels that may be a line of the raw values without looking like one.
_WHERE_BRIGHTNESS_MAY_COUNT = (None, "counts", "staining")

TRAIN, PREDICT = "train.yml", "predict.yml"

#: For editors, which complete and check keys by it, and the line that they find it by.
SCHEMA = "p3d.schema.json"
FOR_EDITORS = f"yaml-language-server: $schema={SCHEMA}"


@dataclass
class Written:
    """What was written.

    Attributes:
        found: what the volumes hold.
        task: what they are for.
        configs: their paths.
        volumes: files that were written for pytorch-3dunet.
        iterations: of the training.
        findings: of ``check`` that its fixes did not remove.
        failures: what could not be checked.
        notes: for the user.
    """

    found: Fingerprint
    task: Task
    configs: list[Path]
    volumes: list[Path]
    iterations: int
    findings: list[Finding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_free(out: Path, names: Sequence[str] = (TRAIN, PREDICT)) -> None:
    """Refuse to write over files.

    Raises:
        VolumesError: one is there.
    """
    there = [str(path) for path in (out / name for name in names) if path.exists()]
    if there:
        found = f"{there[0]} exists. Delete it" if len(there) == 1 else f"{' and '.join(there)} exist. Delete them"
        raise VolumesError(f"{found}, or write to another directory with --out.")


def init(
    pairs: Found,
    out: Path,
    progress: Progress,
    *,
    task: str | None = None,
    memory: int | None = None,
    iterations: int | None = None,
) -> Written:
    """Look at volumes and write a training and a prediction config, and the volumes if pytorch-3dunet cannot read them.

    Args:
        pairs: of raw volumes and labels.
        out: directory of the configs.
        progress: told of what is read and written.
        task: what the labels are for; None to tell from their values.
        memory: for a training step, in bytes; None for what there is.
        iterations: of the training; None for a number that fits the volumes.

    Raises:
        VolumesError: the volumes cannot be trained on, or a file would be overwritten.
    """
    check_free(out)
    volumes = look(pairs.pairs)
    divided = layout.split(volumes)
    if not layout.is_in_place(divided.parts):
        _check_room(divided, out)
    progress.start("volumes", min(sum(volume.voxels for volume in volumes), 10**9))
    found = measure(volumes, progress.advance)
    _check_values(found)
    decided = task_of(found, task)
    machine = this_machine(memory)
    size = choose(found, machine, divided.smallest, decisions.outputs_of(found, decided))
    files = layout.files_of(divided, out, machine.ram)
    facts = Facts(found, decided, size, machine, files, out, iterations)
    plan = Plan(decisions.training(facts))
    is_new = not layout.directory_of(out).exists()

    def started(name: str, voxels: int) -> Any:
        progress.start(name, voxels)
        return progress.advance

    try:
        written = layout.write_volumes(divided, out, started)
        findings, failures = _checked(plan, out, progress, with_volumes=found.is_complete)
        configs = _write(plan, facts, out)
    except BaseException:
        if is_new:
            shutil.rmtree(layout.directory_of(out), ignore_errors=True)
        raise
    iterations = plan.get("trainer.max_num_iterations")
    return Written(found, decided, configs, written, iterations, findings, failures, _notes(facts, pairs))


def _check_room(divided: layout.Split, out: Path) -> None:
    directory = layout.directory_of(out)
    if directory.exists():
        raise VolumesError(
            f"{directory} exists, and the volumes would be written there. Delete it, or write to another directory "
            "with --out."
        )
    needed = sum(part.info.bytes for part in divided.parts)
    there = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    if shutil.disk_usage(there).free < needed:
        raise VolumesError(
            f"the volumes have to be written as HDF5 for pytorch-3dunet, up to {as_size(needed)}, and the disk"
            f" of {there} has {as_size(shutil.disk_usage(there).free)} left. Write to another disk with --out."
        )


def _check_values(found: Fingerprint) -> None:
    """Refuse volumes that no network can be trained on.

    Raises:
        VolumesError: a channel is constant, or raw values are NaN or infinite.
    """
    for kind, channels in (("raw volumes", found.raw), ("labels", found.label)):
        for index, values in enumerate(channels):
            m, where = values.moments, f" in channel {index}" if len(channels) > 1 else ""
            if not m.finite or m.low == m.high:
                value = f"all {m.low:.6g}" if m.finite else "all NaN or infinite"
                raise VolumesError(f"the {kind} are {value}{where}: there is nothing to learn from.")
            if m.inf or (kind == "raw volumes" and m.nan):
                what = "NaN or infinite" if kind == "raw volumes" else "infinite"
                raise VolumesError(
                    f"{(m.nan + m.inf) / m.count:.2%} of the {kind} are {what}{where}: a network makes NaN of a patch"
                    " with one of them. Write numbers in their place."
                )


def _checked(plan: Plan, out: Path, progress: Progress, *, with_volumes: bool) -> tuple[list[Finding], list[str]]:
    """Apply the fixes of ``check`` to a plan as long as there are some; return what is left."""
    rules = [rule for rule in registry.select([], []) if with_volumes or rule.needs != "volumes"]
    with tempfile.TemporaryDirectory() as directory:
        # the file need not be read: its text is given
        path = str(Path(directory) / TRAIN)
        for _ in range(_MOST_ROUNDS):
            report = check_file(path, [], rules, with_data=True, progress=progress, text=plan.text(""))
            if report.interrupted:
                raise KeyboardInterrupt
            fixes = [(finding, finding.found.fix.changes) for finding in report.findings]
            # a change with a note is an example
            fixable = [finding for finding, changes in fixes if changes and not any(c.note for c in changes)]
            if not fixable or report.failures:
                break
            plan.apply(fixable[0].found.fix, f"{fixable[0].rule.code}: {fixable[0].found.message}")
    return report.findings, report.failures


def _write(plan: Plan, facts: Facts, out: Path) -> list[Path]:
    """Write both configs, or none."""
    trained = prediction.Trained(
        checkpoint=str(Path(plan.get("trainer.checkpoint_dir")) / "best_checkpoint.pytorch"),
        model=plan.get("model.name"),
        raw=plan.get("loaders.val.transformer.raw"),
        patch=plan.get("loaders.train.slice_builder.patch_shape"),
        more={},
        skip_shape_check=bool(plan.get("loaders.train.slice_builder.skip_shape_check")),
    )
    files = facts.files
    inputs = prediction.Inputs(files.test, files.dataset, files.raw, files.label, files.why_test)
    predicted = Plan(prediction.prediction(trained, inputs, facts.machine.device, out))
    texts = {
        out / SCHEMA: schema_text(),
        out / TRAIN: plan.text(_head(f"train3dunet --config {out / TRAIN}", facts)),
        out / PREDICT: predicted.text(_head(f"predict3dunet --config {out / PREDICT}", facts)),
    }
    out.mkdir(parents=True, exist_ok=True)
    check_free(out)
    if (out / SCHEMA).exists():
        # of another time here, and only for editors
        del texts[out / SCHEMA]
    written: list[Path] = []
    try:
        for path, text in texts.items():
            write_whole(path, lambda beside, text=text: beside.write_text(text, encoding="utf-8"))  # type: ignore[misc]
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return [out / TRAIN, out / PREDICT]


def schema_text() -> str:
    """The schema of configs, for editors."""
    return json.dumps(schema(), indent=1, allow_nan=False)


def _head(command: str, facts: Facts) -> str:
    found = facts.found
    counts = f"{len(found.volumes)} volume{'s' if len(found.volumes) > 1 else ''}"
    looked = "" if found.is_complete else f", of which {found.read / found.voxels:.1%} of the voxels were looked at"
    return (
        f"{FOR_EDITORS}\n{command}\n"
        f"Written by `p3d-regression init` {__version__} from {counts}{looked}.\n"
        "Paths start at the directory in which it was run: run pytorch-3dunet in the same one."
    )


def _notes(facts: Facts, pairs: Found) -> list[str]:
    found, notes = facts.found, list(pairs.notes)
    if pairs.without_label:
        notes.append(f"not used, because they have no labels: {', '.join(pairs.without_label)}")
    if pairs.without_raw:
        notes.append(f"not used, because they have no raw volume: {', '.join(pairs.without_raw)}")
    if not found.is_complete:
        notes.append(
            f"{found.read / found.voxels:.1%} of the voxels were looked at: labels that are NaN or very large "
            "elsewhere are not known. `p3d-regression check train.yml` reads all of them"
        )
    if facts.fill is not None:
        notes.append(f"the label {facts.fill:g} is taken for voxels without a label")
    if all(values.is_mask for values in found.label):
        notes.append(
            "the labels are 0 and 1, a mask: the network regresses its probability. For a segmentation with its "
            "metrics take an example of pytorch-3dunet"
        )
    elif facts.task.kind == "counts" and _are_few(found):
        notes.append(
            "the labels have few different whole numbers: if they are classes and not counts, pytorch-3dunet alone is"
            " the program for them"
        )
    share, is_mask = min(explained(found)), any(values.is_mask for values in found.label)
    may_follow = not facts.task.follows and facts.task.kind in _WHERE_BRIGHTNESS_MAY_COUNT and not is_mask
    # with other numbers of channels, residual has to name one of the raw volume
    if share > SAME and may_follow and len(found.raw) in (1, len(found.label)):
        notes.append(
            f"a line through the raw values explains {share:.0%} of the labels, too little to be sure that they follow "
            "the brightness. Where they do, as densities do, model.final_activation: none with model.target_scaling: "
            f"residual learns more: {DOCS_URL}/intensity/"
        )
    return notes


def _are_few(found: Fingerprint) -> bool:
    return all(values.distinct is not None for values in found.label)

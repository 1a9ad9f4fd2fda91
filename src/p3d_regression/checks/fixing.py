"""Applies the fixes of findings to config files."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import unified_diff
from itertools import takewhile
from pathlib import Path

from p3d_regression.checks.config_text import UnchangeableError, changed
from p3d_regression.checks.reading import Progress
from p3d_regression.checks.rule import Finding, Rule
from p3d_regression.checks.run import Report, check_file
from p3d_regression.fix import Change, Fix

#: One fix may bring another rule to its turn, but not this often.
_MOST_ROUNDS = 20


def fix_file(
    path: str, rules: Sequence[Rule], *, with_data: bool, progress: Progress, writes: bool
) -> tuple[Report, str]:
    """Apply fixes to a config file until no more can be applied.

    Fixes without changes are left to the user, and so are those with a note, whose values are examples.

    Args:
        path: of the YAML file. It is replaced as a whole, or stays as it is.
        rules: whose fixes.
        with_data: whether to look at the files that the config names.
        progress: told of the reading of volumes.
        writes: whether to replace the file.

    Returns:
        The report on the fixed config, with what was fixed; and the changes as a unified diff.
    """
    try:
        original = _read(path)
        text, report = _fixed(path, original, rules, with_data=with_data, progress=progress)
        if report.failures or report.interrupted:
            return report, ""
        if writes and text != original:
            _replace(path, original, text)
    except (OSError, UnicodeDecodeError, UnchangeableError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return Report(path, failures=[f"{reason}; the file stays as it is"]), ""
    return report, "".join(_diff(path, original, text))


def _fixed(path: str, text: str, rules: Sequence[Rule], *, with_data: bool, progress: Progress) -> tuple[str, Report]:
    fixed: list[Finding] = []
    seen = {text}
    # as long as there is something to do for the other rules, no volume is read
    for chosen in ([rule for rule in rules if rule.needs != "volumes"], rules):
        for _ in range(_MOST_ROUNDS):
            report = check_file(path, [], chosen, with_data=with_data, progress=progress, text=text)
            if report.failures or report.interrupted:
                return text, report
            if report.view and report.view.duplicate_keys:
                key, line = report.view.duplicate_keys[0]
                raise UnchangeableError(f"line {line} gives {key} a second time: delete one of the two first")
            together = list(_together(report.findings))
            if not together:
                break
            text = changed(text, sum((finding.found.fix for finding in together), Fix()))
            fixed += together
            if text in seen:
                break
            seen.add(text)
        if together:
            codes = ", ".join(sorted({finding.rule.code for finding in together}))
            raise UnchangeableError(f"the fixes of {codes} contradict each other")
    report.fixed = fixed
    return text, report


def _together(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings whose fixes change different parts of a config."""
    taken: list[tuple[str | int, ...]] = []
    for finding in findings:
        changes = finding.found.fix.changes
        places = [_place(change) for change in changes]
        overlaps = any(one[: len(other)] == other[: len(one)] for one in places for other in taken)
        if changes and not overlaps and not any(change.note for change in changes):
            taken += places
            yield finding


def _place(change: Change) -> tuple[str | int, ...]:
    """The key; of an item the whole list, because the other items move."""
    return tuple(takewhile(lambda part: isinstance(part, str), change.path))


def _read(path: str) -> str:
    """The text with its line ends."""
    if not Path(path).is_file() and Path(path).exists():
        raise UnchangeableError("it is not a regular file")
    return Path(path).read_bytes().decode("utf-8")


def _replace(path: str, original: str, text: str) -> None:
    """Replace the content of a file, wholly or not at all. A link stays a link, and its target is replaced."""
    target = Path(os.path.realpath(path))
    if not os.access(target, os.W_OK):
        raise UnchangeableError("it is read-only")
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
        if _read(path) != original:
            raise UnchangeableError("another program has changed it in the meantime")
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _diff(path: str, before: str, after: str) -> Iterator[str]:
    for line in unified_diff(before.splitlines(True), after.splitlines(True), path, path):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"

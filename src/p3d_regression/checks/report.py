"""What ``p3d-regression check`` prints: for a terminal, and as JSON."""

import math
from typing import TYPE_CHECKING, Any

from p3d_regression.checks.data import Phase
from p3d_regression.checks.docs import page_of
from p3d_regression.checks.rule import Finding
from p3d_regression.checks.run import Report
from p3d_regression.labels.linear import RawAndLabels
from p3d_regression.labels.moments import Moments

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COLOURS = {"error": "red", "warning": "yellow"}


def as_dict(report: Report) -> dict[str, Any]:
    """One object of the JSON list.

    Returns:
        ``config``, its path; ``findings``; ``fixed``, findings whose fixes were applied before; ``failures``, what
        could not be done; ``notes``, what was not checked; ``interrupted``; and where data were read ``phases``, each
        with ``labels`` (a mapping per channel), ``floor``,
        ``constant`` and ``floor_per_channel`` by the name of the loss or metric (None where there is no number);
        ``lines``, for each output channel the line of the least squares from raw values to labels of at most 64 patches
        and the part of the labels' variance that it explains; and ``complete``.
    """
    found: dict[str, Any] = {
        "config": report.config,
        "findings": [finding.as_dict() for finding in report.findings],
        "fixed": [finding.as_dict() for finding in report.fixed],
        "failures": report.failures,
        "notes": report.notes,
        "interrupted": report.interrupted,
    }
    phases = {name: phase for name, phase in (report.view.phases if report.view else {}).items() if phase.statistics}
    if phases:
        found["phases"] = {name: _phase(phase) for name, phase in phases.items()}
    return found


def _phase(phase: Phase) -> dict[str, Any]:
    assert phase.statistics is not None
    bounds = phase.bounds()
    return {
        "labels": [_channel(moments) for moments in phase.statistics.channels],
        "floor": {name: bound.floor for name, bound in bounds.items()},
        "constant": {name: bound.constant for name, bound in bounds.items()},
        "floor_per_channel": {name: [_finite(value) for value in bound.per_channel] for name, bound in bounds.items()},
        "lines": [_line(channel, found) for channel, found in (phase.lines.found if phase.lines else {}).items()],
        "complete": phase.statistics.complete,
    }


def _line(channel: int, found: RawAndLabels) -> dict[str, Any]:
    pairs = found.voxels
    return {
        "channel": channel,
        "intercept": _finite(pairs.intercept),
        "slope": _finite(pairs.slope),
        "explained": _finite(pairs.explained),
    }


def _channel(moments: Moments) -> dict[str, Any]:
    return {
        "count": int(moments.count),
        "min": _finite(moments.low),
        "max": _finite(moments.high),
        "mean": _finite(moments.mean),
        "std": _finite(moments.std),
        "nan_count": int(moments.nan),
        "inf_count": int(moments.inf),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(reports: list[Report], console: "Console") -> None:
    """Print the findings, grouped by file."""
    from rich.text import Text

    for report in reports:
        console.print(Text(report.config, "bold"), soft_wrap=True)
        for failure in report.failures:
            _print(console, Text.assemble(("could not be checked: ", "red"), failure), 2)
        for finding in report.fixed:
            line = f"fixed {finding.rule.code} {finding.found.key}: {finding.found.fix.in_one_line}"
            console.print(Text(f"  {line}", "green"), soft_wrap=True)
        if report.findings:
            _show_findings(report, console)
        elif not report.failures:
            console.print(Text("  no findings", "green"))
        for line in _summaries(report):
            _print(console, Text(line), 2)
        for note in report.notes:
            _print(console, Text(note, "yellow"), 2)
        if report.interrupted:
            console.print(Text("  interrupted: some labels were not read", "yellow"))
    errors, warnings = (sum(f.rule.severity == s for r in reports for f in r.findings) for s in _COLOURS)
    console.print(f"{errors} error(s), {warnings} warning(s). `p3d-regression rule CODE` explains a rule.")


def _show_findings(report: Report, console: "Console") -> None:
    from rich.text import Text

    for finding in report.findings:
        head = Text.assemble(_code(finding, console), f" {finding.found.key}: {finding.message} [{finding.rule.name}]")
        _print(console, head, 2)
        for line in str(finding.found.fix).splitlines():
            # a line to paste stays whole
            console.print(Text(f"      {line}", "cyan"), soft_wrap=True)


def _print(console: "Console", text: "Text", indent: int) -> None:
    """On a terminal lines end between words; elsewhere a finding is one line, for grep."""
    from rich.padding import Padding
    from rich.text import Text

    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, indent)))
    else:
        console.print(Text(" " * indent) + text, soft_wrap=True)


def _code(finding: Finding, console: "Console") -> "Text":
    """Code and severity of a rule; on a terminal the code is a link to the rule's page."""
    from rich.text import Text

    colour = _COLOURS[finding.rule.severity]
    page = page_of(finding.rule) if console.is_terminal else None
    code = Text(finding.rule.code, f"{colour} link {page}" if page else colour)
    return code + Text(f" {finding.rule.severity}", colour)


def _summaries(report: Report) -> list[str]:
    """The labels of each phase, and the best loss and score on them."""
    lines = []
    for name, phase in (report.view.phases if report.view else {}).items():
        if phase.statistics is None:
            continue
        for index, labels in enumerate(phase.statistics.channels):
            channel = f" channel {index}" if len(phase.statistics.channels) > 1 else ""
            values = f"{labels.low:.6g} to {labels.high:.6g}, mean {labels.mean:.6g}, std {labels.std:.6g}"
            lines.append(f"{name}{channel}: {labels.count:.0f} labels in its patches, {values}")
        for output, found in (phase.lines.found if phase.lines else {}).items():
            channel = f" channel {output}" if len(phase.lines.found if phase.lines else ()) > 1 else ""
            line = f"{found.voxels.slope:.6g} * raw {'+' if found.voxels.intercept >= 0 else '-'} "
            line += f"{abs(found.voxels.intercept):.6g}, with raw values as the network sees them"
            lines.append(f"{name}{channel}: the best line, {line}, explains {found.voxels.explained:.1%} of the labels")
        for measure, bound in phase.bounds().items():
            if bound.constant is not None:
                limit = "at most" if bound.higher_is_better else "at least"
                floor = "without limit" if bound.floor is None else f"{limit} {bound.floor:.6g}"
                lines.append(f"{name} {measure}: {floor}; the best constant reaches {bound.constant:.6g}")
    return lines

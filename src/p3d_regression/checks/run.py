"""Runs rules on a config."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from p3d_regression.checks.reading import Progress, look
from p3d_regression.checks.rule import Finding, Mode, Needs, Rule
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError
from p3d_regression.model.contract import Adopted, adopt
from p3d_regression.model.precision import KEY as PRECISION
from p3d_regression.model.precision import slow_reason
from p3d_regression.upstream import commands, introspection

logger = logging.getLogger(__name__)

_DEPTHS: tuple[Needs, ...] = ("config", "files", "volumes")


@dataclass
class Report:
    """What is known of one config file.

    Attributes:
        config: its path, as given.
        findings: in the order of the rules.
        failures: why it could not be checked: the file is not a config, or a rule failed.
        notes: what was not checked, so that "no findings" is not taken for more than it is.
        fixed: findings whose fixes were applied before this check.
        view: of the config; None if the file is not a config.
    """

    config: str
    findings: list[Finding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fixed: list[Finding] = field(default_factory=list)
    view: View | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the reading of its volumes was stopped by the user."""
        return self.view is not None and self.view.interrupted

    @property
    def exit_status(self) -> int:
        """0 without errors, 1 with errors, 2 if it could not be checked, or not completely."""
        if self.failures or self.interrupted:
            return 2
        return int(any(finding.rule.severity == "error" for finding in self.findings))


def check_file(
    path: str,
    overrides: Sequence[str],
    rules: Sequence[Rule],
    *,
    with_data: bool,
    progress: Progress,
    text: str | None = None,
) -> Report:
    """Check a config file of either command.

    Args:
        path: of the YAML file.
        overrides: options of pytorch-3dunet that change the config, as on its command line.
        rules: to run.
        with_data: whether to read the files that the config names.
        progress: told of the reading of volumes.
        text: to check in place of the content of the file; only without overrides.
    """
    report = Report(path)
    try:
        config = read(path, overrides, text)
        content = Path(path).read_text(encoding="utf-8") if text is None else text
        duplicates = tuple(_duplicate_keys(yaml.compose(content, yaml.SafeLoader)))
        mode = mode_of(config)
        adopted = _adopted(config, mode) if with_data else None
        report.view = View(config, mode, opens_files=with_data, duplicate_keys=duplicates, adopted=adopted)
    except ConfigError as error:
        report.failures.append(str(error))
        return report
    depth: Needs = "volumes" if with_data else "config"
    try:
        if not with_data:
            omitted = sum(rule.needs != "config" for rule in rules)
            report.notes.append(f"the data were not read, and {omitted} rules about them were not run")
        elif not _names_data(report.view):
            report.notes.append("the data were not read: correct the section loaders first")
        else:
            look(report.view, volumes=any(rule.needs == "volumes" for rule in rules), progress=progress)
    except Exception as error:
        logger.debug("data", exc_info=True)
        report.failures.append(f"the data cannot be read ({type(error).__name__}: {error})")
    report.notes += _slow_precision(report.view)
    report.findings, broken = apply(rules, report.view, depth)
    report.failures += [in_words(code, error) for code, error in broken.items()]
    return report


def _slow_precision(view: View) -> list[str]:
    """What this machine is not fast at; no finding, because it may not be the one that trains."""
    device = introspection.device_name(view.get("device"))
    places = [place for place in (f"trainer.{PRECISION}", f"predictor.{PRECISION}") if view.get(place) is not None]
    return [reason for place in places if (reason := slow_reason(str(view.get(place)), device, place))]


def _adopted(config: dict[str, Any], mode: Mode) -> Adopted | None:
    """Complete a config from its checkpoint, as the commands do."""
    try:
        return adopt(config, mode)
    except Exception:
        logger.debug("contract", exc_info=True)
        return None  # a rule reports what is wrong with the checkpoint


def in_words(code: str, error: Exception) -> str:
    """The error of a rule in one line."""
    return f"the rule {code} failed ({type(error).__name__}: {error})"


def _names_data(view: View) -> bool:
    """Whether the config says which data to read; if not, a rule reports what is missing."""
    loaders = view.section("loaders")
    if not loaders or introspection.dataset_class(loaders.get("dataset") or "StandardHDF5Dataset") is None:
        return False
    return all(isinstance(view.get(f"loaders.{phase}.file_paths"), list) for phase in view.phase_names)


def apply(rules: Sequence[Rule], view: View, depth: Needs) -> tuple[list[Finding], dict[str, Exception]]:
    """Findings of the rules that need no more than ``depth``, and errors of rules that failed, by code."""
    findings: list[Finding] = []
    broken: dict[str, Exception] = {}
    for rule in rules:
        if view.mode in rule.modes and _DEPTHS.index(rule.needs) <= _DEPTHS.index(depth):
            try:
                findings += [Finding(rule, found) for found in rule.check(view)]
            except Exception as error:
                logger.debug("rule %s", rule.code, exc_info=True)
                broken[rule.code] = error
    return findings, broken


def read(path: str, overrides: Sequence[str] = (), text: str | None = None) -> dict[str, Any]:
    """Read a config from a file, or from a text in its place, as pytorch-3dunet's command would.

    Raises:
        ConfigError: the file cannot be read, is not YAML, is no mapping, or does not fit the overrides.
    """
    try:
        config: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise ConfigError("", f"cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError("", f"is not YAML: {' '.join(str(error).split())[:500]}") from error
    if config is None:
        raise ConfigError("", "is empty")
    check_size(config)
    if not isinstance(config, dict):
        what = f"is a {type(config).__name__}, not a mapping with the sections model, loaders, ..."
        raise ConfigError("", what)
    return commands.overridden(path, overrides) if overrides else config


def _unfolded(value: Any, sizes: dict[int, float]) -> float:
    """How many values a config has with its aliases written out.

    Args:
        value: a part of it.
        sizes: of the parts that were counted already, by identity.

    Raises:
        ConfigError: a part contains itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) in sizes:
        if not sizes[id(value)]:
            raise ConfigError("", "an alias stands inside of what it stands for, so that the config has no end")
        return sizes[id(value)]
    sizes[id(value)] = 0  # until it is known
    sizes[id(value)] = 1 + sum(
        _unfolded(item, sizes) for item in (value.values() if isinstance(value, dict) else value)
    )
    return sizes[id(value)]


#: Values of a config with its aliases written out; more would fill the memory.
_MOST_VALUES = 10**6


def check_size(config: Any) -> None:
    """Refuse a config that cannot be written out.

    Raises:
        ConfigError: it contains itself, or is too large or too deep.
    """
    try:
        size = _unfolded(config, {})
    except RecursionError as error:
        raise ConfigError("", "is nested too deeply") from error
    if size > _MOST_VALUES:
        raise ConfigError("", f"its aliases stand for {size:.2g} values")


def _duplicate_keys(node: Any, place: str = "", visited: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """Keys that a YAML mapping gives a second time, with the line."""
    visited = set() if visited is None else visited
    if not isinstance(node, yaml.MappingNode) or id(node) in visited:
        return
    visited.add(id(node))  # an alias is the same node
    seen: set[str] = set()
    for key, value in node.value:
        name = f"{place}{key.value}" if isinstance(key, yaml.ScalarNode) else place
        if name in seen and key.tag != "tag:yaml.org,2002:merge":
            yield name, key.start_mark.line + 1
        seen.add(name)
        yield from _duplicate_keys(value, f"{name}.", visited)


def mode_of(config: Mapping[str, Any]) -> Mode:
    """Which command a config is for.

    Raises:
        ConfigError: for none of them.
    """
    loaders = config.get("loaders")
    phases = loaders if isinstance(loaders, Mapping) else {}
    if "trainer" in config or "train" in phases:
        return "train"
    if "model_path" in config or "test" in phases:
        return "predict"
    raise ConfigError(
        "",
        "is neither a training config (no trainer, no loaders.train) nor a prediction config (no model_path, no "
        "loaders.test)",
    )


def check_config(
    config: Mapping[str, Any], mode: Mode, rules: Sequence[Rule]
) -> tuple[View, list[Finding], dict[str, Exception]]:
    """Check a config that a command is about to use, without its volumes. The config is not changed.

    The files are looked at where the config uses this project: a wrong path is said before labels are read.

    Returns:
        The view of the config, the findings, and the errors of rules that failed, by code.
    """
    check_size(config)
    view = View(copy.deepcopy(dict(config)), mode)
    depth: Needs = "config"
    if view.uses_plugin:
        depth = "files"
        if _names_data(view):
            look(view, volumes=False, progress=None)
    findings, broken = apply([rule for rule in rules if not rule.raised_by_builder], view, depth)
    return view, findings, broken

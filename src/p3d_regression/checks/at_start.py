"""The rules that need no data, when a training or a prediction starts."""

import logging
import os
import textwrap
from collections.abc import Mapping
from typing import Any

from p3d_regression.checks.rule import Finding, Mode
from p3d_regression.checks.run import check_config, in_words
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError
from p3d_regression.model.contract import SETTING
from p3d_regression.upstream.introspection import UnknownUpstreamError
from p3d_regression.upstream.log import console

logger = logging.getLogger(__name__)

_logged: set[str] = set()


_MORE = (
    "`p3d-regression check` on this config also checks its data; `p3d-regression rule CODE` explains a rule. "
    f"`{SETTING}=warn` before the command runs it despite the errors."
)


class RejectedConfigError(ConfigError):
    """A config with errors, before anything was built.

    Attributes:
        findings: the errors.
    """

    def __init__(self, findings: list[Finding]) -> None:
        lines = "\n".join(f"  {finding}" for finding in findings)
        super().__init__("", f"this config has {len(findings)} error(s):\n{lines}\n{_MORE}")
        self.findings = findings

    def for_people(self) -> str:
        """The same in a block, with the lines to write."""
        parts = [f"this config has {len(self.findings)} error(s)."]
        for finding in self.findings:
            parts.append(f"{finding.rule.code} {finding.rule.name}\n{finding.found.key}: {finding.message}")
            if finding.found.fix:
                parts[-1] += f"\n{textwrap.indent(str(finding.found.fix), '    ')}"
        parts.append(_MORE)
        return "\n\n".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.findings,)


def check_at_start(config: Any, mode: Mode) -> None:
    """Log what the rules find in a config that a command is about to use.

    Raises:
        RejectedConfigError: there are errors, and the config uses a key of this project or
            ``P3D_REGRESSION_CHECKS=error``.
    """
    setting = os.environ.get(SETTING, "").strip().lower()
    if setting == "off" or not isinstance(config, Mapping):
        return
    if mode == "predict" and not {"model", "model_path"} <= config.keys():
        return  # only the data are built
    if setting not in ("", "warn", "error"):
        _log(f"{SETTING}={os.environ[SETTING]} is not valid; write off, warn or error")
    try:
        view, findings = _findings(config, mode)
    except Exception as error:
        # an error of a rule must not stop a training
        logger.debug("checks", exc_info=True)
        _log(f"the config could not be checked ({type(error).__name__}: {error})")
        return
    stops = setting == "error" or (setting != "warn" and view.uses_plugin)
    errors = [finding for finding in findings if stops and finding.is_error and finding.rule.stops]
    for finding in findings:
        if finding not in errors:
            _log(str(finding))
    if errors:
        raise RejectedConfigError(errors)


def _findings(config: Mapping[str, Any], mode: Mode) -> tuple[View, list[Finding]]:
    from p3d_regression.checks.registry import rules

    view, findings, failures = check_config(config, mode, rules())
    for code, error in failures.items():
        # of a version of pytorch-3dunet that nobody knows, there is nothing to report
        if not isinstance(error, UnknownUpstreamError):
            _log(in_words(code, error))
    return view, findings


def _log(line: str) -> None:
    if line not in _logged:
        _logged.add(line)
        console().warning(line)

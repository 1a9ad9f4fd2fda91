"""The rules that need no data, when a training or a prediction starts."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from p3d_regression.checks.rule import Finding, Mode
from p3d_regression.checks.run import check_config, in_words
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError
from p3d_regression.upstream.introspection import UnknownUpstreamError
from p3d_regression.upstream.log import console

logger = logging.getLogger(__name__)

#: Environment variable: ``off``, ``warn`` or ``error``.
SETTING = "P3D_REGRESSION_CHECKS"

_said: set[str] = set()


def check_at_start(config: Any, mode: Mode) -> None:
    """Log what the rules find in a config that a command is about to use.

    Raises:
        ConfigError: there are errors, and the config uses a key of this project or ``P3D_REGRESSION_CHECKS=error``.
    """
    setting = os.environ.get(SETTING, "").strip().lower()
    if setting == "off" or not isinstance(config, Mapping):
        return
    if mode == "predict" and not {"model", "model_path"} <= config.keys():
        return  # somebody asks for the data alone
    if setting not in ("", "warn", "error"):
        _say(f"{SETTING}={os.environ[SETTING]} means nothing; there are off, warn and error")
    try:
        view, findings = _findings(config, mode)
    except Exception as error:
        # whatever is wrong with a rule: the training is the user's, not ours
        logger.debug("checks", exc_info=True)
        _say(f"the config could not be checked ({type(error).__name__}: {error})")
        return
    stops = setting == "error" or (setting != "warn" and view.uses_plugin)
    errors = [finding for finding in findings if stops and finding.rule.severity == "error"]
    for finding in findings:
        if finding not in errors:
            _say(str(finding))
    if errors:
        lines = "\n".join(f"  {finding}" for finding in errors)
        raise ConfigError(
            f"the config would not do what it says:\n{lines}\n`p3d-regression check` with this config shows more, also "
            f"about its data; `p3d-regression rule CODE` explains a rule. `{SETTING}=warn` before the command tries it "
            "all the same."
        )


def _findings(config: Mapping[str, Any], mode: Mode) -> tuple[View, list[Finding]]:
    from p3d_regression.checks.registry import rules

    view, findings, failures = check_config(config, mode, rules())
    for code, error in failures.items():
        # about an upstream that nobody has met, there is nothing to say
        if not isinstance(error, UnknownUpstreamError):
            _say(in_words(code, error))
    return view, findings


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        console().warning(line)

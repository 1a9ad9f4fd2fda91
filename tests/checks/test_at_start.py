"""The checks at the start, in this process."""

import copy
import pickle
from pathlib import Path

import pytest

from p3d_regression import ConfigError
from p3d_regression.checks.at_start import RejectedConfigError, check_at_start
from support.checks import merged
from support.lab import prediction_config, training_config, write_volumes


@pytest.fixture(autouse=True)
def no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P3D_REGRESSION_CHECKS", raising=False)


def test_the_error_holds_its_findings(tmp_path: Path) -> None:
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"})
    write_volumes(tmp_path)
    wrong = merged(config, {"trainer": {"eval_score_higher_is_better": True}, "optimizer": {"lr": 0.1}})
    before = copy.deepcopy(wrong)
    with pytest.raises(
        ConfigError, match=r"^this config has 2 error\(s\):\n  P3D202 score-direction: trainer"
    ) as raised:
        check_at_start(wrong, "train")
    assert isinstance(raised.value, RejectedConfigError)
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert [finding.rule.code for finding in error.findings] == ["P3D202", "P3D211"]
        assert "`P3D_REGRESSION_CHECKS=warn` before the command" in str(error)
    assert wrong == before
    # and they can be applied
    for finding in raised.value.findings:
        finding.found.fix.apply_to(wrong)
    check_at_start(wrong, "train")


def test_data_alone_are_not_checked_as_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P3D_REGRESSION_CHECKS", "error")
    config = prediction_config(tmp_path, {"name": "UNet3D"})
    check_at_start({"loaders": config["loaders"], "device": "cpu"}, "predict")

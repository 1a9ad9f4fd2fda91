"""What a prediction's data loaders say."""

from pathlib import Path

import pytest
from pytorch3dunet.datasets.utils import get_test_loaders

from support.lab import prediction_config, write_volumes


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, True),
        ({"blend": "none", "output": "zarr"}, True),
        ({"blend": "gaussian"}, False),
        # of a predictor that is not pytorch-3dunet's
        ({"name": "OwnPredictor", "blend": "own"}, True),
    ],
)
def test_a_halo_is_not_advised_where_patches_are_blended(
    section: dict[str, str],
    said: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # there is no checkpoint
    monkeypatch.setenv("P3D_REGRESSION_CHECKS", "off")
    write_volumes(tmp_path)
    config = prediction_config(tmp_path, {"name": "UNet3D"})
    config["predictor"] |= section
    assert len(list(get_test_loaders(config))) == 1
    assert ("Found halo shape" in caplog.text) == said
    # the next config is one of its own
    caplog.clear()
    del config["predictor"]
    list(get_test_loaders(config))
    assert "Found halo shape" in caplog.text

"""Networks that cannot be built, and patches that cannot go through them: found before, with a change that helps."""

from pathlib import Path
from typing import Any

import pytest
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import prediction_config, training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none"}


def findings(path: Path, *, with_data: bool = False) -> dict[str, Any]:
    report = check_file(str(path), [], rules(), with_data=with_data, progress=Silent())
    assert report.failures == []
    return {
        finding.rule.code: finding.found for finding in report.findings if finding.rule.code in ("P3D111", "P3D112")
    }


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ({"f_maps": [12, 24], "num_groups": 8}, "num_groups", 6),
        ({"f_maps": [10, 20, 40]}, "num_groups", 5),
        ({"f_maps": [8], "num_groups": 4}, "f_maps", [8, 16]),
        ({"f_maps": "8, 16"}, "f_maps", [8, 16]),
        ({"f_maps": [8, "16"]}, "f_maps", [8, 16]),
        ({"f_maps": 8.0, "num_levels": 3}, "f_maps", 8),
        ({"layer_order": "rcg"}, "layer_order", "gcr"),
        ({"layer_order": "gxr"}, "layer_order", "gcr"),
        ({"num_groups": 0}, "num_groups", 8),
        ({"num_levels": 40, "f_maps": 8}, "num_levels", 4),
        ({"name": "ResidualUNet3D", "f_maps": [12, 24], "num_groups": 8}, "num_groups", 6),
        ({"dropout_prob": 5, "layer_order": "gcrd"}, "dropout_prob", 0.1),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, section: dict[str, Any], key: str, value: Any) -> None:
    config = training_config(tmp_path, {"num_groups": 8, **MODEL, **section})
    config["loaders"]["train"]["slice_builder"]["patch_shape"] = [32, 64, 64]
    config["loaders"]["val"]["slice_builder"]["patch_shape"] = [32, 64, 64]
    plain = {name: value for name, value in config["model"].items() if name != "final_activation"}
    if "num_levels" not in section:  # with so many it would fill the memory before it fails
        with pytest.raises(Exception, match=r"^"):
            get_model(plain)
    found = findings(write_config(tmp_path / "bad.yml", config))["P3D111"]
    (change,) = found.fix.changes
    if key != "num_groups" or section.get("num_groups") != 0:
        assert (change.key, change.value) == (f"model.{key}", value)
    fixed = found.fix.applied_to(config)
    get_model({name: value for name, value in fixed["model"].items() if name != "final_activation"})
    assert "P3D111" not in findings(write_config(tmp_path / "good.yml", fixed))


@pytest.mark.parametrize(
    ("section", "patch", "halo", "key"),
    [
        ({"f_maps": [8, 16, 32, 64]}, [4, 64, 64], None, "model.f_maps"),
        ({}, [1, 64, 64], None, None),
        ({"conv_padding": 0}, [4, 64, 64], None, "model.conv_padding"),
        ({"name": "UNet2D"}, [4, 64, 64], None, "loaders.train.slice_builder.patch_shape"),
        ({"name": "UNet2D"}, [1, 64, 64], [2, 8, 8], "loaders.test.slice_builder.halo_shape"),
        ({"name": "ResidualUNetSE3D", "f_maps": [8, 16, 32, 64]}, [4, 64, 64], None, "model.f_maps"),
    ],
)
def test_what_cannot_go_through(
    tmp_path: Path, section: dict[str, Any], patch: list[int], halo: list[int] | None, key: str | None
) -> None:
    write_volumes(tmp_path)
    make = training_config if halo is None else prediction_config
    config = make(tmp_path, {**MODEL, **section})
    for phase in {"train", "val", "test"} & config["loaders"].keys():
        builder = {"patch_shape": patch, "stride_shape": patch, **({"halo_shape": halo} if halo else {})}
        config["loaders"][phase]["slice_builder"].update(builder)
    for with_data in (False, True):
        found = findings(write_config(tmp_path / "bad.yml", config), with_data=with_data)["P3D112"]
    if key is not None:
        assert found.fix.changes[0].key == key
    fixed = found.fix.applied_to(config)
    if halo is None and "2D" in config["model"]["name"]:
        fixed["loaders"]["val"]["slice_builder"] = fixed["loaders"]["train"]["slice_builder"]
    again = findings(write_config(tmp_path / "good.yml", fixed))
    assert again == {} or found.fix.changes[0].key.startswith("loaders.train")


@pytest.mark.parametrize("name", ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D"])
@pytest.mark.parametrize("order", ["gcr", "cgr", "cr", "bcr", "cbl", "gcrd"])
@pytest.mark.parametrize("patch", [[8, 64, 64], [9, 65, 71], [4, 128, 96]])
def test_what_trains_is_not_found(tmp_path: Path, name: str, order: str, patch: list[int]) -> None:
    patch = [1, *patch[1:]] if "2D" in name else patch
    config = training_config(tmp_path, {**MODEL, "name": name, "layer_order": order, "f_maps": [8, 16, 32]})
    for phase in ("train", "val"):
        config["loaders"][phase]["slice_builder"]["patch_shape"] = patch
    assert findings(write_config(tmp_path / "train.yml", config)) == {}


def test_thick_volumes_get_thicker_patches(tmp_path: Path) -> None:
    write_volumes(tmp_path, depth=16)
    config = training_config(tmp_path, {**MODEL, "f_maps": [8, 16, 32, 64]})
    found = findings(write_config(tmp_path / "train.yml", config), with_data=True)["P3D112"]
    assert [(change.key, change.value) for change in found.fix.changes] == [
        ("loaders.val.slice_builder.patch_shape", [8, 64, 64])
    ] or found.fix.changes[0].value == [8, 64, 64]
    fixed = merged(config, {"loaders": {p: {"slice_builder": {"patch_shape": [8, 64, 64]}} for p in ("train", "val")}})
    assert findings(write_config(tmp_path / "good.yml", fixed), with_data=True) == {}

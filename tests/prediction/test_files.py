"""Files that nothing can spoil: interrupted, resumed, and what they say of themselves."""

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.datasets.utils import get_test_loaders
from pytorch3dunet.predict import get_predictor

from p3d_regression import ConfigError
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.prediction.files import partial_path
from p3d_regression.prediction.hdf5_output import Hdf5Output
from support.checks import Silent
from support.disk import small_disk
from support.environments import ROOT
from support.lab import write_config
from support.preforked import Preforked
from support.volumes import RAW, config_of, net, section_of, write_checkpoint, write_volume

PATCH, STRIDE, HALO = [12, 16, 16], [5, 8, 8], [1, 2, 2]

#: Of two patches each, through a volume of 45 x 24 x 24 voxels. After 14 of them two layers are finished; for the rest
#: of the volume 6 are needed.
BATCHES = 8 * 2 * 2 // 2


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    write_volume(tmp_path / "volume.h5", (45, 24, 24), element_size_um=[2.0, 0.5, 0.5])
    found = config_of(tmp_path / "volume.h5", PATCH, STRIDE, HALO, output_dir=str(tmp_path / "out"))
    path = tmp_path / "checkpoints" / "best_checkpoint.pytorch"
    write_checkpoint(path, section_of(1), 0)
    predictor = {"name": "StandardPredictor", "blend": "gaussian"}
    return {**found, "model": section_of(1), "model_path": str(path), "predictor": predictor}


class Interrupting(torch.nn.Module):
    """A network that fails at a batch."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.network, self.left = net(1), batches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.network(x)


def predict(config: dict[str, Any], model: Any) -> Path:
    predictor = get_predictor(model, config)
    for loader in get_test_loaders(config):
        predictor(loader)
    return Path(config["loaders"]["output_dir"]) / "volume_predictions.h5"


def resuming(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "predictor": {**config["predictor"], "resume": True}}


class TestResume:
    def test_goes_on_from_the_finished_layers(self, config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        path = predict(config, net(1))
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(KeyboardInterrupt):
            predict(config, Interrupting(14))
        assert not path.exists()
        assert "2 of 3 layers are finished" in caplog.text
        counting = Interrupting(6)
        assert predict(resuming(config), counting).read_bytes() == whole
        assert counting.left == 0
        assert list(path.parent.iterdir()) == [path]

    def test_leaves_complete_files_as_they_are(self, config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        path = predict(config, net(1))
        before = path.stat().st_mtime_ns, path.stat().st_ino
        predict(resuming(config), Interrupting(0))
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
        assert "is complete" in caplog.text

    def test_without_it_a_prediction_starts_over(self, config: dict[str, Any]) -> None:
        with pytest.raises(KeyboardInterrupt):
            predict(config, Interrupting(14))
        counting = Interrupting(BATCHES)
        predict(config, counting)
        assert counting.left == 0

    def test_a_layer_that_was_cut_off_is_predicted_again(self, config: dict[str, Any]) -> None:
        whole = predict(config, net(1)).read_bytes()
        with pytest.raises(KeyboardInterrupt):
            predict(config, Interrupting(14))
        path = Path(config["loaders"]["output_dir"]) / "volume_predictions.h5"
        layer = partial_path(path) / "000001.h5"
        layer.write_bytes(layer.read_bytes()[:1000])
        path.unlink()
        assert predict(resuming(config), net(1)).read_bytes() == whole

    @pytest.mark.parametrize("is_complete", [True, False])
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("predictor.blend", "mean", "predicted with predictor.blend: gaussian, not mean"),
            ("predictor.tta", "flips", "predicted with predictor.tta: null, not flips"),
            ("loaders.test.slice_builder.halo_shape", [0, 0, 0], r"halo_shape: \[1, 2, 2\], not \[0, 0, 0\]"),
            ("model_path", "other", "predicted with other checkpoints"),
            ("raw", None, "predicted with another version of the input file"),
        ],
    )
    def test_does_not_go_on_with_another_prediction(
        self, config: dict[str, Any], tmp_path: Path, key: str, value: Any, message: str, is_complete: bool
    ) -> None:
        if is_complete:
            predict(config, net(1))
        else:
            with pytest.raises(KeyboardInterrupt):
                predict(config, Interrupting(14))
        other = resuming(config)
        if key == "raw":
            write_volume(tmp_path / "volume.h5", (45, 24, 24))
        elif key == "model_path":
            write_checkpoint(tmp_path / "other.pytorch", section_of(1), 1)
            other[key] = str(tmp_path / "other.pytorch")
        else:
            *sections, name = key.split(".")
            part = other
            for section in sections:
                part[section] = dict(part[section])
                part = part[section]
            part[name] = value
        left = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        with pytest.raises(ConfigError, match=message):
            predict(other, Interrupting(0))
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == left

    def test_a_file_of_others_is_not_complete(self, config: dict[str, Any]) -> None:
        plain = {**config, "predictor": {"name": "StandardPredictor"}}
        path = predict(plain, net(1))
        with pytest.raises(ConfigError, match=r"predictions\.h5 was not written by p3d-regression"):
            predict(resuming(config), Interrupting(0))
        assert path.is_file()

    def test_a_moved_checkpoint_is_the_same(self, config: dict[str, Any], tmp_path: Path) -> None:
        predict(config, net(1))
        moved = Path(config["model_path"]).rename(tmp_path / "moved.pytorch")
        predict({**resuming(config), "model_path": str(moved)}, Interrupting(0))


def test_killed_at_any_moment_it_goes_on_to_the_same_file(
    config: dict[str, Any], tmp_path: Path, forked: Preforked
) -> None:
    config["device"] = "cpu"
    path = write_config(tmp_path / "predict.yml", resuming(config))
    code = f"""
        import os, signal, sys, threading
        if {{delay}}:
            kill = threading.Timer({{delay}}, lambda: os.kill(os.getpid(), signal.SIGKILL))
            kill.daemon = True
            kill.start()
        sys.argv = ["predict3dunet", "--config", {str(path)!r}]
        from pytorch3dunet.predict import main
        main()
    """
    out = tmp_path / "out" / "volume_predictions.h5"
    forked.check(code.format(delay=0))
    began = time.perf_counter()
    forked.check(code.format(delay=0))
    took = time.perf_counter() - began
    whole = out.read_bytes()
    out.unlink()
    draw = random.Random(0)
    killed = 0
    for _ in range(10):
        ended = forked.python_code(code.format(delay=draw.uniform(0.3, 1) * took))
        killed += ended.returncode == -9
        if ended.returncode == 0:
            assert out.read_bytes() == whole
            out.unlink()
        else:
            assert not out.exists() or out.read_bytes() == whole
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        assert "P3D628" not in {finding.rule.code for finding in report.findings}
    assert killed > 2
    forked.check(code.format(delay=0))
    assert out.read_bytes() == whole
    assert list(out.parent.iterdir()) == [out]


class TestContent:
    def test_explains_itself(self, config: dict[str, Any], tmp_path: Path) -> None:
        with h5py.File(predict(config, net(1))) as file:
            attributes = dict(file["predictions"].attrs)
            assert file["predictions"].compression == "gzip"
        assert json.loads(attributes["config"])["predictor"]["blend"] == "gaussian"
        ((checkpoint, digest),) = json.loads(attributes["checkpoints"]).items()
        assert checkpoint == config["model_path"]
        assert len(digest) == 64
        assert set(json.loads(attributes["versions"])) == {"p3d-regression", "pytorch3dunet", "torch"}
        np.testing.assert_array_equal(attributes["element_size_um"], [2.0, 0.5, 0.5])
        table = (ROOT / "docs/prediction.md").read_text().partition("| attribute | content |")[2]
        documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
        assert attributes.keys() - documented == set()

    def test_units_are_those_of_the_labels(self, config: dict[str, Any], tmp_path: Path) -> None:
        with h5py.File(tmp_path / "train.h5", "w") as file:
            file["label"] = np.zeros(1)
            file["label"].attrs["unit"] = "mm"
        phase = {"file_paths": [str(tmp_path / "train.h5")], "transformer": {"raw": RAW, "label": []}}
        path = Path(config["model_path"])
        write_checkpoint(path, section_of(1), 0, loaders={"train": phase})
        with h5py.File(predict(config, net(1))) as file:
            assert file["predictions"].attrs["units"] == "mm"
        phase["transformer"]["label"] = [{"name": "Standardize", "mean": 1, "std": 2}]
        write_checkpoint(path, section_of(1), 0, loaders={"train": phase})
        with h5py.File(predict(config, net(1))) as file:
            assert "units" not in file["predictions"].attrs

    @pytest.mark.parametrize("compression", ["lzf", "none"])
    def test_compression(self, config: dict[str, Any], compression: str) -> None:
        with h5py.File(predict(config, net(1))) as file:
            wanted = file["predictions"][()]
        config["predictor"]["compression"] = compression
        with h5py.File(predict(config, net(1))) as file:
            assert file["predictions"].compression == (None if compression == "none" else compression)
            np.testing.assert_array_equal(file["predictions"][()], wanted)

    def test_a_config_that_is_too_long_for_an_attribute(self, config: dict[str, Any]) -> None:
        config["note"] = "long " * 20_000
        path = predict(config, net(1))
        before = path.stat().st_mtime_ns, path.stat().st_ino
        predict(resuming(config), Interrupting(0))
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == before

    def test_many_channels_and_no_multiple_of_a_chunk(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).normal(size=(3, 37, 70, 65)).astype(np.float32)
        output = Hdf5Output(tmp_path / "a.h5", {"predictions": 3}, (37, 70, 65), "gzip", {"config": {}})
        output.begin([], {"predictions": {"axes": "czyx"}}, resume=False)
        assert output.finished(0) == 0
        with output.writer(0) as write:
            for layer in range(output.layers):
                write(layer, lambda layer=layer: {"predictions": values[:, layer * 16 : (layer + 1) * 16]})
        assert output.complete()
        with h5py.File(tmp_path / "a.h5") as file:
            np.testing.assert_array_equal(file["predictions"][()], values)
            assert file["predictions"].attrs["axes"] == "czyx"


def test_two_inputs_with_one_output_stop_before_the_first(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_volume(tmp_path / "other" / "volume.h5", (45, 24, 24))
    config["loaders"]["test"]["file_paths"].append(str(tmp_path / "other" / "volume.h5"))
    with pytest.raises(ConfigError, match=r"^loaders\.test\.file_paths: .* have one output, .*volume_predictions\.h5"):
        predict(config, Interrupting(0))


def test_a_full_disk_is_one_line(config: dict[str, Any], tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as directory:
        config["loaders"]["output_dir"] = str(directory)
        with pytest.raises(ConfigError, match=r"^loaders\.output_dir: .* cannot be written: .*[Nn]o space"):
            predict(config, net(1))
        assert not (directory / "volume_predictions.h5").exists()

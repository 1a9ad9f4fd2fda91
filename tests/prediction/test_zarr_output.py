"""Predictions in Zarr: the values of one process and HDF5, from one process or several, interrupted or not."""

import json
import logging
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr
from pytorch3dunet.datasets.utils import get_test_loaders
from pytorch3dunet.predict import get_predictor
from pytorch3dunet.unet3d.config import TorchDevice

from p3d_regression import group
from p3d_regression.errors import ConfigError
from p3d_regression.evaluation.pairs import Source
from p3d_regression.prediction import sharing
from p3d_regression.prediction.blending import uncovered
from p3d_regression.prediction.files import partial_path
from p3d_regression.prediction.sharing import SETTING
from p3d_regression.prediction.spec import options_of
from p3d_regression.prediction.units import MOST_REPEATED, ends_of, inside, layout_of
from p3d_regression.prediction.zarr_output import ZarrOutput
from support.environments import Environment
from support.lab import write_config
from support.volumes import config_of, net, section_of, write_checkpoint, write_volume

SHAPE = (150, 24, 24)
PATCH, STRIDE, HALO = [6, 16, 16], [3, 8, 8], [1, 2, 2]
PATCHES = 49 * 2 * 2


class Counting(torch.nn.Module):
    """A network that counts patches, and fails after some."""

    def __init__(self, left: int = 10**9) -> None:
        super().__init__()
        self.network, self.left, self.count = net(1), left, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= len(x)
        self.count += len(x)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.network(x)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("volume")
    write_volume(directory / "volume.h5", SHAPE, element_size_um=[2.0, 0.5, 0.5])
    write_checkpoint(directory / "checkpoints" / "best_checkpoint.pytorch", section_of(1), 0)
    return directory


@pytest.fixture
def config(volume: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "out").mkdir()
    found = config_of(volume / "volume.h5", PATCH, STRIDE, HALO, output_dir=str(tmp_path / "out"), batch_size=1)
    checkpoint = volume / "checkpoints" / "best_checkpoint.pytorch"
    return {**found, "model": section_of(1), "model_path": str(checkpoint), "predictor": {"output": "zarr"}}


def predict(config: dict[str, Any], model: Any = None, **predictor: Any) -> Path:
    config = {**config, "predictor": {**config["predictor"], **predictor}}
    model = model or Counting()
    ready = get_predictor(model, config)
    for loader in get_test_loaders(config):
        ready(loader)
    return Path(config["loaders"]["output_dir"]) / "volume_predictions.zarr"


def values(path: Path) -> np.ndarray:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return file["predictions"][()]
    return zarr.open_array(str(path), path="predictions", mode="r")[...]


def jobs(monkeypatch: pytest.MonkeyPatch, part: int, parts: int) -> None:
    monkeypatch.setenv(SETTING, f"{part}/{parts}")


@pytest.fixture(scope="module")
def whole(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The predictions in HDF5; without blending those of pytorch-3dunet."""
    found = {}
    for blend in ("gaussian", "mean", "none"):
        out = tmp_path_factory.mktemp(blend)
        config = config_of(volume / "volume.h5", PATCH, STRIDE, HALO, output_dir=str(out), batch_size=1)
        config |= {"model": section_of(1), "model_path": str(volume / "checkpoints" / "best_checkpoint.pytorch")}
        predict({**config, "predictor": {"blend": blend}})
        found[blend] = values(out / "volume_predictions.h5")
    return found


@pytest.mark.parametrize("blend", ["gaussian", "mean", "none"])
class TestValues:
    def test_of_one_process(self, config: dict[str, Any], whole: dict[str, np.ndarray], blend: str) -> None:
        np.testing.assert_array_equal(values(predict(config, blend=blend)), whole[blend])

    def test_of_jobs_that_know_nothing_of_each_other(
        self, config: dict[str, Any], whole: dict[str, np.ndarray], blend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted = []
        for part in (3, 1, 2):
            jobs(monkeypatch, part, 3)
            model = Counting()
            path = predict(config, model, blend=blend)
            counted.append(model.count)
            assert path.exists() == (part == 2)
        np.testing.assert_array_equal(values(path), whole[blend])
        assert PATCHES < sum(counted) <= MOST_REPEATED * PATCHES
        assert max(counted) < PATCHES / 2
        assert list(path.parent.iterdir()) == [path]


class TestInterrupted:
    def test_goes_on_within_a_part(self, config: dict[str, Any], whole: dict[str, np.ndarray]) -> None:
        with pytest.raises(KeyboardInterrupt):
            predict(config, Counting(100))
        model = Counting()
        np.testing.assert_array_equal(values(predict(config, model, resume=True)), whole["gaussian"])
        assert model.count < PATCHES - 60

    def test_a_job_that_was_killed_is_repeated_alone(
        self, config: dict[str, Any], whole: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs(monkeypatch, 1, 2)
        with pytest.raises(KeyboardInterrupt):
            predict(config, Counting(60))
        jobs(monkeypatch, 2, 2)
        path = predict(config)
        assert not path.exists()
        jobs(monkeypatch, 1, 2)
        model = Counting()
        predict(config, model)
        np.testing.assert_array_equal(values(path), whole["gaussian"])
        assert model.count < PATCHES // 2
        again = Counting()
        predict(config, again)
        assert again.count == 0

    def test_another_number_of_jobs_takes_what_is_left(
        self, config: dict[str, Any], whole: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs(monkeypatch, 1, 3)
        predict(config)
        monkeypatch.delenv(SETTING)
        np.testing.assert_array_equal(values(predict(config, resume=True)), whole["gaussian"])

    def test_a_job_without_its_number_deletes_nothing(
        self, config: dict[str, Any], whole: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs(monkeypatch, 1, 2)
        path = predict(config)
        monkeypatch.delenv(SETTING)
        kept = sorted(partial_path(path).rglob("*"))
        with pytest.raises(ConfigError, match="finished layers of a prediction by 2 processes") as raised:
            predict(config)
        assert sorted(partial_path(path).rglob("*")) == kept
        fixed = raised.value.found.fix.applied_to(config)
        np.testing.assert_array_equal(values(predict(fixed)), whole["gaussian"])

    def test_without_resume_one_process_starts_over(self, config: dict[str, Any]) -> None:
        with pytest.raises(KeyboardInterrupt):
            predict(config, Counting(100))
        model = Counting()
        predict(config, model)
        assert model.count == PATCHES

    def test_jobs_do_not_mix_predictions(self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        jobs(monkeypatch, 1, 2)
        path = predict(config, blend="mean")
        kept = sorted(partial_path(path).rglob("*"))
        jobs(monkeypatch, 2, 2)
        with pytest.raises(
            ConfigError, match=r"was predicted with predictor.blend: mean, not gaussian.*\n?.*delete"
        ) as raised:
            predict(config, blend="gaussian")
        assert raised.value.found.key == "loaders.output_dir"
        assert sorted(partial_path(path).rglob("*")) == kept

    def test_a_failure_before_the_first_layer_leaves_nothing(self, config: dict[str, Any]) -> None:
        with pytest.raises(KeyboardInterrupt):
            predict(config, Counting(0))
        assert list(Path(config["loaders"]["output_dir"]).iterdir()) == []


def test_the_old_prediction_is_replaced_at_the_end(config: dict[str, Any]) -> None:
    path = predict(config, blend="mean")
    old = values(path)
    with pytest.raises(KeyboardInterrupt):
        predict(config, Counting(100))
    np.testing.assert_array_equal(values(path), old)
    predict(config)
    assert (values(path) != old).any()


def test_says_what_it_is(config: dict[str, Any]) -> None:
    path = predict(config)
    found = Source.open(path, "predictions")
    assert found.shape == SHAPE  # one channel
    assert list(found.attributes["voxel_size"]) == [2.0, 0.5, 0.5]
    assert found.attributes["blend"] == "gaussian"
    assert json.loads(found.attributes["config"])["model"]["final_activation"] == "none"
    array = zarr.open_array(str(path), path="predictions", mode="r")
    assert array.metadata.dimension_names == ("c", "z", "y", "x")
    image = zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 2.0, 0.5, 0.5]


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_compression(config: dict[str, Any], whole: dict[str, np.ndarray], compression: str) -> None:
    path = predict(config, compression=compression, output="Zarr")
    np.testing.assert_array_equal(values(path), whole["gaussian"])
    text = (path / "predictions" / "zarr.json").read_text()
    assert {name for name in ("zstd", "gzip") if f'"{name}"' in text.partition('"index_codecs"')[0]} == {
        compression
    } - {"none"}


def test_float32_is_no_reason_to_blend() -> None:
    assert options_of({"precision": 32}) is None
    assert options_of({"precision": "32", "blend": "none"}) is None


@pytest.mark.parametrize("value", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_a_part_that_is_none(config: dict[str, Any], value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, value)
    with pytest.raises(ConfigError, match=f"{SETTING} is '{value}'.*{SETTING}=3/10"):
        predict(config)


def test_precision(config: dict[str, Any], whole: dict[str, np.ndarray]) -> None:
    seen = []
    model = net(1)
    model.encoders[0].register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    found = values(predict(config, model, precision="bf16-mixed"))
    assert set(seen) == {torch.bfloat16}
    assert 0 < np.abs(found - whole["gaussian"]).max() < 0.05 * whole["gaussian"].std() + 0.02
    # not rounded to 8 bits
    assert len(np.unique(found)) > found.size / 2


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        ({"precision": "16-mixed"}, "predictor.precision: 16-mixed needs a CUDA GPU"),
        ({"precision": "half"}, "'half' is not one of 32"),
        ({"compression": "lzf"}, "lzf is of HDF5"),
        ({"compression": "zstd", "output": "hdf5"}, "zstd is of Zarr"),
        ({"output": "tiff"}, "'tiff' is not one of hdf5, zarr"),
    ],
)
def test_what_cannot_be_used(config: dict[str, Any], predictor: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(config, **predictor)


class TestRaces:
    """What processes meet that come late, or that were killed at the worst moment."""

    def test_one_that_comes_late_leaves_the_prediction_as_it_is(
        self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for part in (1, 2):
            jobs(monkeypatch, part, 2)
            path = predict(config)
        before = path.stat().st_ino
        for variables in ({SETTING: "1/2"}, {SETTING: "", "RANK": "1", "WORLD_SIZE": "2"}):
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            if "RANK" in variables:
                monkeypatch.setattr(sharing, "first_alone", lambda function: None)
                monkeypatch.setattr(sharing, "share", lambda: sharing.Share(1, 2, False))
            model = Counting()
            predict(config, model)
            assert model.count == 0
            assert list(path.parent.iterdir()) == [path]
            assert path.stat().st_ino == before
        assert "is complete" in caplog.text

    def test_another_one_is_completing_it(
        self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        jobs(monkeypatch, 1, 2)
        path = predict(config)
        claim = partial_path(path) / "completing"
        claim.touch()
        jobs(monkeypatch, 2, 2)
        predict(config)
        assert f"if none is running, delete {claim} and start again" in caplog.text
        assert "processes 2/2 have the rest" in caplog.text
        assert not path.exists()

    @pytest.mark.parametrize("moved", [(), ("old",), ("old", "new")])
    def test_killed_while_it_completes(
        self,
        config: dict[str, Any],
        whole: dict[str, np.ndarray],
        monkeypatch: pytest.MonkeyPatch,
        moved: tuple[str, ...],
    ) -> None:
        path = predict(config, blend="mean")
        jobs(monkeypatch, 1, 1)
        path.rename(path.with_suffix(".kept"))
        monkeypatch.setattr(ZarrOutput, "complete", lambda self: False)
        predict(config)
        monkeypatch.undo()
        path.with_suffix(".kept").rename(path)
        partial = partial_path(path)
        (partial / "completing").touch()
        if "old" in moved:
            path.rename(partial / "replaced")
        if "new" in moved:
            (partial / "arrays").rename(path)
        model = Counting()
        np.testing.assert_array_equal(values(predict(config, model, resume=True)), whole["gaussian"])
        assert model.count == 0
        assert list(path.parent.iterdir()) == [path]

    def test_a_failure_at_the_end_gives_the_old_prediction_back(
        self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = predict(config, blend="mean")
        old = values(path)
        rename = Path.rename

        def failing(self: Path, target: Any) -> Any:
            if self.name == "arrays":
                raise OSError(16, "busy")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(ConfigError, match="cannot be written"):
            predict(config)
        monkeypatch.undo()
        np.testing.assert_array_equal(values(path), old)
        assert partial_path(path).is_dir()

    def test_after_a_restart_older_predictions_are_made_anew(
        self, config: dict[str, Any], whole: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = predict(config, blend="mean")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        monkeypatch.setattr(sharing, "share", lambda: sharing.Share(0, 2, False))
        predict(config)
        monkeypatch.setattr(sharing, "share", lambda: sharing.Share(1, 2, False))
        predict(config)
        np.testing.assert_array_equal(values(path), whole["gaussian"])

    def test_each_process_says_what_is_not_finite(
        self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Counting):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * float("nan")

        monkeypatch.setattr(group, "is_main", lambda: False)
        jobs(monkeypatch, 1, 2)
        predict(config, Broken())
        assert "values are NaN or infinite" in caplog.text
        logging.disable(logging.NOTSET)


def test_small_volumes_are_for_one_process_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_volume(tmp_path / f"{name}.h5", (12, 24, 24))
    config = config_of(tmp_path / "a.h5", PATCH, STRIDE, HALO, output_dir=str(tmp_path), batch_size=1)
    config["loaders"]["test"]["file_paths"] = [str(tmp_path / f"{name}.h5") for name in "abc"]
    write_checkpoint(tmp_path / "best_checkpoint.pytorch", section_of(1), 0)
    config |= {"model": section_of(1), "model_path": str(tmp_path / "best_checkpoint.pytorch")}
    for part, names in ((1, "ac"), (2, "abc")):
        jobs(monkeypatch, part, 2)
        predict({**config, "predictor": {"output": "zarr"}})
        assert sorted(path.name[0] for path in tmp_path.glob("*.zarr")) == list(names)


class TestTorchrun:
    def test_two_processes(self, tmp_path: Path) -> None:
        write_volume(tmp_path / "volume.h5", (160, 64, 64))
        path = tmp_path / "best_checkpoint.pytorch"
        write_checkpoint(path, section_of(1), 0)
        config = config_of(
            tmp_path / "volume.h5", [16, 64, 64], [8, 64, 64], [2, 4, 4], output_dir=str(tmp_path / "out")
        )
        predictor = {"output": "zarr", "performance_metric": "R2Score", "gt_internal_path": "raw"}
        config |= {"device": "cpu", "model_path": str(path), "model": section_of(1), "predictor": predictor}
        config["loaders"]["batch_size"] = 1
        environment = Environment.current()
        options = ["--standalone", "--nproc-per-node", 2, environment.script("predict3dunet")]
        command = ["torchrun", *options, "--config", write_config(tmp_path / "predict.yml", config)]
        result = environment.having(OMP_NUM_THREADS="1").run(*command)
        assert result.returncode == 0, result.stderr
        assert "1 of 2 parts in this process; 5% of the patches are computed again" in result.stdout
        # by the process that has finished last, whichever it is
        assert result.stdout.count("volume.h5: R2Score") == 1
        assert "Average metric" not in result.stdout
        found = values(tmp_path / "out" / "volume_predictions.zarr")
        del config["predictor"]["output"]
        config |= {"device": TorchDevice.CPU, "predictor": {"blend": "gaussian"}}
        predict(config, net(1))
        np.testing.assert_allclose(found, values(tmp_path / "out" / "volume_predictions.h5"), atol=1e-6)
        assert {child.name for child in (tmp_path / "out").iterdir()} == {
            "volume_predictions.zarr",
            "volume_predictions.h5",
        }

    @pytest.mark.parametrize(("is_ours", "count"), [(True, 0), (False, 1)])
    def test_hdf5_cannot_be_shared(self, monkeypatch: pytest.MonkeyPatch, is_ours: bool, count: int) -> None:
        lines: list[str] = []
        monkeypatch.setattr(sharing, "console", lambda: SimpleNamespace(warning=lines.append))
        jobs(monkeypatch, 1, 2)
        expected = pytest.raises(ConfigError, match="write to the same HDF5 files") if is_ours else nullcontext()
        with expected as raised:
            sharing.prepare({"predictor": {"blend": "gaussian"}} if is_ours else {}, is_ours=is_ours)
        assert len(lines) == count
        if is_ours:
            assert raised.value.found.fix.applied_to({"predictor": {}}) == {"predictor": {"output": "zarr"}}
        sharing.prepare({"predictor": {"output": "zarr"}}, is_ours=True)


class TestLayout:
    @pytest.mark.parametrize("seed", range(12))
    def test_boxes_cover_a_volume_once(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        shape = [int(n) for n in draw.integers(20, 500, 3)]
        patch = [min(n, int(p)) for n, p in zip(shape, draw.integers(8, 130, 3), strict=True)]
        places = grid(shape, patch, [max(1, p // 2) for p in patch])
        step, processes = (32, 64, 64), int(draw.integers(1, 9))
        layout = layout_of(places, shape, step, channels=2, processes=processes)
        count = np.zeros(shape, np.uint8)
        computed = 0
        for box in layout.boxes:
            count[box] += 1
            numbers, seen = inside(ends_of(places), box)
            computed += len(numbers)
            size = [part.stop - part.start for part in box]
            clipped = [
                tuple(slice(max(p.start, 0), min(p.stop, n)) for p, n in zip(place, size, strict=True))
                for place in seen
            ]
            assert uncovered(clipped, size) is None
            assert all(part.start % s == 0 for part, s in zip(box, step, strict=True))
        assert (count == 1).all()
        assert computed <= MOST_REPEATED * len(places)

    def test_a_volume_of_a_petabyte(self) -> None:
        shape, patch = (50_000, 60_000, 80_000), (64, 128, 128)
        axes = [range(0, n, p // 2) for n, p in zip(shape, patch, strict=True)]
        # along each axis alone: a grid of 10^9 patches is not made
        places = [
            tuple(slice(axes[a][i] if a == axis else 0, (axes[a][i] if a == axis else 0) + patch[a]) for a in range(3))
            for axis in range(3)
            for i in range(len(axes[axis]))
        ]
        layout = layout_of(places, shape, (32, 512, 512), channels=1, processes=64)
        tile = [-(-n // pieces) for n, pieces in zip(shape, layout.pieces, strict=True)]
        assert tile[1] * tile[2] * (64 + 32) * 2 * 4 < 2**30 * 1.1
        assert np.prod(layout.pieces) >= 64


def grid(shape: Any, patch: Any, stride: Any) -> list[Any]:
    axes = [sorted({*range(0, n - p + 1, s), n - p}) for n, p, s in zip(shape, patch, stride, strict=True)]
    return [tuple(slice(start, start + p) for start, p in zip(corner, patch, strict=True)) for corner in product(*axes)]

"""Blended predictions, voxel by voxel against a volume that is accumulated in memory."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.config import TorchDevice
from pytorch3dunet.unet3d.predictor import LazyPredictor, StandardPredictor

from p3d_regression import ConfigError
from p3d_regression.prediction.blending import PLANES, Window, importance_map, uncovered
from p3d_regression.prediction.spec import Options, options_of
from p3d_regression.volumes.padding import mirrored
from support.volumes import loader_of, net


def predicted(cls: Any, model: Any, loader: Any, out: Path, channels: int, **options: Any) -> np.ndarray:
    out.mkdir(exist_ok=True)
    predictor = cls(model, str(out), channels, TorchDevice.CPU, name=cls.__name__, **options)
    assert predictor(loader) is None
    (path,) = out.iterdir()
    with h5py.File(path) as file:
        found = file["predictions"][()]
    path.unlink()
    return found


def reference(model: Any, raw: np.ndarray, loader: Any, weights: np.ndarray, channels: int) -> np.ndarray:
    """All in memory, in double precision."""
    halo = loader.dataset.halo_shape
    padded = np.pad(raw, [(h, h) for h in halo], mode="reflect")
    total, weight = np.zeros((channels, *raw.shape)), np.zeros(raw.shape)
    for place in loader.dataset.raw_slices:
        outer = tuple(slice(s.start, s.stop + 2 * h) for s, h in zip(place, halo, strict=True))
        seen = torch.from_numpy((padded[outer].astype(np.float32) - 0.5) / 2.0)[None, None]
        with torch.no_grad():
            output = model(seen)[0].numpy()
        output = output[(slice(None), *(slice(h, n - h) for h, n in zip(halo, output.shape[1:], strict=True)))]
        total[(slice(None), *place)] += weights * output
        weight[place] += weights
    return total / weight


@pytest.mark.parametrize("seed", range(12))
def test_is_the_weighted_mean_of_all_patches(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    shape = draw.integers([9, 20, 24], [20, 40, 50])
    patch = [int(n) for n in draw.integers(8, np.minimum(shape, [12, 24, 24]) + 1)]
    stride = [int(draw.integers(max(1, p // 3), p + 1)) for p in patch]
    halo = [int(n) for n in draw.integers(0, 4, 3)]
    channels = int(draw.integers(1, 4))
    blend = "gaussian" if seed % 3 else "mean"
    raw = draw.normal(size=shape).astype(np.float32)
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = raw
        file["raw"].attrs["element_size_um"] = [2.0, 0.5, 0.5]
    model = net(channels)
    loader = loader_of(path, patch, stride, halo)
    weights = importance_map(patch, blend).astype(np.float64)
    wanted = reference(model, raw, loader, weights, channels)
    found = predicted(StandardPredictor, model, loader, tmp_path / "out", channels, blend=blend)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-5 * np.ptp(wanted)
    before = path.read_bytes()
    lazy = loader_of(path, patch, stride, halo, dataset="LazyHDF5Dataset", batch_size=1)
    again = predicted(LazyPredictor, model, lazy, tmp_path / "out", channels, blend=blend)
    # batches of another size round in another way
    np.testing.assert_allclose(again, found, atol=1e-5 * np.ptp(wanted))
    assert path.read_bytes() == before
    same = loader_of(path, patch, stride, halo, dataset="LazyHDF5Dataset")
    np.testing.assert_array_equal(
        predicted(LazyPredictor, model, same, tmp_path / "out", channels, blend=blend), found, strict=True
    )
    chosen = predicted(StandardPredictor, model, loader, tmp_path / "out", channels, blend=blend, prediction_channel=0)
    np.testing.assert_array_equal(chosen, found[:1])


def test_planes_of_a_2d_network(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(5, 40, 40)).astype(np.float32)
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["raw"] = raw
    model = net(1, "UNet2D")
    loader = loader_of(tmp_path / "volume.h5", [1, 32, 32], [1, 8, 8], [0, 4, 4])
    weights = importance_map((1, 32, 32), "gaussian").astype(np.float64)

    def by_planes(seen: torch.Tensor) -> torch.Tensor:
        return model(seen.squeeze(2)).unsqueeze(2)

    wanted = reference(by_planes, raw, loader, weights, 1)
    found = predicted(StandardPredictor, model, loader, tmp_path / "out", 1, blend="gaussian")
    assert np.abs(found - wanted).max() < 1e-5 * np.ptp(wanted)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["raw"] = np.random.default_rng(0).normal(size=(16, 24, 24)).astype(np.float32)
        file["raw"].attrs["element_size_um"] = [2.0, 0.5, 0.5]
    return tmp_path / "volume.h5"


class TestFiles:
    def test_says_what_it_is(self, volume: Path, tmp_path: Path) -> None:
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 2, 2])
        StandardPredictor(net(1), str(tmp_path), 1, TorchDevice.CPU, blend="gaussian")(loader)
        with h5py.File(tmp_path / "volume_predictions.h5") as file:
            attributes = dict(file["predictions"].attrs)
        np.testing.assert_array_equal(attributes["element_size_um"], [2.0, 0.5, 0.5])
        np.testing.assert_array_equal(attributes["stride_shape"], [4, 8, 8])
        np.testing.assert_array_equal(attributes["halo_shape"], [0, 2, 2])
        assert list(attributes["channel_names"]) == ["0"]
        assert (attributes["axes"], attributes["blend"], attributes["raw_internal_path"]) == ("czyx", "gaussian", "raw")

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, volume: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        old = tmp_path / "out" / "volume_predictions.h5"
        old.write_bytes(b"precious")
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 0, 0])
        calls = []

        class Failing(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                calls.append(x)
                if len(calls) > 3:
                    raise KeyboardInterrupt
                return x

        with pytest.raises(KeyboardInterrupt):
            StandardPredictor(Failing(), str(tmp_path / "out"), 1, TorchDevice.CPU, blend="gaussian")(loader)
        assert list((tmp_path / "out").iterdir()) == [old]
        assert old.read_bytes() == b"precious"

    def test_values_that_are_not_finite_are_said(
        self, volume: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with h5py.File(volume, "a") as file:
            file["raw"][2, 3, 4] = np.nan
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 0, 0])
        StandardPredictor(net(1), str(tmp_path), 1, TorchDevice.CPU, blend="mean")(loader)
        (line,) = [record.getMessage() for record in caplog.records if "NaN" in record.getMessage()]
        with h5py.File(tmp_path / "volume_predictions.h5") as file:
            count = np.count_nonzero(~np.isfinite(file["predictions"][()]))
        assert f"{count} values are NaN or infinite" in line
        assert count > 0

    def test_a_directory_that_cannot_be_written_is_said(self, volume: Path, tmp_path: Path) -> None:
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 0, 0])
        with pytest.raises(ConfigError, match=r"^loaders\.output_dir"):
            StandardPredictor(net(1), str(tmp_path / "no" / "such"), 1, TorchDevice.CPU, blend="mean")(loader)

    def test_an_input_that_cannot_be_read_is_no_matter_of_the_output(self, volume: Path, tmp_path: Path) -> None:
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 0, 0], dataset="LazyHDF5Dataset")
        volume.rename(tmp_path / "away.h5")
        with pytest.raises(FileNotFoundError):
            StandardPredictor(net(1), str(tmp_path), 1, TorchDevice.CPU, blend="mean")(loader)
        assert [path.name for path in tmp_path.iterdir()] == ["away.h5"]

    def test_what_cannot_be_blended_is_said_before(self, volume: Path, tmp_path: Path) -> None:
        model = torch.nn.Identity()
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 0, 0])
        for option, value in {
            "save_segmentation": True,
            "performance_metric": "dice",
            "output_dataset": "spread",
        }.items():
            predictor = StandardPredictor(model, str(tmp_path), 1, TorchDevice.CPU, blend="mean", **{option: value})
            with pytest.raises(ConfigError, match=rf"^predictor\.{option}"):
                predictor(loader)
        loader.dataset.raw_slices = [s for s in loader.dataset.raw_slices if s[-2].start != 8]
        loader.dataset.raw_slices[0] = (slice(0, 8), slice(18, 24), slice(0, 16))
        loader.dataset.raw_slices = [(z, slice(y.start, min(y.stop, 14)), x) for z, y, x in loader.dataset.raw_slices]
        predictor = StandardPredictor(model, str(tmp_path), 1, TorchDevice.CPU, blend="mean")
        with pytest.raises(ConfigError, match=r"a gap along Y, voxels 14 to \d+"):
            predictor(loader)
        with pytest.raises(ConfigError, match=r"did you mean gaussian\?"):
            StandardPredictor(model, str(tmp_path), 1, TorchDevice.CPU, blend="gausian")

    @pytest.mark.parametrize("blend", [{}, {"blend": "none"}, {"blend": None}])
    def test_without_it_nothing_changes(self, volume: Path, tmp_path: Path, blend: dict[str, Any]) -> None:
        loader = loader_of(volume, [8, 16, 16], [4, 8, 8], [0, 2, 2])
        found = predicted(StandardPredictor, net(2), loader, tmp_path / "a", 2, **blend)
        original = StandardPredictor.__call__.__wrapped__  # type: ignore[attr-defined]
        predictor = StandardPredictor(net(2), str(tmp_path / "b"), 2, TorchDevice.CPU)
        (tmp_path / "b").mkdir()
        original(predictor, loader)
        with h5py.File(tmp_path / "b" / "volume_predictions.h5") as file:
            np.testing.assert_array_equal(found, file["predictions"][()], strict=True)


class TestParts:
    def test_weights_of_monai(self) -> None:
        """Numbers of monai.data.utils.compute_importance_map((4, 8, 1), "gaussian", 0.125), version 1.5."""
        found = importance_map((4, 8, 1), "gaussian")
        one = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (0.125 * n) ** 2)) for n in (4, 8, 1)]
        wanted = one[0][:, None, None] * one[1][None, :, None] * one[2][None, None, :]
        np.testing.assert_allclose(found, np.maximum(wanted, max(wanted.min(), 1e-3)), rtol=1e-6)
        assert found.min() >= 1e-3 * (1 - 1e-6)
        assert (importance_map((2, 3, 4), "mean") == 1).all()

    def test_memory_does_not_depend_on_the_number_of_planes(self) -> None:
        sizes = []
        for depth in (64, 256):
            places = [(slice(z, z + 8), slice(0, 4), slice(0, 4)) for z in range(0, depth - 7, 4)]
            written = []
            window = Window(1, places, (depth, 4, 4), "mean", lambda *layer, w=written: w.append(layer))
            most = 0
            for _ in places:
                window.add(np.ones((1, 8, 4, 4), np.float32))
                most = max(most, len(window._layers))
            sizes.append(most)
            assert [number for number, *_ in written] == list(range(depth // PLANES))
            assert all((total == weight).all() for _, total, weight in written)
        assert sizes == [1, 1]

    def test_places_in_any_order(self) -> None:
        draw = np.random.default_rng(0)
        places = [(slice(z, z + 8), slice(0, 4), slice(0, 4)) for z in range(0, 57, 4)]
        places = [places[i] for i in draw.permutation(len(places))]
        found = np.full((1, 64, 4, 4), np.nan, np.float32)

        def write(layer: int, total: np.ndarray, weight: np.ndarray) -> None:
            found[:, layer * PLANES : layer * PLANES + len(weight)] = total / weight

        window = Window(1, places, (64, 4, 4), "gaussian", write)
        for z, _, _ in places:
            window.add(np.broadcast_to(np.arange(z.start, z.stop, dtype=np.float32)[:, None, None], (1, 8, 4, 4)))
        np.testing.assert_allclose(found[0, :, 0, 0], np.arange(64), atol=1e-4)

    @pytest.mark.parametrize(("size", "halo"), [(5, 2), (5, 4), (2, 5), (1, 3)])
    def test_mirrors_as_numpy_does(self, size: int, halo: int) -> None:
        padded = np.pad(np.arange(size), halo, mode="reflect")
        np.testing.assert_array_equal(mirrored(0, size + 2 * halo, halo, size), padded)

    def test_gaps(self) -> None:
        def cube(z: int, y: int) -> Any:
            return slice(z, z + 4), slice(y, y + 4), slice(0, 4)

        assert uncovered([cube(0, 0), cube(3, 0)], (7, 4, 4)) is None
        assert uncovered([cube(0, 0), cube(5, 0)], (9, 4, 4)) == "Z, voxels 4 to 4"
        assert uncovered([cube(0, 0)], (4, 6, 4)) == "Y, voxels 4 to 5"

    @pytest.mark.parametrize("value", ["gauss", 1, True, ["gaussian"], {"name": "gaussian"}])
    def test_what_is_no_blend(self, value: object) -> None:
        with pytest.raises(ConfigError, match=r"^predictor\.blend") as caught:
            options_of({"blend": value})
        fixed = caught.value.found.fix.applied_to({"predictor": {"blend": value}})
        assert options_of(fixed["predictor"]) == Options(blend="gaussian")

"""What upstream alone makes of volumes, patches and their transforms, beside the rule that says so before."""

from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from support.checks import merged
from support.traps import Trap, Traps

_TO_TENSOR = {"name": "ToTensor", "expand_dims": True}

#: Upstream's training patches, one after the other; as often as is asked for.
_PATCHES = """
from pytorch3dunet.datasets.utils import get_train_loaders

dataset = get_train_loaders(config)["train"].dataset
patches = [dataset[i % len(dataset)] for i in range({count})]
raw, label = (np.stack([pair[i].numpy() for pair in patches]) for i in range(2))
np.savez("{path}", raw=raw, label=label)
print(json.dumps(len(dataset)))
"""


def patches(trap: Trap, changes: dict[str, Any], *, count: int = 2) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Raw volumes and labels of the first training patches, and what the rules find."""
    path = trap.directory / "patches.npz"
    of_the_file, found = trap.ask(_PATCHES.format(count=count, path=path), changes)
    assert of_the_file == 2
    with np.load(path) as arrays:
        return arrays["raw"], arrays["label"], found


def steps(*label: dict[str, Any], raw: tuple[dict[str, Any], ...] = (), **loaders: Any) -> dict[str, Any]:
    """Transforms of the training phase, ToTensor excepted; and other lines of the section loaders."""
    lists = {"raw": [{"name": "Standardize"}, *raw, _TO_TENSOR], "label": [*label, _TO_TENSOR]}
    return {"loaders": {**loaders, "train": {"transformer": lists}}}


def labels_as(**to_tensor: Any) -> dict[str, Any]:
    """Arguments of ToTensor for the labels."""
    return {"loaders": {"train": {"transformer": {"label": [{**_TO_TENSOR, **to_tensor}]}}}}


def stored(trap: Trap, key: str) -> np.ndarray:
    with h5py.File(trap.directory / "train.h5") as file:
        return file[key][()]


def stored_patches(trap: Trap, key: str = "label") -> np.ndarray:
    """The two patches of the file as they are stored; they overlap."""
    volume = stored(trap, key)
    return np.stack([volume[None, ..., :64], volume[None, ..., 32:]])


class TestTransforms:
    def test_without_a_trap_labels_arrive_as_they_are(self, traps: Traps) -> None:
        trap = traps.new()
        _, labels, found = patches(trap, {})
        np.testing.assert_array_equal(labels, stored_patches(trap))
        assert found == set()

    @pytest.mark.parametrize(
        "changes",
        [
            steps({"name": "Normalize"}),
            steps({"name": "Standardize"}),
            steps({"name": "PercentileNormalizer", "pmin": 1.0, "pmax": 99.6}),
            labels_as(normalize=True),
        ],
        ids=["Normalize", "Standardize", "PercentileNormalizer", "ToTensor"],
    )
    def test_p3d303_the_same_label_is_another_value_in_the_next_patch(
        self, traps: Traps, changes: dict[str, Any]
    ) -> None:
        _, labels, found = patches(traps.new(), changes)
        # what both patches show
        assert np.abs(labels[0, ..., 32:] - labels[1, ..., :32]).mean() > 0.01
        assert "P3D303" in found

    def test_p3d303_bounds_in_the_config_are_the_same_for_all_patches(self, traps: Traps) -> None:
        _, labels, found = patches(traps.new(), steps({"name": "Normalize", "min_value": -6, "max_value": 30}))
        np.testing.assert_array_equal(labels[0, ..., 32:], labels[1, ..., :32])
        assert found == set()

    def test_p3d304_labels_are_standardised_by_the_raw_volume(self, traps: Traps) -> None:
        trap = traps.new()
        _, labels, found = patches(trap, steps({"name": "Standardize"}, global_normalization=True))
        raw = stored(trap, "raw")
        np.testing.assert_allclose(labels, (stored_patches(trap) - raw.mean()) / raw.std(), rtol=1e-5)
        assert np.abs(labels.mean()) > 10
        assert "P3D304" in found

    def test_p3d304_numbers_in_the_config_come_first(self, traps: Traps) -> None:
        trap = traps.new()
        given = {"name": "Standardize", "mean": 12.0, "std": 8.0}
        _, labels, found = patches(trap, steps(given, global_normalization=True))
        np.testing.assert_allclose(labels, (stored_patches(trap) - 12) / 8, rtol=1e-5, atol=1e-6)
        assert found == set()

    def test_p3d303_without_its_arguments_percentile_normalizer_does_not_run(self, traps: Traps) -> None:
        run = traps.new().train(steps({"name": "PercentileNormalizer"}))
        # upstream's missing statistics replace the defaults of pmin and pmax
        run.failed_with("TypeError: unsupported operand type(s) for /: 'NoneType' and 'int'")
        assert "P3D303" in run.found

    @pytest.mark.parametrize(
        ("transform", "low", "high"),
        [({"name": "RandomContrast", "mean": 0.0}, -1, 1), ({"name": "RandomGammaCorrection"}, 0, 1)],
        ids=["RandomContrast", "RandomGammaCorrection"],
    )
    def test_p3d305_now_and_then_labels_are_clipped(
        self, traps: Traps, transform: dict[str, Any], low: int, high: int
    ) -> None:
        trap = traps.new()
        _, labels, found = patches(trap, steps(transform), count=60)
        originals = np.concatenate([stored_patches(trap)] * 30)
        changed = (labels != originals).any(axis=(1, 2, 3, 4))
        # the default probability is 0.1
        assert 0 < changed.sum() < 20
        assert labels[changed].min() == low
        assert labels[changed].max() == high
        assert "P3D305" in found

    def test_p3d305_without_its_mean_random_contrast_does_not_run(self, traps: Traps) -> None:
        run = traps.new().train(steps({"name": "RandomContrast", "execution_probability": 1.0}))
        run.failed_with("TypeError: unsupported operand type(s) for -: 'float' and 'NoneType'")
        assert "P3D305" in run.found

    @pytest.mark.parametrize(
        ("transform", "order"),
        [
            ({"name": "RandomRotate", "axes": [[2, 1]]}, "order"),
            ({"name": "ElasticDeformation", "spline_order": 0, "execution_probability": 1.0}, "spline_order"),
        ],
        ids=["RandomRotate", "ElasticDeformation"],
    )
    def test_p3d306_a_distance_map_gets_steps(self, traps: Traps, transform: dict[str, Any], order: str) -> None:
        trap = traps.new()
        far = np.ones((4, 64, 96), bool)
        far[tuple(np.random.default_rng(1).integers(0, far.shape, (20, 3)).T)] = False
        trap.edit("train", label=distance_transform_edt(far).astype(np.float32))
        smooth = {**transform, order: 3}
        _, nearest, found = patches(trap, steps(transform, raw=(smooth,)), count=12)
        assert np.isin(nearest, stored(trap, "label")).all()
        assert "P3D306" in found
        _, interpolated, found = patches(trap, steps(smooth, raw=(smooth,)), count=12)
        assert np.isin(interpolated, stored(trap, "label")).mean() < 0.5
        error = np.abs(nearest - interpolated)
        # in voxels; half the diagonal of one is 0.87
        assert 0.1 < error.mean() < 0.3
        assert 0.5 < np.quantile(error, 0.999) < 0.9
        assert found == set()

    def test_p3d301_elastic_deformation_has_no_default_order(self, traps: Traps) -> None:
        deform = {"name": "ElasticDeformation"}
        run = traps.new().train(steps(deform, raw=({**deform, "spline_order": 3},)))
        run.failed_with("TypeError: ElasticDeformation.__init__() missing 1 required positional argument")
        assert "P3D301" in run.found

    def test_p3d306_the_random_scaler_too(self, traps: Traps) -> None:
        trap = traps.new()
        random_scale = {"random_scale": 3, "random_scale_probability": 0.0}
        _, labels, found = patches(trap, {"loaders": random_scale}, count=6)
        originals = np.concatenate([stored_patches(trap)] * 3)
        assert (labels != originals).any(axis=(1, 2, 3, 4)).sum() > 3
        assert np.isin(labels, stored(trap, "label")).all()
        assert "P3D306" in found

    def test_p3d302_an_argument_of_another_transform_changes_nothing(self, traps: Traps) -> None:
        trap = traps.new()
        rotate = {"name": "RandomRotate", "order": 3}
        _, mistaken, found = patches(trap, steps({"name": "RandomRotate", "spline_order": 3}, raw=(rotate,)))
        assert "P3D302" in found
        _, nearest, _ = patches(trap, steps({"name": "RandomRotate"}, raw=(rotate,)))
        np.testing.assert_array_equal(mistaken, nearest)

    @pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
    def test_p3d307_what_is_behind_the_decimal_point_is_cut_off(self, traps: Traps, dtype: str) -> None:
        trap = traps.new(labels=(2.0, 9.0))
        _, labels, found = patches(trap, labels_as(dtype=dtype))
        assert labels.dtype == dtype
        np.testing.assert_array_equal(labels, np.trunc(stored_patches(trap)))
        assert "P3D307" in found

    def test_p3d309_label_to_tensor_does_not_run(self, traps: Traps) -> None:
        run = traps.new().train({"loaders": {"train": {"transformer": {"label": [{"name": "LabelToTensor"}]}}}})
        # upstream hands every transform arguments, and this one takes none
        run.failed_with("TypeError: LabelToTensor() takes no arguments")
        assert "P3D309" in run.found

    def test_p3d308_raw_volume_and_labels_are_moved_apart(self, traps: Traps) -> None:
        trap = traps.new()
        for name in ("train", "val"):
            trap.edit(name, label=lambda file: 30 * file["raw"])
        flip = {"name": "RandomFlip"}

        def likeness(changes: dict[str, Any]) -> tuple[np.ndarray, set[str]]:
            raw, labels, found = patches(trap, changes, count=12)
            return np.array([np.corrcoef(r.ravel(), v.ravel())[0, 1] for r, v in zip(raw, labels, strict=True)]), found

        # the labels are a straight line of the raw volume
        apart, found = likeness(steps(raw=(flip,)))
        assert (apart < 0.99).sum() > 6
        assert "P3D308" in found
        together, found = likeness(steps(flip, raw=(flip,)))
        np.testing.assert_allclose(together, 1, atol=1e-4)
        assert found <= {"P3D516"}


def rooted(trap: Trap, **paths: str) -> dict[str, Any]:
    """Other files for phases; plain text, since the spelling matters."""
    return {"loaders": {phase: {"file_paths": [f"{trap.directory}/{path}"]} for phase, path in paths.items()}}


class TestFiles:
    @pytest.mark.parametrize("path", ["", "./train.h5"], ids=["directory", "spelling"])
    def test_p3d402_upstream_validates_on_what_it_trains_with(self, traps: Traps, path: str) -> None:
        trap = traps.new()
        run = trap.train(rooted(trap, val=path), iterations=2).succeeded()
        assert f"for val phase from {trap.directory}/train.h5" in run.result.stdout.replace("/./", "/")
        assert "P3D402" in run.found

    def test_p3d402_it_refuses_the_same_path(self, traps: Traps) -> None:
        trap = traps.new()
        run = trap.train(rooted(trap, val="train.h5"))
        run.failed_with("AssertionError: Train and validation 'file_paths' overlap")
        assert "P3D402" in run.found

    @pytest.mark.parametrize("phase", ["train", "val"])
    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("missing.h5", "FileNotFoundError: "),
            ("truncated.h5", "OSError: "),
            ("text.h5", "OSError: "),
            ("empty", "AssertionError: datasets should not be an empty iterable"),
        ],
    )
    def test_p3d403_training_stops_at_a_file_it_cannot_read(
        self, traps: Traps, phase: str, path: str, error: str
    ) -> None:
        trap = traps.new()
        whole = (trap.directory / "train.h5").read_bytes()
        (trap.directory / "truncated.h5").write_bytes(whole[: len(whole) // 2])
        (trap.directory / "text.h5").write_text("no HDF5\n" * 100)
        (trap.directory / "empty").mkdir()
        run = trap.train(rooted(trap, **{phase: path})).failed_with(error)
        assert "P3D403" in run.found

    @pytest.mark.parametrize("key", ["raw_internal_path", "label_internal_path"])
    def test_p3d404_a_dataset_that_is_not_there(self, traps: Traps, key: str) -> None:
        run = traps.new().train({"loaders": {key: "distance"}}).failed_with('KeyError: "Unable to synchronously open')
        assert "P3D404" in run.found

    def test_p3d405_labels_of_another_size(self, traps: Traps) -> None:
        trap = traps.new()
        for name in ("train", "val"):
            trap.edit(name, half=lambda file: file["label"][:, ::2, ::2])
        run = trap.train({"loaders": {"label_internal_path": "half"}})
        run.failed_with("AssertionError: Raw and label shapes do not match")
        assert "P3D405" in run.found

    @pytest.mark.parametrize("axes", [(), (None, None, ...)], ids=["2", "5"])
    def test_p3d405_volumes_of_two_or_five_axes(self, traps: Traps, axes: tuple[Any, ...]) -> None:
        trap = traps.new()
        for name in ("train", "val"):
            trap.edit(
                name,
                other_raw=lambda file: file["raw"][axes or 0],
                other_label=lambda file: file["label"][axes or 0],
            )
        run = trap.train({"loaders": {"raw_internal_path": "other_raw", "label_internal_path": "other_label"}})
        assert run.result.returncode != 0
        assert "P3D405" in run.found

    def test_p3d405_raw_channels_other_than_those_of_the_model(self, traps: Traps) -> None:
        run = traps.new().train({"model": {"in_channels": 2}}).failed_with("RuntimeError: Expected weight")
        assert "P3D405" in run.found

    @pytest.mark.parametrize(
        ("shape", "error"),
        [
            ([512, 64, 64], "Sample size has to be bigger than the patch size"),
            ([4, 32, 32], "Height and Width must be"),
        ],
    )
    def test_p3d406_a_patch_too_large_or_too_small(self, traps: Traps, shape: list[int], error: str) -> None:
        run = traps.new().train({"loaders": {"train": {"slice_builder": {"patch_shape": shape}}}})
        run.failed_with(f"AssertionError: {error}")
        assert "P3D406" in run.found


#: Nothing but the loss looks at the training labels.
_UNSCORED = {"trainer": {"skip_train_validation": True}}


class TestLabelChannels:
    @pytest.mark.parametrize("batch", [1, 2])
    def test_p3d407_the_metric_stops_labels_without_a_channel_axis(self, traps: Traps, batch: int) -> None:
        run = traps.new().train(merged(labels_as(expand_dims=False), {"loaders": {"batch_size": batch}}))
        run.failed_with("ValueError: Input images must have the same dimensions")
        assert "P3D407" in run.found

    def test_p3d407_where_no_score_is_taken_of_them_the_loss_compares_each_with_each(self, traps: Traps) -> None:
        sound = merged(_UNSCORED, {"loaders": {"batch_size": 2}})
        right = traps.new().train(sound, iterations=2).succeeded()
        wrong = traps.new().train(merged(sound, labels_as(expand_dims=False)), iterations=2).succeeded()
        assert wrong.result.stderr.count("that is different to the input size") == 1
        (_, first), *_ = wrong.left.scalars["val_loss_avg"]
        (_, first_of_right), *_ = right.left.scalars["val_loss_avg"]
        assert abs(first - first_of_right) > 1e-4 * first_of_right
        assert "P3D407" in wrong.found
        assert "P3D407" not in right.found

    def test_p3d407_one_sample_per_batch_is_compared_with_itself(self, traps: Traps) -> None:
        right = traps.new().train(_UNSCORED, iterations=2).succeeded()
        wrong = traps.new().train(merged(_UNSCORED, labels_as(expand_dims=False)), iterations=2).succeeded()
        assert wrong.left.scalars == right.left.scalars
        assert "P3D407" in wrong.found

    def test_p3d407_the_loss_of_a_batch_of_two(self, traps: Traps) -> None:
        question = """
from pytorch3dunet.unet3d.losses import get_loss_criterion

loss = get_loss_criterion(config)
labels = torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 4, 8, 8)
print(json.dumps([loss(labels, labels).item(), loss(labels, labels[:, 0]).item()]))
"""
        (with_axis, without), _ = traps.new().ask(question, {})
        # both samples are predicted perfectly
        assert with_axis == 0
        assert without == 50

    @pytest.mark.parametrize("scored", [True, False])
    def test_p3d407_another_number_of_channels(self, traps: Traps, scored: bool) -> None:
        run = traps.new().train(merged({} if scored else _UNSCORED, {"model": {"out_channels": 2}}))
        # the validation takes a score in any case
        run.failed_with("ValueError: Input images must have the same dimensions")
        assert "P3D407" in run.found

"""The demo's volumes."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from p3d_regression.demo.data import PARTS, Brain, Part, signed_distance
from p3d_regression.demo.jobs import JOBS


def test_no_plane_is_in_two_parts(brain: Brain) -> None:
    planes = Brain(*(np.broadcast_to(np.arange(len(brain.t1))[:, None, None], brain.t1.shape) for _ in vars(brain)))
    parts = [set(np.unique(planes.part(name).t1)) for name in PARTS]
    assert len(set.union(*parts)) == sum(map(len, parts)) > 0.9 * len(brain.t1)
    # else little of what is to be learned would be in it
    assert all(brain.part(name).inside.mean() > 0.1 for name in PARTS)


def test_no_part_holds_the_mirror_image_of_another(brain: Brain) -> None:
    """The template is symmetric from left to right, which is the last axis; the parts are cut along the first one."""
    mirrored = brain.t1[..., ::-1]
    assert np.corrcoef(brain.t1.ravel(), mirrored.ravel())[0, 1] > 0.97
    assert brain.t1.shape == (91, 78, 73)


def test_white_matter_is_bright_and_inside(brain: Brain) -> None:
    grey = brain.t1[(brain.distance > 0) & (brain.distance < 2) & brain.inside]
    assert brain.t1[brain.distance < -2].mean() > grey.mean()
    assert brain.distance[brain.inside].min() < -5
    assert brain.distance[brain.inside].max() > 10


def test_distances_are_exact_on_a_ball() -> None:
    z, y, x = np.ogrid[-12:13, -12:13, -12:13]
    radius = np.sqrt(z**2 + y**2 + x**2)
    distance = signed_distance(radius <= 6)
    assert np.abs(distance - (radius - 6)).max() < 1
    assert ((distance < 0) == (radius <= 6)).all()


@pytest.fixture(scope="module", params=JOBS)
def parts(request: pytest.FixtureRequest, brain: Brain) -> dict[str, Part]:
    return JOBS[request.param].parts(brain)


def test_labels_are_known_in_the_brain_alone(parts: dict[str, Part], brain: Brain) -> None:
    for name, part in parts.items():
        inside = brain.part(name.partition("_dose")[0]).inside
        np.testing.assert_array_equal(np.isfinite(part.label), inside)
        assert np.isfinite(part.raw).all()
        assert part.raw.dtype == part.label.dtype == np.float32


def test_the_fixed_numbers_are_those_of_the_raw_volumes(brain: Brain) -> None:
    for job in JOBS.values():
        training = [part.raw for name, part in job.parts(brain).items() if name.startswith("train")]
        values = np.concatenate([raw.ravel() for raw in training])
        assert abs(values.mean() - job.mean) < job.std
        assert 0.5 < values.std() / job.std < 2


def test_counts_have_a_dose_between_those_of_the_training(brain: Brain) -> None:
    parts = JOBS["counts"].parts(brain)
    level = {name: np.nanmean(part.label) for name, part in parts.items()}
    for part in ("train_back", "train_front"):
        assert level[f"{part}_dose_1"] * 1.5 < level["test"] < level[f"{part}_dose_4"] / 1.5
    known = np.isfinite(parts["test"].label)
    # Poisson: the variance is the mean
    errors = parts["test"].raw[known] - parts["test"].label[known]
    assert errors.var() == pytest.approx(parts["test"].label[known].mean(), rel=0.05)


def test_written_as_upstream_reads_it(brain: Brain, tmp_path: Path) -> None:
    part = JOBS["distance"].parts(brain)["test"]
    part.write(tmp_path / "test.h5")
    with h5py.File(tmp_path / "test.h5") as file:
        np.testing.assert_array_equal(file["raw"], part.raw)
        np.testing.assert_array_equal(file["label"], part.label)

"""The demo's volumes."""

import h5py
import numpy as np
import pytest

from p3d_regression.demo.data import Hemisphere, load_hemispheres, signed_distance


@pytest.fixture(scope="module")
def hemispheres() -> tuple[Hemisphere, Hemisphere]:
    return load_hemispheres()


def test_labels_leave_the_unit_interval_on_both_sides(hemispheres: tuple[Hemisphere, Hemisphere]) -> None:
    for half in hemispheres:
        assert half.raw.shape == half.label.shape
        assert half.label.dtype == half.raw.dtype == np.float32
        assert half.label.min() < -5
        assert half.label.max() > 40


def test_white_matter_is_bright_and_inside(hemispheres: tuple[Hemisphere, Hemisphere]) -> None:
    for half in hemispheres:
        grey = half.raw[(half.label > 0) & (half.label < 2)]
        assert half.raw[half.label < -2].mean() > grey.mean()


def test_the_template_is_symmetric_as_the_readme_says(hemispheres: tuple[Hemisphere, Hemisphere]) -> None:
    left, right = hemispheres
    assert left.raw.shape[0] * 2 < 80
    np.testing.assert_allclose(left.raw[::-1].mean(), right.raw.mean(), rtol=0.02)


def test_distances_are_exact_on_a_ball() -> None:
    z, y, x = np.ogrid[-12:13, -12:13, -12:13]
    radius = np.sqrt(z**2 + y**2 + x**2)
    distance = signed_distance(radius <= 6)
    assert np.abs(distance - (radius - 6)).max() < 1
    assert ((distance < 0) == (radius <= 6)).all()


def test_written_as_upstream_reads_it(hemispheres: tuple[Hemisphere, Hemisphere], tmp_path) -> None:
    hemispheres[0].write(tmp_path / "train.h5")
    with h5py.File(tmp_path / "train.h5") as file:
        np.testing.assert_array_equal(file["raw"], hemispheres[0].raw)
        np.testing.assert_array_equal(file["label"], hemispheres[0].label)

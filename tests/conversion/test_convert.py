"""``p3d-regression convert``: there and back in every format, with geometry; pairs by name; nothing overwritten."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from p3d_regression.cli import group
from p3d_regression.cli.main import main
from p3d_regression.conversion.source import source_of, together
from p3d_regression.conversion.writers import write_hdf5
from p3d_regression.volumes.geometry import in_unit, units_of

SPACING = {"voxel_size": [2.0, 0.5, 0.25], "axis_units": ["micrometer"] * 3}
AFFINE = [[0.0, 0.25, 0.0, 5.0], [-0.5, 0.0, 0.0, 6.0], [0.0, 0.0, 2.0, 7.0], [0.0, 0.0, 0.0, 1.0]]


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def write(path: Path, values: np.ndarray, name: str = "raw", **attributes: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file[name] = values
        file[name].attrs.update(attributes)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["tif", "ome.tif", "nii", "nii.gz", "npy", "zarr", "ome.zarr", "mrc", "h5"])
def test_there_and_back(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).normal(size=(channels, 35, 70, 66)).astype(np.float32)
    values = values if channels > 1 else values[0]
    source = write(tmp_path / "a.h5", values, "predictions", **SPACING, affine=AFFINE, units="mm")
    there = convert(source, tmp_path / f"b.{suffix}")
    if suffix == "mrc" and channels > 1:
        assert there.exit_code == 1
        assert "MRC holds one channel" in there.output
        assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
        return
    assert there.exit_code == 0, there.output
    back = convert(tmp_path / f"b.{suffix}", tmp_path / "c.h5")
    assert back.exit_code == 0, back.output
    with h5py.File(tmp_path / "c.h5") as file:
        found = file["raw"]
        np.testing.assert_array_equal(found[...], values)
        if suffix != "npy":
            size = in_unit(found.attrs["voxel_size"], units_of(found.attrs), "micrometer")
            np.testing.assert_allclose(size, [2.0, 0.5, 0.25], rtol=1e-6)
        kept = "affine" in found.attrs
        if kept:
            np.testing.assert_allclose(found.attrs["affine"], AFFINE)
    assert kept == (suffix.startswith("nii") or suffix.endswith(("zarr", "h5")))
    # what is lost is said
    assert ("affine" in there.output) == (not kept)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f2", "f8"])
@pytest.mark.parametrize("suffix", ["tif", "nii", "zarr", "npy"])
def test_values_of_every_type_stay(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = (100 * np.random.default_rng(0).normal(size=(5, 16, 17))).astype(dtype)
    source = write(tmp_path / "a.h5", values)
    assert convert(source, tmp_path / f"b.{suffix}").exit_code == 0
    assert convert(tmp_path / f"b.{suffix}", tmp_path / "c.h5").exit_code == 0
    with h5py.File(tmp_path / "c.h5") as file:
        np.testing.assert_array_equal(file["raw"][...], values)


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("cell_1", "cell_2", "cell_10", "alone"):
        for folder, end in (("images", ""), ("targets", "_gt")):
            if name != "alone" or folder == "images":
                (tmp_path / folder).mkdir(exist_ok=True)
                stack = draw.normal(size=(6, 20, 30)).astype(np.float32)
                tifffile.imwrite(tmp_path / folder / f"{name}{end}.tif", stack, photometric="minisblack")
    found = convert(tmp_path / "images", tmp_path / "data", "--label", tmp_path / "targets")
    assert found.exit_code == 0, found.output
    assert "no label of the same name: alone" in found.output
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cell_1.h5", "cell_10.h5", "cell_2.h5"]
    with h5py.File(tmp_path / "data" / "cell_10.h5") as file:
        np.testing.assert_array_equal(file["raw"][...], tifffile.imread(tmp_path / "images" / "cell_10.tif"))
        np.testing.assert_array_equal(file["label"][...], tifffile.imread(tmp_path / "targets" / "cell_10_gt.tif"))
        assert file["raw"].chunks == (6, 20, 30)
    again = convert(tmp_path / "images", tmp_path / "data", "--label", tmp_path / "targets")
    assert again.exit_code == 1
    assert "exists. Delete it" in again.output


def test_channels_planes_and_axes(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 255, (3, 20, 30), np.uint8)
    for index, plane in enumerate(planes):
        tifffile.imwrite(tmp_path / f"{index}.tif", plane)
    files = [tmp_path / f"{index}.tif" for index in range(3)]
    assert convert(*files, tmp_path / "channels.h5").exit_code == 0
    assert convert("--planes", *files, tmp_path / "planes.h5").exit_code == 0
    np.save(tmp_path / "last.npy", planes.transpose(1, 2, 0)[None])
    assert convert(tmp_path / "last.npy", tmp_path / "axes.h5", "--axes", "ZYXC").exit_code == 0
    for name, wanted in (("channels", planes[:, None]), ("planes", planes), ("axes", planes[:, None])):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            np.testing.assert_array_equal(file["raw"][...], wanted, err_msg=name)


def test_a_part_knows_where_it_is(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 40, 50))
    source = write(tmp_path / "a.h5", values, **SPACING, affine=AFFINE)
    with together([source_of(str(source))]) as volume:
        box = (slice(10, 27), slice(0, 40), slice(20, 50))
        write_hdf5(tmp_path / "part.h5", {"raw": volume}, box, lambda voxels: None)
    with h5py.File(tmp_path / "part.h5") as file:
        np.testing.assert_array_equal(file["raw"][...], values[box])
        first, whole = np.array(file["raw"].attrs["affine"]), np.array(AFFINE)
        np.testing.assert_allclose(first @ [0, 0, 0, 1], whole @ [20, 0, 10, 1])


def test_errors_leave_nothing(tmp_path: Path) -> None:
    a = write(tmp_path / "a.h5", np.zeros((3, 4, 5)))
    b = write(tmp_path / "b.h5", np.zeros((3, 4, 6)))
    write(tmp_path / "two.h5", np.zeros((3, 4, 5)), "x")
    write(tmp_path / "two.h5", np.zeros((3, 4, 5)), "y")
    before = sorted(tmp_path.iterdir())
    (tmp_path / "png.png").write_bytes(b"x")
    for arguments, text in (
        ((a, tmp_path / "c.h5", "--label", b), "they are not the same voxels"),
        ((a, b, tmp_path / "c.h5"), "they are not channels of one volume"),
        ((tmp_path / "two.h5", tmp_path / "c.tif"), "two.h5:DATASET"),
        ((tmp_path / "no.tif", tmp_path / "c.h5"), "no.tif does not exist"),
        ((tmp_path / "png.png", tmp_path / "c.h5"), "none of the formats"),
        ((a, tmp_path / "c.jpg"), "follows from its suffix"),
        ((a, b), "exists. Delete it"),
        ((a,), "name the files first"),
        ((a, tmp_path / "c.tif", "--label", b), "only an HDF5 file has"),
    ):
        found = convert(*arguments)
        assert found.exit_code != 0, arguments
        assert text in " ".join(found.output.split()), found.output
    (tmp_path / "png.png").unlink()
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_names_the_line_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    source = write(tmp_path / "a.h5", np.zeros((3, 4, 5)))
    found = convert(source, tmp_path / "b.nii")
    assert found.exit_code == 1
    assert 'pip install "p3d-regression[formats]"' in found.output


def test_a_sigterm_that_python_has_dropped_ends_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that a signal handler raises in a destructor is dropped; the next piece ends then."""
    source = write(tmp_path / "a.h5", np.zeros((3, 4, 5)))
    monkeypatch.setattr(group, "_is_stopped", True)
    assert convert(source, tmp_path / "b.tif").exit_code == 143
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]

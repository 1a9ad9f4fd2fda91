"""TIFF, NIfTI, NPY and MRC, as other programs write them."""

from pathlib import Path
from typing import Any

import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile

from p3d_regression.volumes.opening import find, names, opened

DRAW = np.random.default_rng(0)


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    with opened(path) as file:
        volume = file["anything"]
        whole = np.asarray(volume[...])
        assert whole.shape == volume.shape
        # parts are those of the whole
        part = (..., slice(0, 2), slice(3, 9), slice(5, 6))
        np.testing.assert_array_equal(volume[part], whole[part])
        assert volume[part].dtype == volume.dtype == volume.dtype.newbyteorder("=")
        return whole, volume.attrs


def test_imagej_hyperstack(tmp_path: Path) -> None:
    values = DRAW.integers(0, 60000, (4, 2, 20, 30), np.uint16)
    metadata = {"spacing": 0.5, "unit": "um", "axes": "ZCYX"}
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, resolution=(4, 5), metadata=metadata)
    found, attributes = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, values.swapaxes(0, 1))
    assert attributes == {"voxel_size": [0.5, 0.2, 0.25], "axis_units": ["micrometer"] * 3}


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}], ids=str)
def test_ome_tiff(tmp_path: Path, options: dict[str, Any]) -> None:
    values = DRAW.normal(size=(2, 5, 32, 48)).astype(np.float32)
    metadata: dict[str, Any] = {"axes": "CZYX", "PhysicalSizeX": 200.0, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.2, "PhysicalSizeZ": 1.5, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata=metadata, **options)
    found, attributes = read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(found, values)
    assert attributes["voxel_size"] == [1.5, 0.2, 200.0]
    assert attributes["axis_units"] == ["micrometer", "micrometer", "nanometer"]


def test_stacks_of_planes_and_single_planes(tmp_path: Path) -> None:
    values = DRAW.integers(0, 255, (6, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "shaped.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "big_endian.tif", values.astype(">i2"), photometric="minisblack", byteorder=">")
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for plane in values:
            file.write(plane, contiguous=False)
    for name in ("shaped.tif", "big_endian.tif", "pages.tif"):
        np.testing.assert_array_equal(read(tmp_path / name)[0], values, err_msg=name)
    tifffile.imwrite(tmp_path / "plane.tif", values[0])
    np.testing.assert_array_equal(read(tmp_path / "plane.tif")[0], values[:1])


def test_time_series_are_not_taken_for_a_volume(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(ValueError, match=r"a\.tif has 3 points in time"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(tmp_path: Path, suffix: str) -> None:
    affine = np.array([[-2.0, 0, 0, 90], [0, 0, 3, -70], [0, 1.5, 0, 10], [0, 0, 0, 1]])
    values = DRAW.integers(-1000, 1000, (9, 10, 11, 2), np.int16)  # x, y, z, channel
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / f"a{suffix}")
    found, attributes = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found, values.transpose(3, 2, 1, 0))
    assert attributes == {"voxel_size": [3.0, 1.5, 2.0], "axis_units": ["millimeter"] * 3, "affine": affine.tolist()}


def test_nifti_with_a_slope(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), None)
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "a.nii")
    found, attributes = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(found, np.asarray(nibabel.load(tmp_path / "a.nii").dataobj).T)
    assert found.dtype == np.float32
    assert "affine" not in attributes  # nibabel would make one up


def test_npy_and_mrc(tmp_path: Path) -> None:
    values = DRAW.normal(size=(6, 20, 30)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
    with mrcfile.new(tmp_path / "a.mrc", values) as file:
        file.voxel_size = (1.0, 1.5, 2.0)  # x, y, z
    with mrcfile.new(tmp_path / "turned.mrc", values.transpose(1, 0, 2)) as file:
        file.header.maps, file.header.mapr, file.header.mapc = 2, 3, 1
    for name in ("a.npy", "fortran.npy", "a.mrc", "turned.mrc"):
        np.testing.assert_array_equal(read(tmp_path / name)[0], values, err_msg=name)
    assert read(tmp_path / "a.mrc")[1] == {"voxel_size": [2.0, 1.5, 1.0], "axis_units": ["angstrom"] * 3}


def test_what_is_no_volume(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    (tmp_path / "broken.tif").write_bytes(b"no TIFF at all")
    (tmp_path / "broken.nii.gz").write_bytes(b"no NIfTI at all")
    (tmp_path / "broken.mrc").write_bytes(bytes(2000))
    for name in ("flat.npy", "text.npy", "broken.tif", "broken.nii.gz", "broken.mrc"):
        with pytest.raises((ValueError, OSError), match=name):
            read(tmp_path / name)
    with pytest.raises(OSError, match=r"no\.tif"):
        read(tmp_path / "no.tif")


def test_one_volume_under_every_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4)))
    with opened(tmp_path / "a.npy") as file:
        assert names(file) == ["volume"]
        assert "volume" in file
        assert "spread" not in file
        assert find(file, "label").shape == (2, 3, 4)

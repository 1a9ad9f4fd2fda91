"""Small data sets as users have them: files of other formats, with what makes each of them special."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import tifffile
import zarr
from scipy.ndimage import distance_transform_edt, gaussian_filter

AFFINE = np.array([[-1.5, 0, 0, 80], [0, 1.5, 0, -60], [0, 0, 3.0, 20], [0, 0, 0, 1.0]])

#: Of the raw volumes of ``zarr_two_channels``, in micrometres.
SPACING = [2.0, 0.5, 0.5]


def texture(seed: int, shape: tuple[int, ...], sigma: float = 2.0) -> np.ndarray:
    """Smooth random values with a mean of 0 and a standard deviation of 1."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma, mode="wrap")
    return (values - values.mean()) / values.std()


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1000 + seed).normal(size=shape)


def tiff_denoising(directory: Path) -> list[Path]:
    """Two folders of ImageJ stacks, noisy and clean, of the same names."""
    for seed in range(3):
        clean = 300 + 80 * texture(seed, (6, 72, 72))
        noisy = clean + 60 * noise(seed, clean.shape)
        for folder, values in (("noisy", noisy), ("clean", clean)):
            (directory / folder).mkdir(exist_ok=True)
            stack = np.clip(values, 0, 65535).astype(np.uint16)
            metadata = {"spacing": 1.0, "unit": "um", "axes": "ZYX"}
            path = directory / folder / f"cell_{seed}.tif"
            tifffile.imwrite(path, stack, imagej=True, resolution=(2, 2), metadata=metadata)
    return [directory / "noisy", directory / "clean"]


def counts_with_zeros(directory: Path) -> list[Path]:
    """HDF5 files with counts of particles, most of them exactly 0, around bright spots of the raw volume."""
    for seed in range(2):
        density = np.exp(1.2 * texture(seed, (6, 72, 72), 3.0))
        counts = np.random.default_rng(seed).poisson(np.where(density > 1.5, density, 0))
        raw = 100 + 40 * np.log(density) + 5 * noise(seed, density.shape)
        with h5py.File(directory / f"{'ab'[seed]}.h5", "w") as file:
            file["raw"], file["counts"] = raw.astype(np.float32), counts.astype(np.uint16)
    return [directory]


def nifti_with_affine(directory: Path) -> list[Path]:
    """A data set in the layout of nnU-Net, with positive distances as labels."""
    for seed in range(2):
        shape = texture(seed, (6, 72, 72), 2.5)
        label = distance_transform_edt(shape > 0, sampling=(2, 1, 1))
        raw = 100 * shape + 30 * noise(seed, shape.shape)
        for folder, name, values in (("imagesTr", f"p{seed}_0000", raw), ("labelsTr", f"p{seed}", label)):
            (directory / folder).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(values.T.astype(np.float32), AFFINE)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, directory / folder / f"{name}.nii.gz")
    return [directory]


def zarr_two_channels(directory: Path) -> list[Path]:
    """OME-Zarr images with two raw channels of different size, and a label that needs both."""
    for seed in range(2):
        shape = (6, 72, 72)
        first, second = texture(seed, shape), texture(seed + 10, shape, 3.0)
        raw = np.stack([1000 + 200 * first, 3 + 0.5 * second]) + np.array([20, 0.05])[:, None, None, None] * noise(
            seed, (2, *shape)
        )
        label = np.tanh(first + second)[None]
        group = zarr.create_group(str(directory / f"s{seed}.zarr"))
        for name, values in (("raw", raw), ("target", label)):
            image = group.create_group(name)
            array = image.create_array("0", shape=values.shape, chunks=(1, 8, 36, 36), dtype="f4")
            array[...] = values
            axes = [{"name": "c", "type": "channel"}]
            axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
            level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, *SPACING]}]}
            image.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    return [directory]


def one_thin_volume(directory: Path) -> list[Path]:
    """One anisotropic volume of 12 planes, with raw and label in one file."""
    shape = (12, 130, 64)
    structure = texture(0, shape, 2.5)
    with h5py.File(directory / "only.h5", "w") as file:
        file["raw"] = (500 + 100 * structure + 20 * noise(0, shape)).astype(np.float32)
        file["distance"] = (40 * np.abs(gaussian_filter(structure, 1.0)) - 20).astype(np.float32)
        file["raw"].attrs["element_size_um"] = [5.0, 0.5, 0.5]
    return [directory / "only.h5"]


def images_2d(directory: Path) -> list[Path]:
    """Single planes in two folders."""
    for seed in range(6):
        clean = texture(seed, (96, 112), 3.0)
        raw = 100 * clean**3 + 10 * noise(seed, clean.shape)
        for folder, values in (("inputs", raw), ("targets", 2 * clean)):
            (directory / folder).mkdir(exist_ok=True)
            tifffile.imwrite(directory / folder / f"img{seed}.tif", values.astype(np.float32))
    return [directory / "inputs", directory / "targets"]


def labels_with_nan(directory: Path) -> list[Path]:
    """NPY files whose labels are missing in half of the volume."""
    for seed in range(2):
        structure = texture(seed, (6, 72, 72), 2.5)
        label = 10 + 5 * np.sin(2 * structure)
        label[:, 36:] = np.nan
        raw = structure + 0.2 * noise(seed, structure.shape)
        for end, values in (("raw", raw), ("gt", label)):
            np.save(directory / f"v{seed}_{end}.npy", values.astype(np.float32))
    return [directory]


def mask_and_distance(directory: Path) -> list[Path]:
    """HDF5 files with a mask and a distance as two datasets."""
    for seed in range(2):
        structure = texture(seed, (6, 72, 72), 3.0)
        mask = structure > 0.3
        with h5py.File(directory / f"v{seed}.h5", "w") as file:
            file["raw"] = (50 * structure + 15 * noise(seed, structure.shape)).astype(np.float32)
            file["distance"] = distance_transform_edt(mask).astype(np.float32)
            file["mask"] = mask.astype(np.uint8)
    return [directory]


DATASETS: dict[str, Callable[[Path], list[Path]]] = {
    "TIFF denoising": tiff_denoising,
    "counts with zeros": counts_with_zeros,
    "NIfTI with affine": nifti_with_affine,
    "OME-Zarr with two channels": zarr_two_channels,
    "one thin volume": one_thin_volume,
    "2D images": images_2d,
    "labels with NaN": labels_with_nan,
    "mask and distance": mask_and_distance,
}

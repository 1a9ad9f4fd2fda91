"""``pytorch3dunet.datasets.hdf5``: ``loaders.dataset`` may be ``ZarrDataset``."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType

from p3d_regression._patching import Patch, mark, patch_of


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the HDF5 datasets, which has just been executed."""
    yield _offer_zarr(module)


def _offer_zarr(module: ModuleType) -> Patch:
    name = "ZarrDataset"
    target = f"{module.__name__}.{name}"
    held = vars(module).get(name)
    if existing := patch_of(held):
        return existing
    if held is not None:
        return Patch(target, "not needed", "pytorch-3dunet has one")
    base = vars(module).get("AbstractHDF5Dataset")
    if not hasattr(base, "get_raw_padded_patch") or not hasattr(module, "traverse_h5_paths"):
        return Patch(target, "unsupported", "datasets of this pytorch-3dunet read whole volumes")
    from p3d_regression.upstream.zarr_dataset import ZarrDataset

    patch = Patch(target, "applied", "reads Zarr")
    vars(module)[name] = mark(ZarrDataset, patch)
    patch.undo_actions.append(partial(vars(module).pop, name, None))
    return patch

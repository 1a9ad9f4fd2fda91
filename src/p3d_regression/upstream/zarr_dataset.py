"""``loaders.dataset: ZarrDataset``: the HDF5 dataset of pytorch-3dunet, with Zarr arrays in the place of HDF5 files.

Patches, checks and transforms stay those of pytorch-3dunet. Nothing reads a whole volume.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pytorch3dunet.datasets import hdf5

from p3d_regression.upstream.stored import statistics_of_raw
from p3d_regression.volumes import zarr_store
from p3d_regression.volumes.padding import padded_part


class ZarrDataset(hdf5.AbstractHDF5Dataset):  # type: ignore[misc]
    """Patches of Zarr arrays; the arguments are those of pytorch-3dunet's HDF5 datasets.

    Args:
        file_path: a directory with Zarr arrays.
        global_normalization: as in the base class, with statistics of a raw volume that is read in parts.
    """

    def __init__(
        self,
        file_path: str,
        phase: str,
        slice_builder_config: dict[str, Any],
        transformer_config: dict[str, Any],
        raw_internal_path: str = "raw",
        label_internal_path: str = "label",
        global_normalization: bool = False,
        **options: Any,
    ) -> None:
        with _zarr_for_hdf5(raw_internal_path):
            super().__init__(
                file_path=file_path,
                phase=phase,
                slice_builder_config=slice_builder_config,
                transformer_config=transformer_config,
                raw_internal_path=raw_internal_path,
                label_internal_path=label_internal_path,
                global_normalization=False,
                **options,
            )
        if global_normalization:
            self._normalise_globally(transformer_config)

    def _normalise_globally(self, config: Mapping[str, Any]) -> None:
        steps = [step for kind in ("raw", "label") for step in config.get(kind) or ()]
        found = statistics_of_raw(self.file_path, self.raw_internal_path, steps)
        self.transformer.config_base = found
        self.raw_transform = self.transformer.raw_transform()
        if self.phase != "test":
            self.label_transform = self.transformer.label_transform()

    def is_lazy(self) -> bool:
        return True

    def get_raw_patch(self, idx: Any) -> Any:
        return zarr_store.Store(self.file_path)[self.raw_internal_path][idx]

    def get_label_patch(self, idx: Any) -> Any:
        return zarr_store.Store(self.file_path)[self.label_internal_path][idx]

    def get_raw_padded_patch(self, idx: Any) -> Any:
        return padded_part(zarr_store.Store(self.file_path)[self.raw_internal_path], idx, self.halo_shape)

    @classmethod
    def create_datasets(cls, dataset_config: dict[str, Any], phase: str) -> Any:
        with _zarr_for_hdf5(str(dataset_config.get("raw_internal_path", "raw"))):
            return list(super().create_datasets(dataset_config, phase))


@contextmanager
def _zarr_for_hdf5(key: str) -> Iterator[None]:
    """While this lasts, the module of the base class finds and opens Zarr stores."""
    files = SimpleNamespace(File=lambda path, mode="r": zarr_store.Store(path))
    with (
        mock.patch.object(hdf5, "h5py", files),
        mock.patch.object(hdf5, "traverse_h5_paths", lambda given: zarr_store.paths(given, key)),
    ):
        yield

"""The progress of a prediction: one bar over the patches of all its volumes."""

import os
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from p3d_regression import group
from p3d_regression.model.contract import mapping
from p3d_regression.prediction.sharing import Share
from p3d_regression.upstream import datasets
from p3d_regression.volumes.opening import opened


class Progress:
    """A bar that knows how many patches the volumes of a config have.

    Args:
        config: of the prediction; empty where it is not known.
        share: this process among those that share the prediction: its part is expected, and the first one shows it.
    """

    def __init__(self, config: Mapping[str, Any], share: Share) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self._left = 0
        # the bar is no reason to stop: what is wrong with the files is said by who reads them
        with suppress(Exception):
            self._left = -(-_patches(mapping(config.get("loaders"))) // share.count)
        shown = None if group.is_main() else Path(os.devnull).open("w")  # noqa: SIM115
        self._bar = tqdm(total=self._left, unit="patch", delay=1, file=shown)

    def start(self, name: str, patches: int, first: int) -> None:
        """A volume of so many patches comes, of which the first ones are there already."""
        self._bar.set_description(name)
        self._bar.initial += first
        self._bar.n += first
        self._bar.total = max(self._bar.total, self._bar.n + patches - first)

    def skip(self, patches: int) -> None:
        """A volume of so many patches is there already."""
        self.start("", patches, patches)
        self.advance(0)

    def advance(self, patches: int) -> None:
        """So many patches were predicted."""
        self._bar.update(patches)
        if self._bar.n >= self._bar.total:
            self._bar.close()


def _patches(loaders: Mapping[str, Any]) -> int:
    """How many patches all volumes have."""
    phase = mapping(loaders.get("test"))
    slices, key = mapping(phase.get("slice_builder")), loaders.get("raw_internal_path", "raw")
    found = 0
    for path in datasets.files(loaders, "test"):
        with opened(path) as file:
            sizes = zip(file[key].shape[-3:], slices["patch_shape"], slices["stride_shape"], strict=True)
            found += prod(datasets.patches_along(n, patch, stride) for n, patch, stride in sizes)
    return found

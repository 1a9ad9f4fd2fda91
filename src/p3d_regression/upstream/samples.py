"""Patches and volumes of pytorch-3dunet's datasets, as a training or a prediction is given them."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from p3d_regression.labels.moments import Array
from p3d_regression.upstream import datasets, introspection, transforms
from p3d_regression.volumes.opening import opened


class Shown(NamedTuple):
    """A patch of a training.

    Attributes:
        raw: as the network is given it, shape (C, D, H, W).
        label: as the loss is given it.
        calm: the raw values without random transforms.
        stored, stored_label: the same voxels of the file; None where a dataset class of a third party does not tell.
    """

    raw: Array
    label: Array
    calm: Array
    stored: Array | None = None
    stored_label: Array | None = None


def shown(loaders: Mapping[str, Any], phase: str, most: int | None = None) -> Iterator[Shown]:
    """The patches of a phase as a training is shown them, one by one.

    Random transforms that move voxels are left out, since raw volume and labels move together. Others, such as noise,
    draw once.

    Args:
        loaders: the section of the config.
        phase: ``train`` or ``val``.
        most: patches, evenly spread over all of them; None for all.

    Raises:
        Exception: whatever upstream, h5py or a third party's dataset has to say against the data.
    """
    streams = datasets.can_stream(loaders)
    config = copy.deepcopy(dict(loaders)) | {"random_scale": None}
    transformer = config[phase]["transformer"]
    raw = [transforms.centred(step) for step in transformer["raw"] if not transforms.moves(step)]
    label = [transforms.centred(step) for step in transformer["label"] if not transforms.is_random(step)]
    config[phase]["transformer"] = {"raw": raw, "label": label}
    calm = copy.deepcopy(config)
    calm[phase]["transformer"]["raw"] = [step for step in raw if not transforms.is_random(step)]
    found = datasets.create(config, phase, streams=streams)
    others = found if calm == config else datasets.create(calm, phase, streams=streams)
    places = [(number, index) for number, dataset in enumerate(found) for index in range(len(dataset))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), most or len(places))).astype(int))
    with datasets.same_random_numbers():
        for number, index in (places[at] for at in chosen):
            with introspection.quiet():
                yield _shown(found[number], others[number], index, streams=streams)


def _shown(dataset: Any, other: Any, index: int, *, streams: bool) -> Shown:
    if not streams:
        raw, label = (np.asarray(part) for part in dataset[index][:2])
        return Shown(raw, label, raw if other is dataset else np.asarray(other[index][0]))
    stored = np.asarray(dataset.get_raw_patch(dataset.raw_slices[index]))
    stored_label = np.asarray(dataset.get_label_patch(dataset.label_slices[index]))
    raw, label = np.asarray(dataset.raw_transform(stored)), np.asarray(dataset.label_transform(stored_label))
    calm = raw if other is dataset else np.asarray(other.raw_transform(stored))
    return Shown(raw, label, calm, stored, stored_label)


@dataclass(frozen=True)
class InputVolume:
    """The raw volume of a prediction.

    Attributes:
        path, key: file and dataset.
        shape: (D, H, W).
        transform: from values of the file to what the network is given, shape (C, D, H, W).
    """

    path: str
    key: str
    shape: tuple[int, ...]
    transform: Callable[[Array], Any]

    def read(self, start: Sequence[int], shape: Sequence[int]) -> Array:
        """Values of the file, shape (D, H, W) or (C, D, H, W)."""
        with opened(self.path) as file:
            place = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
            return np.asarray(file[self.key][(..., *place)])


def input_volume(loaders: Mapping[str, Any]) -> InputVolume:
    """The first raw volume of a prediction.

    Args:
        loaders: the section of the config.

    Raises:
        Exception: whatever upstream or h5py has to say against the data.
    """
    dataset = datasets.create(copy.deepcopy(dict(loaders)), "test", streams=True)[0]
    path, key = str(dataset.file_path), str(dataset.raw_internal_path)
    with opened(path) as file:
        return InputVolume(path, key, file[key].shape[-3:], dataset.raw_transform)

"""Looks at the files of a config, once, before the rules that need what they hold."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import h5py

from p3d_regression.checks.case import Case
from p3d_regression.checks.phase import FileLayout, Phase, Stored, is_shape
from p3d_regression.floor import Limit, LossLimit, VoxelLoss, absolute, loss_of, squared
from p3d_regression.labels import Statistics, Volume, VolumeError, moments_of, scan
from p3d_regression.losses.build import build
from p3d_regression.psnr import PsnrLimit
from p3d_regression.upstream import datasets, dry_run


class Progress(Protocol):
    """Told of the reading of volumes."""

    def start(self, what: str, voxels: int) -> None:
        """So many voxels are going to be read."""

    def advance(self, voxels: int) -> None:
        """So many have been read."""


def look(case: Case, *, volumes: bool, progress: Progress) -> None:
    """Fill ``case.phases`` in.

    Args:
        case: its config must name a dataset class and, for each phase, the paths of files.
        volumes: whether to read the volumes as well; else what HDF5 says of them.
        progress: told of the reading.
    """
    for name in case.phase_names:
        case.phases[name] = _layout(case, name)
    if not volumes:
        return
    try:
        for name, phase in case.phases.items():
            _read(case, name, phase, progress)
    except KeyboardInterrupt:
        case.interrupted = True


def _layout(case: Case, name: str) -> Phase:
    loaders = case.section("loaders")
    label_path = str(loaders.get("label_internal_path") or "label")
    if case.mode == "predict":
        label_path = str(case.get("predictor.gt_internal_path") or label_path)
    phase = Phase([], datasets.is_hdf5(loaders), str(loaders.get("raw_internal_path") or "raw"), label_path)
    section = case.section(f"loaders.{name}")
    if phase.is_hdf5 and isinstance(section.get("file_paths"), list):
        try:
            phase.files = [_file_layout(path, phase.raw_path, phase.label_path) for path in datasets.files(section)]
        except (OSError, ValueError) as error:
            phase.failure = _first_line(error)  # of a path that is none
    return phase


def _file_layout(path: str, raw: str, label: str | None) -> FileLayout:
    layout = FileLayout(path)
    try:
        if not Path(path).exists():
            layout.error = "there is no such file or directory"
            return layout
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: layout.datasets.append(name) if isinstance(item, h5py.Dataset) else None)
            layout.raw, layout.label, layout.padded = (_stored(file, key) for key in (raw, label, "raw_padded"))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        layout.error = _first_line(error)
    return layout


def _stored(file: h5py.File, key: str | None) -> Stored | None:
    found = file.get(key) if key else None
    return Stored(found.shape, found.dtype) if isinstance(found, h5py.Dataset) and found.shape else None


def is_sound(case: Case, name: str, phase: Phase) -> bool:
    """Whether everything that has to be there is, so that its volumes can be read."""
    if phase.failure is not None or not says_what_to_do(case, name):
        return False
    if not phase.is_hdf5:
        return True
    needs_label = case.mode == "train"
    good = all(f.error is None and f.raw and (f.label or not needs_label) for f in phase.files)
    return bool(phase.files) and good and _fits(case, name, phase)


def _fits(case: Case, name: str, phase: Phase) -> bool:
    """Whether the patches fit into the volumes, and these to each other; if not, a rule says so."""
    builder = case.section(f"loaders.{name}.slice_builder")
    patch = builder.get("patch_shape")
    if not is_shape(patch) or datasets.patch_shape_error(builder):
        return False
    for file in phase.files:
        if file.is_smaller_than(patch):
            return False
        if case.mode == "train" and file.raw and file.label and file.label.spatial != file.raw.spatial:
            return False
    return True


def says_what_to_do(case: Case, name: str) -> bool:
    """Whether the config says of a phase what upstream needs; if not, a rule says so."""
    return not list(case.gaps(name, is_hdf5=datasets.is_hdf5(case.section("loaders"))))


def _read(case: Case, name: str, phase: Phase, progress: Progress) -> None:
    if not is_sound(case, name, phase):
        return
    try:
        if phase.is_hdf5 and datasets.can_stream(case.section("loaders")):
            phase.broken_transforms = datasets.broken_transforms(case.section("loaders"), name)
        volumes = _label_volumes(case, name, phase) if not phase.broken_transforms else []
        if volumes:
            phase.limits = _limits(case, name)
            phase.statistics = Statistics()
            by_patch = any(limit.by_patch for limit in phase.limits.values())
            progress.start(f"labels of {name}", sum(volume.voxels(by_patch=by_patch) for volume in volumes))
            counts = case.plan.mask.of_array if case.plan.mask else None
            scan(volumes, list(phase.limits.values()), phase.statistics, progress.advance, counts)
        _drop_limits_of_other_channels(case, phase)
        if volumes and case.mode == "train" and case.is_regression:
            phase.changed_by_cast = datasets.changed_by_cast(case.section("loaders"), name)
        for layout in phase.files:
            _read_raw(layout, phase.raw_path, progress)
    except KeyboardInterrupt:
        _drop_limits_of_other_channels(case, phase)
        raise
    except Exception as error:
        # upstream's and HDF5's own words: a rule makes a finding of them
        phase.failure, phase.statistics, phase.limits = _first_line(error), None, {}


def _label_volumes(case: Case, name: str, phase: Phase) -> list[Volume]:
    if case.mode == "train":
        volumes = datasets.label_volumes(case.section("loaders"), name)
        return list(_validated(case, volumes)) if name == "val" else volumes
    there = [file.path for file in phase.files if file.label and len(file.label.shape) in (3, 4)]
    return [datasets.stored_volume(path, phase.label_path) for path in there]


def _validated(case: Case, volumes: Sequence[Volume]) -> Iterator[Volume]:
    """The patches that a validation looks at: ``validate_iters`` may say that it ends early."""
    iterations = case.get("trainer.validate_iters")
    left = math.inf if not isinstance(iterations, int) else (max(iterations, 0) + 1) * _batch_size(case)
    for volume in volumes:
        if left < len(volume.patches):
            volume = replace(volume, patches=volume.patches[: int(left)])
        left -= len(volume.patches)
        if volume.patches:
            yield volume


def _batch_size(case: Case) -> int:
    size = case.get("loaders.batch_size", 1)
    return size if isinstance(size, int) and size > 0 else 1


def _limits(case: Case, name: str) -> dict[str, Limit]:
    if case.mode != "train":
        return {}
    limits: dict[str, Limit] = {}
    loss, metric = _loss_of(case), _metric_of(case)
    if loss is not None and case.loss:
        limits[case.loss] = LossLimit(loss, case.predicting(case.seen_by_loss(name)))
    seen_by_score = case.predicting(case.seen_by_score(name))
    if metric is not None and case.metric:
        limits[case.metric] = LossLimit(metric, seen_by_score)
    elif case.plan.metric is None and case.metric == "PSNR":
        limits["PSNR"] = PsnrLimit(seen_by_score, _batch_size(case), in_order=name == "val")
    return limits


def _loss_of(case: Case) -> VoxelLoss | None:
    """The loss, if its floor is known."""
    if case.plan.loss:
        # voxels that do not count are not seen either
        return loss_of(getattr(build(case.plan.loss), "loss", None))
    ignored = case.get("loss.ignore_index")
    masked = float(ignored) if isinstance(ignored, int | float) and not math.isnan(ignored) else None
    return loss_of(dry_run.inner_loss(dry_run.loss(case.section("loss")).what), masked)


def _metric_of(case: Case) -> VoxelLoss | None:
    """The metric, if it is a loss whose floor is known."""
    if case.plan.metric is None:
        return squared() if case.metric == "MSE" else None
    if case.plan.mask and case.label_channels != 1:
        return None  # a mean of means, if the channels do not count alike
    match case.plan.metric.metric.name, case.plan.metric.arguments:
        case "MeanSquaredError", {"squared": True}:
            return squared()
        case "MeanAbsoluteError", _:
            return absolute()
    return None


def label_channels(case: Case, statistics: Statistics) -> int:
    """Of the labels that the loss compares with the output."""
    return len(statistics.channels) - bool(case.get("loss.skip_last_target", False))


def _drop_limits_of_other_channels(case: Case, phase: Phase) -> None:
    if phase.statistics and label_channels(case, phase.statistics) != case.label_channels:
        phase.limits = {}


def _read_raw(layout: FileLayout, key: str, progress: Progress) -> None:
    assert layout.raw is not None
    if layout.raw.dtype.kind != "f" or len(layout.raw.shape) not in (3, 4):
        return
    volume = datasets.stored_volume(layout.path, key)
    progress.start(f"raw volume {Path(layout.path).name}", volume.voxels())
    layout.raw_moments = moments_of(volume, progress.advance)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, AssertionError | VolumeError) and text else f"{type(error).__name__}: {text}"

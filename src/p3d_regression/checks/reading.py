"""Reads the files of a config, once, before the rules that need what they hold."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from p3d_regression.checks.data import FileLayout, Phase, Stored, is_shape
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError
from p3d_regression.labels.floor import SQUARED, Limit, LossLimit, VoxelLoss
from p3d_regression.labels.levels import MOST_PATCHES, Clipping, Directions, Levels
from p3d_regression.labels.psnr import PsnrLimit
from p3d_regression.labels.scan import Statistics, Volume, VolumeError, moments_of, scan
from p3d_regression.training.scaling import Lines, could_follow
from p3d_regression.upstream import datasets, samples
from p3d_regression.upstream.stored import stored_volume
from p3d_regression.volumes import image_file
from p3d_regression.volumes.geometry import spacing_of
from p3d_regression.volumes.opening import find, names, opened


class Progress(Protocol):
    """Follows the reading of volumes."""

    def start(self, what: str, voxels: int) -> None:
        """A reading of so many voxels begins."""

    def advance(self, voxels: int) -> None:
        """So many more have been read."""


def look(view: View, *, volumes: bool, progress: Progress | None) -> None:
    """Fill ``view.phases`` in.

    Args:
        view: its config must name a dataset class and, for each phase, the paths of files.
        volumes: whether to read the volumes as well, not only their shapes and types.
        progress: follows the reading of volumes.
    """
    for name in view.phase_names:
        view.phases[name] = _layout(view, name)
    if not volumes or progress is None:
        return
    try:
        for name, phase in view.phases.items():
            _read(view, name, phase, progress)
    except KeyboardInterrupt:
        view.interrupted = True


def _layout(view: View, name: str) -> Phase:
    loaders = view.section("loaders")
    label_path = str(loaders.get("label_internal_path") or "label")
    if view.mode == "predict":
        label_path = str(view.get("predictor.gt_internal_path") or label_path)
    phase = Phase([], datasets.is_hdf5(loaders), str(loaders.get("raw_internal_path") or "raw"), label_path)
    section = view.section(f"loaders.{name}")
    if phase.is_hdf5 and isinstance(section.get("file_paths"), list):
        try:
            paths, is_zarr = datasets.files(loaders, name), datasets.is_zarr(loaders)
            phase.files = [_file_layout(path, phase.raw_path, phase.label_path, is_zarr=is_zarr) for path in paths]
        except (OSError, ValueError) as error:
            phase.failure = _first_line(error)  # of a text that is not a path
    return phase


def _file_layout(path: str, raw: str, label: str | None, *, is_zarr: bool) -> FileLayout:
    layout = FileLayout(path)
    try:
        if not Path(path).exists():
            layout.error = "this file or directory does not exist"
            return layout
        if is_zarr and not Path(path).is_dir():
            layout.error = "this is a file, not a directory with Zarr arrays"
            return layout
        if image := image_file.format_of(path):
            layout.error = f"this is a {image.name} file, and pytorch-3dunet reads HDF5"
            return layout
        with opened(path) as file:
            layout.datasets = names(file)
            layout.raw, layout.label, layout.padded = (_stored(file, key) for key in (raw, label, "raw_padded"))
            if layout.raw and layout.padded:
                layout.padded_is_other = _is_other(file[raw], file["raw_padded"])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        layout.error = _first_line(error)
    return layout


def _is_other(raw: Any, padded: Any) -> bool:
    """Whether a padded volume is not that of a raw one, as far as a few planes tell."""
    margins = [(p - n) // 2 for n, p in zip(raw.shape[-3:], padded.shape[-3:], strict=False)]
    if raw.ndim != padded.ndim or raw.ndim not in (3, 4) or min(margins) < 0:
        return False  # the shapes tell
    z, y, x = margins
    rows, columns = slice(y, y + raw.shape[-2]), slice(x, x + raw.shape[-1])
    planes = {0, raw.shape[-3] // 2, raw.shape[-3] - 1}
    return any(
        not np.array_equal(raw[..., n, :, :], padded[..., n + z, rows, columns], equal_nan=raw.dtype.kind == "f")
        for n in planes
    )


def _stored(file: Any, key: str | None) -> Stored | None:
    found = find(file, key)
    if found is None or not found.shape:
        return None
    return Stored(found.shape, found.dtype, spacing_of(found.attrs))


def is_sound(view: View, name: str, phase: Phase) -> bool:
    """Whether nothing is missing, so that the volumes of a phase can be read."""
    if phase.failure is not None or not is_complete(view, name):
        return False
    if not phase.is_hdf5:
        return True
    needs_label = view.mode == "train"
    good = all(f.error is None and f.raw and (f.label or not needs_label) for f in phase.files)
    return bool(phase.files) and good and _fits(view, name, phase)


def _fits(view: View, name: str, phase: Phase) -> bool:
    """Whether the patches fit into the volumes, and these to each other; if not, a rule reports it."""
    builder = view.section(f"loaders.{name}.slice_builder")
    patch = builder.get("patch_shape")
    if not is_shape(patch) or datasets.patch_shape_error(builder):
        return False
    for file in phase.files:
        if file.is_smaller_than(patch):
            return False
        if view.mode == "train" and file.raw and file.label and file.label.spatial != file.raw.spatial:
            return False
    return True


def is_complete(view: View, name: str) -> bool:
    """Whether the config has all that pytorch-3dunet needs for a phase; if not, a rule reports it."""
    return not list(view.gaps(name, is_hdf5=datasets.is_hdf5(view.section("loaders"))))


def _read(view: View, name: str, phase: Phase, progress: Progress) -> None:
    if not is_sound(view, name, phase):
        return
    try:
        if phase.is_hdf5 and datasets.can_stream(view.section("loaders")):
            phase.broken_transforms = datasets.broken_transforms(view.section("loaders"), name)
        volumes = _label_volumes(view, name, phase) if not phase.broken_transforms else []
        if volumes:
            phase.limits = _limits(view, name)
            phase.statistics = Statistics()
            by_patch = any(limit.by_patch for limit in phase.limits.values())
            progress.start(f"labels of {name}", sum(volume.voxels(by_patch=by_patch) for volume in volumes))
            counts = view.plan.mask.of_array if view.plan.mask else None
            scan(volumes, list(phase.limits.values()), phase.statistics, progress.advance, counts)
        _drop_limits_of_other_channels(view, phase)
        if volumes and view.mode == "train" and view.is_regression:
            if name == "train" and phase.is_hdf5 and datasets.can_stream(view.section("loaders")):
                _observe(view, phase, volumes)
            phase.changed_by_cast = datasets.changed_by_cast(view.section("loaders"), name)
        for layout in phase.files:
            _read_raw(layout, phase.raw_path, progress)
    except KeyboardInterrupt:
        _drop_limits_of_other_channels(view, phase)
        raise
    except Exception as error:
        # a rule reports the error of pytorch-3dunet or HDF5
        phase.failure, phase.statistics, phase.limits = _first_line(error), None, {}


def _observe(view: View, phase: Phase, volumes: Sequence[Volume]) -> None:
    """Look at some patches."""
    phase.levels, phase.directions = Levels(), Directions()
    phase.clipping = Clipping() if all(volume.voxelwise for volume in volumes) else None
    is_known = not (view.final_error or view.scaling_error or view.plan_error)
    spec = could_follow(view.model, view.plan) if is_known else None
    phase.lines = Lines(view.plan, spec) if spec is not None else None
    for patch in samples.shown(view.section("loaders"), "train", MOST_PATCHES):
        if patch.stored is not None and patch.stored_label is not None:
            phase.levels.add(patch.stored, patch.raw, patch.label)
            if phase.clipping is not None:
                phase.clipping.add(patch.stored_label, patch.label)
        phase.directions.add(patch.label)
        if phase.lines is not None:
            try:
                phase.lines.add(patch)
            except ConfigError as error:
                phase.lines_error, phase.lines = error, None


def _label_volumes(view: View, name: str, phase: Phase) -> list[Volume]:
    if view.mode == "train":
        volumes = datasets.label_volumes(view.section("loaders"), name)
        return list(_validated(view, volumes)) if name == "val" else volumes
    there = [file.path for file in phase.files if file.label and len(file.label.shape) in (3, 4)]
    return [stored_volume(path, phase.label_path) for path in there]


def _validated(view: View, volumes: Sequence[Volume]) -> Iterator[Volume]:
    """The patches that a validation uses: it may end early, by ``validate_iters``."""
    iterations = view.get("trainer.validate_iters")
    left = math.inf if not isinstance(iterations, int) else (max(iterations, 0) + 1) * _batch_size(view)
    for volume in volumes:
        if left < len(volume.patches):
            volume = replace(volume, patches=volume.patches[: int(left)])
        left -= len(volume.patches)
        if volume.patches:
            yield volume


def _batch_size(view: View) -> int:
    size = view.get("loaders.batch_size", 1)
    return size if isinstance(size, int) and size > 0 else 1


def _limits(view: View, name: str) -> dict[str, Limit]:
    if view.mode != "train":
        return {}
    limits: dict[str, Limit] = {}
    loss, metric = _loss_of(view), _metric_of(view)
    if loss is not None and view.loss:
        limits[view.loss] = LossLimit(loss, view.predicting(view.seen_by_loss(name)))
    seen_by_score = view.predicting(view.seen_by_score(name))
    if metric is not None and view.metric:
        limits[view.metric] = LossLimit(metric, seen_by_score)
    elif view.plan.metric is None and view.metric == "PSNR":
        limits["PSNR"] = PsnrLimit(seen_by_score, _batch_size(view), in_order=name == "val")
    return limits


def _loss_of(view: View) -> VoxelLoss | None:
    """The loss, if its floor is known."""
    found = view.plan.described.voxel_loss if view.plan.described else None
    ignored = view.get("loss.ignore_index")
    # in a loss of this project, voxels that do not count are not seen at all
    if found is None or view.plan.loss or not isinstance(ignored, int | float) or math.isnan(ignored):
        return found
    return replace(found, ignored=float(ignored))


def _metric_of(view: View) -> VoxelLoss | None:
    """The metric, if it is a loss whose floor is known."""
    if view.plan.metric is None:
        return SQUARED if view.metric == "MSE" else None
    if view.plan.mask and view.predicted_label_channels != 1:
        return None  # a mean of means, if the channels do not count alike
    metric = view.plan.metric
    return metric.component.voxel_loss(metric.arguments) if metric.component.voxel_loss else None


def compared_label_channels(view: View, statistics: Statistics) -> int:
    """Of the labels that the loss compares with the output."""
    return len(statistics.channels) - bool(view.get("loss.skip_last_target", False))


def _drop_limits_of_other_channels(view: View, phase: Phase) -> None:
    if phase.statistics and compared_label_channels(view, phase.statistics) != view.predicted_label_channels:
        phase.limits = {}


def _read_raw(layout: FileLayout, key: str, progress: Progress) -> None:
    assert layout.raw is not None
    if layout.raw.dtype.kind not in "fiu" or len(layout.raw.shape) not in (3, 4):
        return
    volume = stored_volume(layout.path, key)
    progress.start(f"raw volume {Path(layout.path).name}", volume.voxels())
    layout.raw_moments = moments_of(volume, progress.advance)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return (
        text
        if isinstance(error, AssertionError | VolumeError | ConfigError) and text
        else f"{type(error).__name__}: {text}"
    )

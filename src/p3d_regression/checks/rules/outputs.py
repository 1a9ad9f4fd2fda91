"""Rules about what a command writes: whether it can, and whether one output replaces another."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import BOTH, PREDICT, Family
from p3d_regression.checks.rules.prediction import GIVEN
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import advise, delete, write
from p3d_regression.prediction.files import output_path
from p3d_regression.prediction.spec import BLEND, KEYS, format_of, is_ours
from p3d_regression.upstream import builders, introspection

family = Family()


@family.rule("P3D620", "error", modes=PREDICT, needs="files", stops=False)
def predictions_overwritten(view: View) -> Iterator[Found]:
    """pytorch-3dunet names a prediction after the file name of its input. Two inputs of one name in different
    directories, or with different endings, have one prediction: the second one overwrites the first.

    Example:
        loaders:
          output_dir: predictions
          test:
            file_paths: [data/a/volume.h5, data/b/volume.h5]

    Use instead:
        loaders:
          test:
            file_paths: [data/a/volume.h5]
    """
    phase = view.phases.get("test")
    if phase is None or not phase.is_hdf5:
        return
    directory = view.get("loaders.output_dir")
    inputs: dict[Path, list[str]] = defaultdict(list)
    for file in phase.files:
        path = Path(file.path)
        inputs[output_path(path, directory, format_of(view.section("predictor")))].append(file.path)
    for output, paths in inputs.items():
        if len(paths) > 1:
            apart = len({Path(path).parent for path in paths}) == len(paths)
            message = f"{paths[0]} and {paths[1]} have one output, {output.name}: the last one stays"
            advice = advise("rename the files, or predict them with a config of their own")
            # then each prediction is written next to its input
            key = "loaders.output_dir" if directory else "loaders.test.file_paths"
            yield Found(key, message, delete("loaders.output_dir") if directory and apart else advice)


@family.rule("P3D621", "error", modes=BOTH, needs="files")
def output_not_writable(view: View) -> Iterator[Found]:
    """The directory of the checkpoints or the predictions cannot be written: a file has its name, or it is read-only.
    pytorch-3dunet stops with an error of Python, for checkpoints after the data were loaded.

    Example:
        trainer:
          checkpoint_dir: train.h5

    Use instead:
        trainer:
          checkpoint_dir: checkpoints
    """
    key = "trainer.checkpoint_dir" if view.mode == "train" else "loaders.output_dir"
    given = view.get(key)
    if not isinstance(given, str) or not given or "\0" in given:
        return
    place = next(path for path in (Path(given), *Path(given).absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        message = f"{given} cannot be a directory: {place} is a file"
    elif not os.access(place, os.W_OK | os.X_OK):
        message = f"{given} cannot be written: {place} is read-only"
    else:
        return
    yield Found(key, message, advise(f"write a directory that can be written as {key}"))


@family.rule("P3D622", "error", modes=PREDICT)
def predictor_not_built(view: View) -> Iterator[Found]:
    """The installed pytorch-3dunet cannot create this predictor, and stops after the model was built and the checkpoint
    loaded. `DSB2018Predictor` cannot be created in version 1.9.

    Example:
        predictor:
          name: DSB2018Predictor

    Use instead:
        predictor:
          name: StandardPredictor
    """
    # what pytorch-3dunet passes itself is another rule's matter, as are the keys and metrics of this project
    section = {key: value for key, value in view.section("predictor").items() if key not in (*GIVEN, *KEYS)}
    if is_ours(section.get("performance_metric")):
        del section["performance_metric"]
    name = section.get("name", "StandardPredictor")
    if introspection.predictor_class(name) is None or view.out_channels is None:
        return
    error = builders.predictor_error(section, view.out_channels)
    if error is None:
        return
    plain = {"name": name}
    if builders.predictor_error(plain, view.out_channels) is None:
        for key in section:
            if key != "name" and builders.predictor_error({**plain, key: section[key]}, view.out_channels):
                yield Found(
                    f"predictor.{key}", f"{name} cannot be created with it ({error})", delete(f"predictor.{key}")
                )
        return
    message = f"the installed pytorch-3dunet cannot create {name} ({error})"
    yield Found("predictor.name", message, write("predictor.name", "StandardPredictor"))


@family.rule("P3D623", "warning", modes=PREDICT)
def overlap_lost(view: View) -> Iterator[Found]:
    """Since version 1.9 pytorch-3dunet does not average patches that overlap: each voxel has the value of the last
    patch that contains it. The overlap costs time and removes no seams. With `blend: gaussian` it does.

    Example:
        loaders:
          test:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [2, 32, 32]

    Use instead:
        predictor:
          blend: gaussian
        loaders:
          test:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [2, 32, 32]
    """
    place = "loaders.test.slice_builder"
    patch, stride = view.get(f"{place}.patch_shape"), view.get(f"{place}.stride_shape")
    if not (is_shape(patch) and is_shape(stride)) or introspection.averages_overlap() or view.blends:
        return
    times = 1.0
    for p, s in zip(patch, stride, strict=True):
        times *= max(p / s, 1.0)
    if times >= 2:
        message = (
            f"is {stride}, with a patch of {patch}: each voxel is predicted {times:.2g} times, and the last one stays"
        )
        is_blended = view.is_regression and not view.get("predictor.save_segmentation", False)
        fix = write(BLEND, "gaussian") if is_blended else write(f"{place}.stride_shape", patch)
        yield Found(f"{place}.stride_shape", message, fix)


@family.rule("P3D624", "error", modes=PREDICT, needs="files")
def lazy_readers_fail(view: View) -> Iterator[Found]:
    """With a halo, LazyHDF5Dataset opens the input file for writing, to keep a padded copy of the raw volume in it.
    HDF5 lets one process do that: with `num_workers` of 2 or more the prediction stops with a BlockingIOError.

    Example:
        predictor: {name: LazyPredictor}
        loaders:
          dataset: LazyHDF5Dataset
          num_workers: 2
          test: {slice_builder: {halo_shape: [1, 8, 8]}}

    Use instead:
        predictor: {name: LazyPredictor}
        loaders:
          dataset: LazyHDF5Dataset
          num_workers: 1
          test: {slice_builder: {halo_shape: [1, 8, 8]}}
    """
    halo, workers = view.get("loaders.test.slice_builder.halo_shape"), view.get("loaders.num_workers", 1)
    if view.get("loaders.dataset") != "LazyHDF5Dataset" or not isinstance(workers, int) or workers < 2:
        return
    if view.blends:
        return  # nothing is written then
    if isinstance(halo, list) and any(halo):
        message = f"is {workers}, but LazyHDF5Dataset writes to the input file, which one process at a time can"
        yield Found("loaders.num_workers", message, write("loaders.num_workers", 1))

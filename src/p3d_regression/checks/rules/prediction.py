"""Rules about prediction configs."""

from collections.abc import Iterator

from p3d_regression.checks.rule import PREDICT, Family
from p3d_regression.checks.rules.names import nearest, renamed, unknown
from p3d_regression.checks.rules.unknown_keys import MOVED, moved
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.evaluation.at_prediction import METRIC, TRUTH, Scoring
from p3d_regression.fix import NO_FIX, advise, delete, write
from p3d_regression.prediction.spec import KEYS, is_ours
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection

family = Family()


@family.rule("P3D603", "error", modes=PREDICT)
def segmentation_saved(view: View) -> Iterator[Found]:
    """With `save_segmentation` pytorch-3dunet writes class numbers instead of values: for one channel, 1 where the
    output is above 0.5 and 0 elsewhere; for several channels, the number of the largest one.

    Example:
        model:
          final_activation: none
        predictor:
          save_segmentation: true

    Use instead:
        model:
          final_activation: none
        predictor:
          save_segmentation: false
    """
    if view.is_regression and view.get("predictor.save_segmentation", False):
        message = "the predictions would be class numbers, not values"
        yield Found("predictor.save_segmentation", message, write("predictor.save_segmentation", False))


@family.rule("P3D604", "error", modes=PREDICT)
def segmentation_metric(view: View) -> Iterator[Found]:
    """`performance_metric` can be `dice` or `mean_iou`, which compare class numbers, or one of `p3d-regression metrics`
    that compares voxels. It needs `gt_internal_path`, the dataset of the truth in the input files. Without
    p3d-regression an assertion stops pytorch-3dunet after the whole inference.

    Example:
        model:
          final_activation: none
        predictor:
          performance_metric: dice

    Use instead:
        model:
          final_activation: none
        predictor:
          name: StandardPredictor
    """
    key = "predictor.performance_metric"
    metric = view.get(key)
    if metric is None:
        return
    if is_ours(metric):
        yield from _score(view, metric)
    elif view.is_regression:
        yield Found(key, f"{metric} compares class numbers, but the predictions are values", delete(key))
    elif view.get("predictor.gt_internal_path") is None:
        message = "is missing, and performance_metric needs it: pytorch-3dunet stops after the whole inference"
        phases = view.phases.values()
        paths = {phase.label_path for phase in phases if all(file.label for file in phase.files)} or {"label"}
        has_labels = not phases or any(file.label for phase in phases for file in phase.files)
        fix = write("predictor.gt_internal_path", paths.pop()) if has_labels else delete(key)
        yield Found("predictor.gt_internal_path", message, fix)


def _score(view: View, metric: object) -> Iterator[Found]:
    """What is wrong with a metric of this project."""
    key = view.get(TRUTH)
    phases = view.phases.values()
    files = [file for phase in phases if phase.is_hdf5 for file in phase.files if file.error is None]
    labels = {phase.label_path for phase in phases if all(file.label for file in phase.files)}
    held = set.intersection(*(set(file.datasets) for file in files)) if files else set()
    known = next((name for name in (*sorted(labels), "label", "labels", "gt") if name in held), None)
    if key is None and files and known is None:
        message = "is missing, the dataset of the truth in the input files, which performance_metric needs"
        yield Found(TRUTH, message, delete(METRIC))
        return
    try:
        Scoring.of(metric, key)
    except ConfigError as error:
        is_key = error.found.key == TRUTH and known is not None
        yield Found(error.found.key, error.found.message, write(TRUTH, known)) if is_key else error.found
        return
    for file in files:
        if str(key).strip("/") not in file.datasets:
            message = f"is {key}, but {file.path} has no such dataset; it has {', '.join(file.datasets)}"
            yield Found(TRUTH, message, write(TRUTH, known) if known else delete(METRIC, TRUTH))
            return


@family.rule("P3D605", "warning", modes=PREDICT)
def input_file_written(view: View) -> Iterator[Found]:
    """In a prediction LazyHDF5Dataset writes the mirror-padded raw volume as `raw_padded` into the input file: the file
    grows, and it must be writable. The next prediction reads the `raw_padded` that it finds, even if the halo is
    another one.

    Example:
        loaders:
          dataset: LazyHDF5Dataset

    Use instead:
        loaders:
          dataset: StandardHDF5Dataset
    """
    writes = introspection.lazy_prediction_writes() and not view.blends
    if view.get("loaders.dataset") == "LazyHDF5Dataset" and writes:
        message = "predict3dunet would write a dataset raw_padded into each input file"
        fix = write("loaders.dataset", "StandardHDF5Dataset", note="or predict from a copy of the files")
        yield Found("loaders.dataset", message, fix)


@family.rule("P3D606", "error", modes=PREDICT, needs="files")
def stale_padding(view: View) -> Iterator[Found]:
    """pytorch-3dunet does not check a `raw_padded` of an earlier prediction. If the halo was larger then, the
    predictions are shifted, without an error; if it was smaller, pytorch-3dunet stops. If it is that of another dataset
    of the file, or the raw volume was replaced since, what is predicted is not what the config names.

    Example:
        loaders:
          dataset: LazyHDF5Dataset
          raw_internal_path: padded_before

    Use instead:
        loaders:
          dataset: StandardHDF5Dataset
          raw_internal_path: padded_before
    """
    writes = introspection.lazy_prediction_writes() and not view.blends
    if view.get("loaders.dataset") != "LazyHDF5Dataset" or not writes:
        return
    halo = view.get("loaders.test.slice_builder.halo_shape", [0, 0, 0])
    if not isinstance(halo, list) or not all(isinstance(n, int) for n in halo) or "test" not in view.phases:
        return
    for file in view.phases["test"].files:
        if file.raw and file.padded:
            wanted = tuple(n + 2 * h for n, h in zip(file.raw.spatial, halo, strict=False))
            raw = view.phases["test"].raw_path
            if file.padded.spatial != wanted:
                message = f"its raw_padded has the shape {file.padded.shape}, this halo needs {wanted}"
            elif file.padded_is_other:
                message = f"its raw_padded is not that of {raw}, and would be predicted in its place"
            else:
                continue
            other = f"or delete the dataset: h5py.File({file.path!r}, 'a').pop('raw_padded')"
            fix = write("loaders.dataset", "StandardHDF5Dataset") + advise(other)
            yield Found("loaders.test.file_paths", f"{file.path}: {message}", fix)


@family.rule("P3D607", "error", modes=PREDICT)
def predictor_not_understood(view: View) -> Iterator[Found]:
    """pytorch-3dunet does not know the predictor, an option is one that pytorch-3dunet passes to the predictor itself
    (`output_dir` belongs to `loaders`), or the model does not have the channel. pytorch-3dunet stops, for a wrong
    channel in the middle of the inference.

    Example:
        predictor:
          name: Standard

    Use instead:
        predictor:
          name: StandardPredictor
    """
    section = view.section("predictor")
    name = section.get("name", "StandardPredictor")
    if name not in introspection.predictor_names():
        names, kind = introspection.predictor_names(), "a predictor of pytorch-3dunet"
        yield Found("predictor.name", *unknown(name, names, "predictor.name", kind, "StandardPredictor"))
    for key in GIVEN:
        if key in section:
            moves = key == "output_dir" and "output_dir" not in view.section("loaders")
            fix = delete(f"predictor.{key}") + (write(f"loaders.{key}", section[key]) if moves else NO_FIX)
            yield Found(f"predictor.{key}", "pytorch-3dunet passes this to its predictor itself, and stops", fix)
    channel, channels = section.get("prediction_channel"), view.out_channels
    if channel is not None and channels and not (isinstance(channel, int) and channel < channels):
        message = f"is {as_yaml(channel)}, but the model has {channels} output channel(s), counted from 0"
        yield Found("predictor.prediction_channel", message, write("predictor.prediction_channel", channels - 1))


#: What pytorch-3dunet passes to a predictor besides its section.
GIVEN = ("model", "output_dir", "out_channels", "device", "config")


@family.rule("P3D608", "warning", modes=PREDICT)
def ignored_predictor_option(view: View) -> Iterator[Found]:
    """The predictors of pytorch-3dunet accept any option and silently ignore those that they do not know, such as
    options of older versions.

    Example:
        predictor:
          name: StandardPredictor
          save_segmentations: true

    Use instead:
        predictor:
          name: StandardPredictor
          save_segmentation: true
    """
    section = view.section("predictor")
    cls = introspection.predictor_class(section.get("name", "StandardPredictor"))
    if cls is None:
        return
    known = [*(name for name in introspection.arguments_of_ancestry(cls) if name not in GIVEN), *KEYS]
    for key in section:
        if key not in ("name", *known, *GIVEN):
            meant = nearest(key, known)
            if meant in section or (meant == "save_segmentation" and view.is_regression):
                meant = None  # it has a value, or another rule would find it
            hint = f"; did you mean {meant}?" if meant else ""
            fix = renamed("predictor", section, key, meant)
            if key in MOVED:
                hint, fix = (
                    f"; since version 1.9 it is {MOVED[key]}",
                    moved(view, "predictor", section, key, MOVED[key]),
                )
            yield Found(f"predictor.{key}", f"pytorch-3dunet ignores this option{hint}", fix)

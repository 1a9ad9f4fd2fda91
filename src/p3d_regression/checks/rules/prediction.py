"""Rules about prediction configs, and the checkpoint that they name."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import yaml

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import PREDICT, Family
from p3d_regression.checks.rules.files import beside
from p3d_regression.checks.rules.model import nested, unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection
from p3d_regression.upstream.logs import training_config_beside

family = Family()


@family.rule("P3D601", "error", modes=PREDICT, needs="files")
def checkpoint_unreadable(view: View) -> Iterator[Found]:
    """The config names no checkpoint, or one that cannot be read: damaged, of another program, or not there. Upstream
    builds the model first and then stops with an error of torch.

    Example:
        model_path: no/such/checkpoint.pytorch

    Use instead:
        model_path: checkpoints/best_checkpoint.pytorch
    """
    path = view.get("model_path")
    if not isinstance(path, str):
        yield Found("model_path", "is missing", "model_path: checkpoints/best_checkpoint.pytorch")
    elif not Path(path).is_file():
        yield Found("model_path", f"{path}: there is no such file{beside(path)}", "mend the path")
    else:
        try:
            introspection.checkpoint_metadata(path)
        except Exception as error:
            lines = str(error).splitlines() or [""]
            yield Found("model_path", f"{path} is no checkpoint ({type(error).__name__}: {lines[0][:200]})")


@family.rule("P3D602", "error", modes=PREDICT, needs="files")
def checkpoint_contradicts_config(view: View) -> Iterator[Found]:
    """A checkpoint that was trained with `final_activation` remembers it, and another one in the prediction config is
    refused. What was trained with upstream's own keys remembers nothing: without `is_segmentation: false` in the
    prediction config its values are squashed to 0..1 in silence. But upstream has left a copy of the training config
    in `logs/` beside the checkpoint, and that tells.

    Example:
        model:
          final_activation: softplus
        model_path: trained_with_none.pytorch

    Use instead:
        model:
          final_activation: none
        model_path: trained_with_none.pytorch
    """
    if view.checkpoint_metadata is None:
        return
    try:
        kept = checkpoint_memory.from_metadata(view.checkpoint_metadata, view.out_channels or 1)
        if kept is not None and view.final is not None:
            checkpoint_memory.is_new_head(view.final, kept.final)
            if SCALING in view.model and view.scaling is not None:
                checkpoint_memory.is_new_scaling(view.scaling, view.final, kept.scaling)
    except ConfigError as error:
        key, _, message = str(error).partition(": ")
        yield Found(key, message, "delete the line")
        return
    if kept is None:
        yield from _against_training_config(view)


def _against_training_config(view: View) -> Iterator[Found]:
    found = training_config_beside(Path(view.get("model_path")))
    if found is None:
        return
    path, config = found
    trained = View(config, "train")
    if not trained.model or trained.head == view.head or trained.final_error or view.final_error:
        return
    if trained.head.is_ours and not view.head.is_ours:
        # trained where the plugin was absent, and the key did nothing: nobody knows
        return
    keys = [key for key in (KEY, "is_segmentation", "final_sigmoid") if key in trained.model]
    lines = "\n".join(f"  {key}: {yaml.safe_dump(trained.model[key]).splitlines()[0]}" for key in keys)
    yield Found(
        "model.is_segmentation",
        f"the model was trained with the last layer {trained.head.name} (says {path}), here it is {view.head.name}",
        f"model:\n{lines}" if lines else "delete the lines about the last layer",
    )


@family.rule("P3D603", "error", modes=PREDICT)
def segmentation_saved(view: View) -> Iterator[Found]:
    """With `save_segmentation` upstream writes class numbers instead of values: for one channel whether the output is
    above 0.5, for several the number of the largest one.

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
        said = "the predictions would be class numbers, not values"
        yield Found("predictor.save_segmentation", said, "predictor:\n  save_segmentation: false")


@family.rule("P3D604", "error", modes=PREDICT)
def segmentation_metric(view: View) -> Iterator[Found]:
    """`performance_metric` knows `dice` and `mean_iou`, which compare class numbers. With any other name, or without
    `gt_internal_path`, an assertion stops upstream after the whole inference.

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
    metric = view.get("predictor.performance_metric")
    if metric is None:
        return
    if metric not in ("dice", "mean_iou"):
        said = f"{metric!r} is neither dice nor mean_iou: upstream stops after the whole inference"
        yield Found("predictor.performance_metric", said, "delete the line")
    elif view.is_regression:
        yield Found(
            "predictor.performance_metric", f"{metric} compares class numbers, these are values", "delete the line"
        )
    elif view.get("predictor.gt_internal_path") is None:
        said = "is missing, performance_metric needs it: upstream stops after the whole inference"
        yield Found("predictor.gt_internal_path", said, "predictor:\n  gt_internal_path: label")


@family.rule("P3D605", "warning", modes=PREDICT)
def input_file_written(view: View) -> Iterator[Found]:
    """At prediction LazyHDF5Dataset writes the mirror-padded raw volume as `raw_padded` into the input file: the file
    grows, and it must be writable. A later prediction takes what it finds there, also with another halo.

    Example:
        loaders:
          dataset: LazyHDF5Dataset

    Use instead:
        loaders:
          dataset: StandardHDF5Dataset
    """
    if view.get("loaders.dataset") == "LazyHDF5Dataset" and introspection.lazy_prediction_writes():
        said = "predict3dunet would write a dataset raw_padded into each input file"
        yield Found("loaders.dataset", said, "loaders:\n  dataset: StandardHDF5Dataset  # or predict from a copy")


@family.rule("P3D606", "error", modes=PREDICT, needs="files")
def stale_padding(view: View) -> Iterator[Found]:
    """A `raw_padded` of an earlier prediction is taken as it is. If the halo was larger then, the predictions are
    shifted; if it was smaller, upstream stops. (A raw volume whose values were replaced since is not looked at
    either, and nothing can tell.)

    Example:
        loaders:
          dataset: LazyHDF5Dataset
          raw_internal_path: padded_before

    Use instead:
        loaders:
          dataset: StandardHDF5Dataset
          raw_internal_path: padded_before
    """
    if view.get("loaders.dataset") != "LazyHDF5Dataset" or not introspection.lazy_prediction_writes():
        return
    halo = view.get("loaders.test.slice_builder.halo_shape", [0, 0, 0])
    if not isinstance(halo, list) or not all(isinstance(n, int) for n in halo) or "test" not in view.phases:
        return
    for file in view.phases["test"].files:
        if file.raw and file.padded:
            wanted = tuple(n + 2 * h for n, h in zip(file.raw.spatial, halo, strict=False))
            if file.padded.spatial != wanted:
                said = (
                    f"{file.path}: its raw_padded has the shape {file.padded.shape}, for this halo it would be {wanted}"
                )
                yield Found(
                    "loaders.test.file_paths",
                    said,
                    f"delete the dataset: h5py.File({file.path!r}, 'a').pop('raw_padded')",
                )


@family.rule("P3D607", "error", modes=PREDICT)
def predictor_not_understood(view: View) -> Iterator[Found]:
    """A predictor that upstream does not know, an option that it gives itself (`output_dir` belongs to `loaders`), or a
    channel that the model does not have. Upstream stops, for the last in the midst of the inference.

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
        found = unknown(name, introspection.predictor_names(), "predictor.name", "a predictor of upstream")
        yield Found("predictor.name", *found)
    for key in _GIVEN:
        if key in section:
            fix = f"loaders:\n  output_dir: {as_yaml(section[key])}" if key == "output_dir" else "delete the line"
            yield Found(f"predictor.{key}", "upstream gives this to its predictor itself, and stops", fix)
    channel, channels = section.get("prediction_channel"), view.out_channels
    if channel is not None and channels and not (isinstance(channel, int) and channel < channels):
        said = f"is {as_yaml(channel)}, but the model has {channels} output channel(s), counted from 0"
        yield Found("predictor.prediction_channel", said, nested("predictor.prediction_channel", str(channels - 1)))


#: What upstream gives to a predictor besides its section.
_GIVEN = ("model", "output_dir", "out_channels", "device", "config")


@family.rule("P3D608", "warning", modes=PREDICT)
def ignored_predictor_option(view: View) -> Iterator[Found]:
    """Upstream's predictors accept any option and ignore those that they do not know, such as options of older
    versions.

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
    known = [name for name in introspection.arguments_of_ancestry(cls) if name not in _GIVEN]
    for key in section:
        if key not in ("name", *known, *_GIVEN):
            nearest = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            fix = nested(f"predictor.{nearest[0]}", as_yaml(section[key])) if nearest else "delete the line"
            yield Found(f"predictor.{key}", f"upstream ignores this option{hint}", fix)

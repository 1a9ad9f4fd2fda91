"""What keys mean and which values they take, where the code does not say so."""

from typing import Any

_COUNT = {"type": "integer", "minimum": 1}
_NUMBER = {"type": "number"}
_FLAG = {"type": "boolean"}
_TEXT = {"type": "string"}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 3, "maxItems": 3}
_PATHS = {"type": "array", "items": _TEXT, "minItems": 1}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


#: Section, key -> its values and a line about it.
KEYS: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("", "manual_seed"): ({"type": ["integer", "null"]}, "Seed of the random numbers."),
    ("", "device"): (_TEXT, "Where to compute; the best device of the machine by default."),
    ("", "model_path"): (_TEXT, "Checkpoint to predict with."),
    ("model", "in_channels"): (_COUNT, "Channels of the raw volumes."),
    ("model", "out_channels"): (_COUNT, "Channels of the predictions."),
    ("model", "f_maps"): (
        {"anyOf": [_COUNT, {"type": "array", "items": _COUNT, "minItems": 2}]},
        "Channels of each level of the network, or of the first one.",
    ),
    ("model", "num_levels"): ({"type": "integer", "minimum": 2}, "Levels of the network, if f_maps is a number."),
    ("model", "layer_order"): (
        {"type": "string", "pattern": "^[cbgrlei]+$"},
        "c convolution, g GroupNorm, b BatchNorm, i InstanceNorm, r ReLU, l LeakyReLU, e ELU.",
    ),
    ("model", "num_groups"): (_COUNT, "Groups of GroupNorm."),
    ("model", "final_sigmoid"): (
        _FLAG,
        "pytorch-3dunet's last layer: Sigmoid, or Softmax. Use final_activation instead.",
    ),
    ("model", "is_segmentation"): (_FLAG, "pytorch-3dunet: whether there is a last layer at all."),
    ("model", "conv_padding"): ({"anyOf": [{"type": "integer"}, _SHAPE]}, "Padding of the convolutions."),
    ("model", "conv_upscale"): (_COUNT, "Factor of the channels in the first convolution of a block."),
    ("model", "upsample"): (_TEXT, "How the decoder enlarges: default, nearest, trilinear, area or deconv."),
    ("model", "dropout_prob"): (_NUMBER, "Probability of dropout, if layer_order has d or D."),
    ("trainer", "checkpoint_dir"): (_optional(_TEXT), "Directory of checkpoints, log and scores."),
    ("trainer", "resume"): (_optional(_TEXT), "Checkpoint of a training to go on with."),
    ("trainer", "pre_trained"): (_optional(_TEXT), "Checkpoint whose weights a new training begins with."),
    ("trainer", "validate_after_iters"): (_COUNT, "Iterations between validations, each of which writes a checkpoint."),
    ("trainer", "log_after_iters"): (_COUNT, "Iterations between lines of the training loss."),
    ("trainer", "validate_iters"): (_optional({"type": "integer", "minimum": 0}), "Batches of a validation."),
    ("trainer", "max_num_epochs"): (_COUNT, "Epochs after which the training ends."),
    ("trainer", "max_num_iterations"): (_COUNT, "Iterations after which the training ends."),
    ("trainer", "eval_score_higher_is_better"): (_FLAG, "Direction of the score; the plugin takes it from the metric."),
    ("trainer", "skip_train_validation"): (_FLAG, "Whether no score of training patches is computed."),
    ("trainer", "tensorboard_formatter"): ({"type": ["object", "null"]}, "Options of the images in TensorBoard."),
    ("optimizer", "learning_rate"): (_NUMBER, "Learning rate."),
    ("optimizer", "weight_decay"): (_NUMBER, "Weight decay."),
    ("loaders", "dataset"): (_TEXT, "Class that reads the files."),
    ("loaders", "num_workers"): ({"type": "integer", "minimum": 0}, "Processes that read and transform patches."),
    ("loaders", "batch_size"): (_COUNT, "Patches of a batch, on each GPU."),
    ("loaders", "raw_internal_path"): (_TEXT, "Name of the raw dataset in the files."),
    ("loaders", "label_internal_path"): (_optional(_TEXT), "Name of the label dataset in the files."),
    ("loaders", "global_normalization"): (_FLAG, "Whether Standardize uses the statistics of each volume, not patch."),
    ("loaders", "output_dir"): (_optional(_TEXT), "Directory of the predictions."),
    ("loaders", "random_scale"): (
        _optional(_COUNT),
        "Training patches of random size: the size varies by so many voxels.",
    ),
    ("loaders", "random_scale_probability"): (_NUMBER, "How often the size varies."),
    ("phase", "file_paths"): (_PATHS, "Files of the phase, or directories of them."),
    ("slice_builder", "patch_shape"): (_SHAPE, "Patch (Z, Y, X)."),
    ("slice_builder", "stride_shape"): (_SHAPE, "Step between patches (Z, Y, X)."),
    ("slice_builder", "halo_shape"): (_SHAPE, "Margin of a predicted patch that is cut off (Z, Y, X)."),
    ("slice_builder", "skip_shape_check"): (_FLAG, "Whether patches below 64 along Y and X are allowed."),
    ("slice_builder", "ignore_index"): ({"type": ["number", "null"]}, "Label of voxels that do not count."),
    ("slice_builder", "threshold"): (_NUMBER, "Share of labelled voxels below which a patch is left out."),
    ("slice_builder", "slack_acceptance"): (_NUMBER, "How often a patch below the threshold is kept all the same."),
    ("predictor", "save_segmentation"): (_FLAG, "Whether class numbers are written in place of values."),
    ("predictor", "prediction_channel"): ({"type": ["integer", "null"]}, "The only channel that is written."),
    ("predictor", "output_dataset"): (_TEXT, "Name of the dataset of the predictions."),
    ("predictor", "performance_metric"): (_optional(_TEXT), "Metric that is computed at the end of each prediction."),
    ("predictor", "gt_internal_path"): (_optional(_TEXT), "Name of the dataset of the truth in the input files."),
    ("loss", "weight"): (
        {"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER}, {"type": "null"}]},
        "Factor of the loss.",
    ),
    ("loss", "ignore_index"): ({"type": ["number", "null"]}, "Label of voxels that do not count; .nan is one."),
    ("loss", "skip_last_target"): (_FLAG, "Whether the last channel of the labels is left out."),
    ("loss", "pos_weight"): ({"type": ["number", "array", "null"]}, "Weight of voxels with the label 1."),
}

#: What the project's own keys of the section ``predictor`` mean.
PREDICTOR = {
    "blend": "How overlapping patches are weighted: gaussian, mean, or none as in pytorch-3dunet.",
    "output": "Format of the predictions: hdf5 or zarr.",
    "compression": "Of the predictions: gzip, lzf (HDF5), zstd (Zarr) or none.",
    "resume": "Whether an interrupted prediction goes on.",
    "tta": "Test-time augmentation: flips, rotations or none.",
    "ensemble": "Checkpoints whose predictions are averaged.",
    "precision": "Of the layers: 32, bf16-mixed or 16-mixed.",
}

#: By the kind of value that an argument of a loss, a metric or an activation takes.
KINDS: dict[str, dict[str, Any]] = {
    "a number": _NUMBER,
    "true or false": _FLAG,
    "a whole number": {"type": "integer"},
    "a text": _TEXT,
    "a number or a list of numbers": {"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER}]},
}


def by_default(value: Any) -> dict[str, Any]:
    """Values of a key whose default is known, and nothing else."""
    match value:
        case bool():
            return {"type": "boolean", "default": value}
        case int() | float():
            return {"type": ["number", "array", "null"], "default": value}
        case str():
            return {"type": ["string", "null"], "default": value}
        case list() | tuple() if all(isinstance(part, int | float | str) for part in value):
            return {"type": ["array", "number", "null"], "default": list(value)}
    return {}

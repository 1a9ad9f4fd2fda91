"""Rules about the checkpoint that a config names, and whether it fits the config."""

from collections.abc import Iterator
from pathlib import Path

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import BOTH, PREDICT, Family
from p3d_regression.checks.rules.files import did_you_mean, similar
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import NO_FIX, advise, delete, write
from p3d_regression.model import contract
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.differences import Difference, differences
from p3d_regression.model.fitting import misfits
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.text import as_yaml
from p3d_regression.upstream.logs import training_config_beside

family = Family()


@family.rule("P3D601", "error", modes=BOTH, needs="files")
def checkpoint_unreadable(view: View) -> Iterator[Found]:
    """The config names no checkpoint, or one that cannot be read: it is damaged, written by another program, or does
    not exist. pytorch-3dunet builds the model first and then stops with an error of torch.

    Example:
        model_path: no/such/checkpoint.pytorch

    Use instead:
        model_path: checkpoints/best_checkpoint.pytorch
    """
    key = view.checkpoint_key
    if key is None:
        return
    path = view.get(key)
    best = "last_checkpoint" if key == "trainer.resume" else "best_checkpoint"
    advice = advise(f"write the path of {best}.pytorch in the checkpoint_dir of the training as {key}")
    if not isinstance(path, str):
        said = "is missing" if path is None else f"is {as_yaml(path)}, not a path"
        yield Found(key, said, advice)
    elif not Path(path).is_file():
        inside = Path(path) / f"{best}.pytorch"
        other = str(inside) if inside.is_file() else similar(path)
        message = f"{path} does not exist{did_you_mean(other)}"
        yield Found(key, message, write(key, other) if other else advice)
    elif view.checkpoint_error is not None:
        error = view.checkpoint_error
        lines = str(error).splitlines() or [""]
        message = f"{path} is not a checkpoint of pytorch-3dunet ({type(error).__name__}: {lines[0][:200]})"
        yield Found(key, message, advice)


@family.rule("P3D602", "error", modes=BOTH, needs="files")
def checkpoint_contradicts_config(view: View) -> Iterator[Found]:
    """The same weights are another function with another `num_groups`, other letters of `layer_order`, another
    normalisation of the raw volume, or another last layer: pytorch-3dunet loads them without an error, and the
    predictions are wrong. A checkpoint of a training with `final_activation` holds the network and the transforms of
    its training. For others, the copy of the training config that pytorch-3dunet writes to `logs/` next to the
    checkpoint is read. What the config leaves out is taken from the checkpoint.

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
    yield from _of_last_layer(view)
    yield from (difference.found for difference in _differences(view) if difference.is_error)


def _differences(view: View) -> list[Difference]:
    """What the config says against the training of its checkpoint; what is known of the weights is said by another
    rule."""
    trained = view.trained
    if trained is None:
        return []
    is_start = view.checkpoint_key == "trainer.pre_trained"
    phase = "test" if view.mode == "predict" else "val"
    return list(differences(view.config, phase, trained, is_start=is_start))


def _of_last_layer(view: View) -> Iterator[Found]:
    is_start = view.checkpoint_key == "trainer.pre_trained"
    try:
        kept = checkpoint_memory.from_metadata(view.checkpoint_metadata or {}, view.out_channels or 1)
        if kept is not None and view.final is not None and not is_start:
            checkpoint_memory.is_new_head(view.final, kept.final)
            if SCALING in view.model and view.scaling is not None:
                checkpoint_memory.is_new_scaling(view.scaling, view.final, kept.scaling)
    except ConfigError as error:
        found = error.found
        fix = found.fix or (delete(found.key) if view.get(found.key) is not None else NO_FIX)
        yield Found(found.key, found.message, fix)
        return
    if kept is None and view.mode == "predict":
        yield from _against_training_config(view)


def _against_training_config(view: View) -> Iterator[Found]:
    found = training_config_beside(Path(view.get("model_path")))
    if found is None:
        return
    path, config = found
    trained = View(config, "train")
    if not trained.model or trained.last_layer == view.last_layer or trained.final_error or view.final_error:
        return
    if trained.last_layer.is_ours or view.last_layer.is_ours:
        # trained where the plugin was absent, maybe, and the key did nothing; or the user has said what it is
        return
    fix = NO_FIX
    for key in (KEY, "is_segmentation", "final_sigmoid"):
        if key in trained.model:
            fix += write(f"model.{key}", trained.model[key])
        elif key in view.model:
            fix += delete(f"model.{key}")
    layers = trained.last_layer.name, view.last_layer.name
    message = f"the model was trained with the last layer {layers[0]} ({path}), here it is {layers[1]}"
    yield Found("model.is_segmentation", message, fix)


@family.rule("P3D610", "error", modes=BOTH, needs="files")
def weights_do_not_fit(view: View) -> Iterator[Found]:
    """The weights in the checkpoint are those of another network: other `f_maps`, another class, other numbers of
    channels. torch stops with a list of all layers, after the network was built.

    Example:
        model:
          f_maps: [8, 16]
        model_path: wide/best_checkpoint.pytorch

    Use instead:
        model:
          f_maps: [16, 32]
        model_path: wide/best_checkpoint.pytorch
    """
    weights = view.checkpoint_weights
    if weights is None or view.checkpoint_key is None:
        return
    if any(found.section == "model" for found in (d.found for d in _differences(view))):
        return  # said with what the checkpoint knows
    yield from misfits(contract.with_levels(view.model, view.trained), weights, view.checkpoint_key)


@family.rule("P3D611", "warning", modes=PREDICT, needs="files")
def network_incomplete(view: View) -> Iterator[Found]:
    """A prediction config that describes the network leaves out what the training had set. With p3d-regression it is
    taken from the checkpoint. Where p3d-regression is not installed, pytorch-3dunet uses its default, loads the weights
    without an error, and predicts something else.

    Example:
        model:
          f_maps: [8, 16]
        model_path: leaky/best_checkpoint.pytorch

    Use instead:
        model:
          f_maps: [8, 16]
          layer_order: gcl
        model_path: leaky/best_checkpoint.pytorch
    """
    if view.adopted is not None:
        for key in view.adopted.forgotten:
            value = view.adopted.model[key]
            message = f"is missing, and taken from the checkpoint ({as_yaml(value)}); pytorch-3dunet alone uses another"
            yield Found(f"model.{key}", message, write(f"model.{key}", value))


@family.rule("P3D612", "warning", modes=BOTH, needs="files")
def training_unclear(view: View) -> Iterator[Found]:
    """The config differs from what is known of the training of its checkpoint, but that is not certain: several
    training configs are in `logs/` next to the checkpoint, a transform is not one of pytorch-3dunet's own, or the
    checkpoint is only the start of a training on other data.

    Example:
        model:
          num_groups: 4
        model_path: retrained/best_checkpoint.pytorch

    Use instead:
        model:
          num_groups: 8
        model_path: retrained/best_checkpoint.pytorch
    """
    yield from (difference.found for difference in _differences(view) if not difference.is_error)


@family.rule("P3D613", "warning", modes=PREDICT)
def other_patch_size(view: View) -> Iterator[Found]:
    """The output of this checkpoint follows mean and spread of the raw patch, and the network normalises each patch:
    with patches of another size than in the training these are other numbers, and the predictions are worse. What the
    network is given is the patch with its halo on both sides.

    Example:
        model_path: following/best_checkpoint.pytorch
        loaders:
          test:
            slice_builder: {patch_shape: [8, 64, 64], stride_shape: [8, 64, 64]}

    Use instead:
        model_path: following/best_checkpoint.pytorch
        loaders:
          test:
            slice_builder: {patch_shape: [4, 64, 64], stride_shape: [4, 64, 64]}
    """
    memory, trained = view.checkpoint_memory, view.trained
    if memory is None or memory.scaling is None or not memory.scaling.follows_raw or trained is None:
        return
    place = "loaders.test.slice_builder"
    patch, halo = view.get(f"{place}.patch_shape"), view.get(f"{place}.halo_shape") or [0, 0, 0]
    wanted = trained.contract.patch_shape
    if not (is_shape(patch) and is_shape(halo, least=0) and isinstance(wanted, list) and is_shape(wanted)):
        return
    given = [n + 2 * h for n, h in zip(patch, halo, strict=True)]
    if given == wanted:
        return
    message = f"is {patch}"
    message += f", with a halo of {halo} that makes {given}" if any(halo) else ""
    message += f", but the network was trained on {wanted}: its output follows mean and spread of the raw patch"
    inner = [max(1, n - 2 * h) for n, h in zip(wanted, halo, strict=True)]
    stride = view.get(f"{place}.stride_shape")
    fix = write(f"{place}.patch_shape", inner)
    if is_shape(stride) and any(s > n for s, n in zip(stride, inner, strict=True)):
        fix += write(f"{place}.stride_shape", [min(s, n) for s, n in zip(stride, inner, strict=True)])
    yield Found(f"{place}.patch_shape", message, fix)

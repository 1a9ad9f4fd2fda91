"""Rules about the ``model`` section: the last layer, and keys that pytorch-3dunet ignores."""

from collections.abc import Iterator

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules import loss
from p3d_regression.checks.rules.names import nearest, renamed, unknown
from p3d_regression.checks.view import MOST_CHANNELS, View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import NO_FIX, write
from p3d_regression.keys import PLUGIN_KEYS, check_keys, check_sections, misspelled
from p3d_regression.model.last_layer import contradiction
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection

family = Family()


@family.rule("P3D101", "error", modes=BOTH)
def softmax_on_one_channel(view: View) -> Iterator[Found]:
    """`final_sigmoid: false` does not mean "no final layer": pytorch-3dunet then applies a Softmax over the output
    channels. Over one channel that is exp(x) / exp(x), which is always 1.0. Training and validation loss are computed
    before that layer (since pytorch-3dunet 1.9) and look perfect, while the score never changes and every prediction is
    1.0.

    Example:
        model:
          out_channels: 1
          final_sigmoid: false

    Use instead:
        model:
          out_channels: 1
          final_activation: none
    """
    layer = view.last_layer
    if not layer.is_ours and KEY not in view.model and layer.name == "softmax" and view.out_channels == 1:
        yield Found(
            "model.final_sigmoid",
            "false is a Softmax over the output channels; there is only one, so every prediction is 1.0",
            view.fitting_activation or view.with_activation("none"),
        )


@family.rule("P3D102", "error", modes=BOTH)
def unknown_model_key(view: View) -> Iterator[Found]:
    """The model classes of pytorch-3dunet accept any keyword and ignore those that they do not know. A misspelled
    `f_maps` trains the default network of 16 million parameters; `pool_kernel_size`, an argument of the base class
    alone, changes nothing.

    Example:
        model:
          fmaps: [8, 16]

    Use instead:
        model:
          f_maps: [8, 16]
    """
    cls = introspection.model_class(view.model.get("name"))
    if cls is None or not introspection.takes_anything(cls):
        return
    known = [*introspection.arguments(cls), "name", *PLUGIN_KEYS]
    for key in view.model:
        if key in known or misspelled(key):  # another rule finds a misspelled one
            continue
        meant = nearest(key, known)
        hint = f"did you mean {meant}?" if meant else f"it takes {', '.join(known)}"
        fix = renamed("model", view.model, key, meant)
        yield Found(f"model.{key}", f"{cls.__name__} ignores this key; {hint}", fix)


@family.rule("P3D103", "error", modes=BOTH, raised_by_builder=True)
def final_activation_not_understood(view: View) -> Iterator[Found]:
    """`final_activation` has an unknown value or impossible arguments, is `softmax` on one channel, is misspelled, or
    is outside the section `model`. Training stops with the same message.

    Example:
        model:
          final_activation: {softplus: {beta: 2}}

    Use instead:
        model:
          final_activation: {name: softplus, beta: 2}
    """
    if view.final_error is not None:
        yield view.final_error.found
    try:
        if "model" in view.config:  # else another rule says so, once
            check_sections(view.config)
        check_keys(view.model)
    except ConfigError as error:
        yield error.found


@family.rule("P3D104", "warning", modes=BOTH, raised_by_builder=True)
def contradicting_last_layer(view: View) -> Iterator[Found]:
    """With `final_activation`, the keys `is_segmentation` and `final_sigmoid` have no effect. Without p3d-regression,
    pytorch-3dunet ignores `final_activation` instead, and the same config builds a different model.

    Example:
        model:
          final_activation: none
          is_segmentation: true

    Use instead:
        model:
          final_activation: none
          is_segmentation: false
    """
    if view.final is not None and (found := contradiction(view.model, view.final)):
        yield found


@family.rule("P3D105", "error", modes=BOTH)
def last_layer_key_not_boolean(view: View) -> Iterator[Found]:
    """pytorch-3dunet tests `if is_segmentation:`. Any text is true, even `"false"`, and an empty value is false.

    Example:
        model:
          is_segmentation: "false"

    Use instead:
        model:
          is_segmentation: false
    """
    if KEY in view.model:
        return
    for name in ("is_segmentation", "final_sigmoid"):
        value = view.model.get(name, True)
        if not isinstance(value, bool):
            taken = bool(value)
            wanted = value.strip().lower() not in _FALSE if isinstance(value, str) else taken
            said = f"{as_yaml(value)} is not a boolean, and pytorch-3dunet treats it as {str(taken).lower()}"
            yield Found(f"model.{name}", said, write(f"model.{name}", wanted))


_FALSE = ("false", "no", "off", "0", "none")


@family.rule("P3D106", "error")
def regression_behind_segmentation_layer(view: View) -> Iterator[Found]:
    """By default the models of pytorch-3dunet end in a Sigmoid. Since pytorch-3dunet 1.9 a regression loss is computed
    before it, so the loss falls as expected, while score and predictions are computed after it and lie in 0..1. That is
    wrong for labels inside 0..1 too: the prediction is the sigmoid of the fitted value.

    Example:
        model:
          name: UNet3D
        loss:
          name: MSELoss

    Use instead:
        model:
          final_activation: none
        loss:
          name: MSELoss
    """
    if not view.model or not view.is_regression or KEY in view.model or not view.last_layer.is_segmentation:
        return
    which = view.loss if view.has_regression_loss else view.metric
    key = "is_segmentation" if "is_segmentation" in view.model else "final_sigmoid"
    reason = f"{key}: {as_yaml(view.model[key])}" if key in view.model else "the default of pytorch-3dunet"
    yield Found(
        f"model.{KEY}",
        f"{which} compares continuous values, but the output goes through a {view.last_layer.name} ({reason})",
        view.fitting_activation or view.with_activation("none"),
    )


@family.rule("P3D107", "error")
def activated_output_in_logits_loss(view: View) -> Iterator[Found]:
    """With `final_activation` the loss is computed from the activated output. A loss that applies a sigmoid or softmax
    itself then applies it a second time. A second sigmoid maps 0..1 to 0.5..0.73, so the loss cannot become small.

    Example:
        model:
          final_activation: sigmoid
        loss:
          name: BCEWithLogitsLoss

    Use instead:
        model:
          final_activation: sigmoid
        loss:
          name: BCELoss
    """
    final, described = view.final, view.plan.described
    for leaf, applied, own in described.own_functions(view.out_channels or 1) if described and final else []:
        if final is None or applied == "exp" or all(str(final.entry(channel)) == "none" for channel in own):
            continue
        instead = leaf.component.instead
        options = {key: value for key, value in instead.items() if key in leaf.component.parameters}
        fix = sum((write(f"{leaf.place}.{key}", value) for key, value in options.items()), NO_FIX)
        is_meant = view.has_regression_metric or all(str(final.entry(channel)) == applied for channel in own)
        if not options and instead and is_meant:
            fix = loss.without_own_function(view, leaf, applied, own)
        said = f"{leaf.component.name} applies a {applied} to the output of {final}"
        yield Found(f"model.{KEY}", said, fix or view.with_activation("none"))


@family.rule("P3D108", "error", modes=BOTH)
def unknown_model(view: View) -> Iterator[Found]:
    """pytorch-3dunet does not know the model name, or the model has no channels. For an unknown name the error of
    pytorch-3dunet is "Unsupported dataset class". `ResidualUNet2D` can be built, but the trainer passes volumes to it
    and crashes.

    Example:
        model:
          name: UNet3d

    Use instead:
        model:
          name: UNet3D
    """
    name = view.model.get("name")
    if not view.model:
        return
    if introspection.model_class(name) is None:
        found = unknown(name, introspection.model_names(), "model.name", "a model of pytorch-3dunet", "UNet3D")
        yield Found("model.name", *found)
    elif name == "ResidualUNet2D" and view.mode == "train":
        is_flat = (view.get("loaders.train.slice_builder.patch_shape") or [0])[0] == 1
        said = "the trainer of pytorch-3dunet feeds ResidualUNet2D volumes and crashes"
        yield Found("model.name", said, write("model.name", "UNet2D" if is_flat else "ResidualUNet3D"))
    for key in ("in_channels", "out_channels"):
        value = view.model.get(key)
        too_many = key == "out_channels" and view.out_channels is None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or too_many:
            said = "is missing" if key not in view.model else f"is {as_yaml(value)}"
            fix = write(f"model.{key}", 1, f"channels of the {'raw volumes' if key == 'in_channels' else 'output'}")
            yield Found(f"model.{key}", f"{said}; it must be a whole number from 1 to {MOST_CHANNELS}", fix)

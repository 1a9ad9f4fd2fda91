"""Rules about the ``model`` section: the last layer, and keys that upstream swallows."""

import textwrap
from collections.abc import Iterator
from difflib import get_close_matches

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import NO_FIX, write
from p3d_regression.keys import PLUGIN_KEYS, check_keys, check_sections
from p3d_regression.model.last_layer import contradiction
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection

family = Family()


@family.rule("P3D101", "error", modes=BOTH)
def softmax_on_one_channel(view: View) -> Iterator[Found]:
    """`final_sigmoid: false` does not mean "no final layer": upstream then puts a Softmax over the channels there. Over
    one channel that is exp(x) / exp(x), which is 1.0 in every voxel, whatever the network has learnt. Training and
    validation loss are computed before that layer (since pytorch-3dunet 1.9) and look perfect, while the score stands
    still at one value and every prediction is 1.0.

    Example:
        model:
          out_channels: 1
          final_sigmoid: false

    Use instead:
        model:
          out_channels: 1
          final_activation: none
    """
    if not view.head.is_ours and KEY not in view.model and view.head.name == "softmax" and view.out_channels == 1:
        yield Found(
            "model.final_sigmoid",
            "false means a Softmax over the output channels; there is one, so that every prediction is 1.0",
            _model_line(f"{KEY}: none  # in place of final_sigmoid: false"),
        )


@family.rule("P3D102", "error", modes=BOTH)
def unknown_model_key(view: View) -> Iterator[Found]:
    """Upstream's model classes accept any keyword and ignore those that they do not know. A misspelled `f_maps` trains
    the default network of 16 million parameters; `pool_kernel_size`, which only the base class has, changes nothing.

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
        if key in known or (isinstance(key, str) and _is_misspelled_key(key)):
            continue
        nearest = get_close_matches(str(key), known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"it knows {', '.join(known)}"
        line = f"{nearest[0]}: {as_yaml(view.model[key])}" if nearest else ""
        yield Found(
            f"model.{key}", f"{cls.__name__} ignores this key; {hint}", _model_line(line) if line else "delete the line"
        )


def _is_misspelled_key(key: str) -> bool:
    """Whether the builder refuses it, so that another rule says so."""
    try:
        check_keys({key: None})
    except ConfigError:
        return True
    return False


@family.rule("P3D103", "error", modes=BOTH, raised_by_builder=True)
def final_activation_not_understood(view: View) -> Iterator[Found]:
    """A value of `final_activation` that means nothing, arguments that make no sense, `softmax` on one channel, a
    misspelled key, or the key outside the `model` section. Training stops with the same message.

    Example:
        model:
          final_activation: {softplus: {beta: 2}}

    Use instead:
        model:
          final_activation: {name: softplus, beta: 2}
    """
    if view.final_error is not None:
        yield found_by(view.final_error)
    try:
        check_sections(view.config)
        check_keys(view.model)
    except ConfigError as error:
        yield found_by(error)


def found_by(error: ConfigError) -> Found:
    """An error message in its parts: ``key: sentences. Example:`` and lines of YAML."""
    text, _, lines = str(error).partition("\n")
    key, _, message = text.partition(": ")
    return Found(key, message.removesuffix(" Example:").removesuffix(" Write:"), textwrap.dedent(lines))


@family.rule("P3D104", "warning", modes=BOTH, raised_by_builder=True)
def contradicting_last_layer(view: View) -> Iterator[Found]:
    """`final_activation` decides; `is_segmentation` and `final_sigmoid` beside it are ignored. Where p3d-regression is
    not installed it is the other way round, and the same config gives another model.

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
    """Upstream asks `if is_segmentation:`. A text is true, also `"false"`, and an empty value is false, without a
    word.

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
            wanted = (
                value.strip().lower() not in ("false", "no", "off", "0", "none")
                if isinstance(value, str)
                else bool(value)
            )
            yield Found(
                f"model.{name}",
                f"{as_yaml(value)} is not a boolean, and upstream takes it for {str(bool(value)).lower()}",
                _model_line(f"{name}: {str(wanted).lower()}"),
            )


@family.rule("P3D106", "error")
def regression_behind_segmentation_layer(view: View) -> Iterator[Found]:
    """Unless told otherwise, upstream's models end in a Sigmoid. Since pytorch-3dunet 1.9 a regression loss is computed
    before it, so that the loss falls as it should, while score and predictions come after it and lie in 0..1. That
    is wrong for labels inside 0..1 too: what is predicted is the sigmoid of what was fitted.

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
    if not view.is_regression or KEY in view.model or not view.head.is_segmentation:
        return
    which = view.loss if view.has_regression_loss else view.metric
    key = "is_segmentation" if "is_segmentation" in view.model else "final_sigmoid"
    said = f"{key}: {as_yaml(view.model[key])} means" if key in view.model else "without a line about it upstream takes"
    yield Found(
        f"model.{KEY}",
        f"{which} compares continuous values, but the output goes through a {view.head.name} ({said} that)",
        view.fitting_activation or _model_line(f"{KEY}: none"),
    )


@family.rule("P3D107", "error")
def activated_output_in_logits_loss(view: View) -> Iterator[Found]:
    """With `final_activation` the loss sees the activated output. A loss that applies a sigmoid or softmax of its own
    then applies a second one: after a sigmoid it cannot become small, since the second one maps 0..1 to 0.5..0.73.

    Example:
        model:
          final_activation: sigmoid
        loss:
          name: BCEWithLogitsLoss

    Use instead:
        model:
          final_activation: none
        loss:
          name: BCEWithLogitsLoss
    """
    final, described = view.final, view.plan.described
    for leaf, loss, applied, own in described.own_functions(view.out_channels or 1) if described and final else []:
        if final is None or applied == "exp" or all(str(final.entry(channel)) == "none" for channel in own):
            continue
        # an option of the loss, where it has one; else the activation has to go
        options = {key: value for key, value in loss.instead.items() if key in loss.parameters}
        fix = sum((write(f"{leaf.spec.place}.{key}", value) for key, value in options.items()), NO_FIX)
        said = f"{leaf.spec.name} applies a {applied} to what {final} has made of the output"
        yield Found(f"model.{KEY}", said, fix or write(f"model.{KEY}", "none"))


@family.rule("P3D108", "error", modes=BOTH)
def unknown_model(view: View) -> Iterator[Found]:
    """A model name that upstream does not know, or a model without channels. Upstream's own message for the first is
    "Unsupported dataset class". `ResidualUNet2D` can be built, but the trainer feeds it volumes, and it crashes.

    Example:
        model:
          name: UNet3d

    Use instead:
        model:
          name: UNet3D
    """
    name = view.model.get("name")
    if introspection.model_class(name) is None:
        yield Found("model.name", *unknown(name, introspection.model_names(), "model.name", "a model of upstream"))
    elif name == "ResidualUNet2D" and view.mode == "train":
        yield Found(
            "model.name", "upstream's trainer feeds ResidualUNet2D volumes and crashes", _model_line("name: UNet2D")
        )
    for key in ("in_channels", "out_channels"):
        value = view.model.get(key)
        too_many = key == "out_channels" and view.out_channels is None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or too_many:
            said = "is missing" if key not in view.model else f"is {as_yaml(value)}"
            message = f"{said}; it must be a whole number, at least 1, and not a huge one"
            yield Found(f"model.{key}", message, _model_line(f"{key}: 1"))


def unknown(name: object, names: list[str], key: str, kind: str) -> tuple[str, str]:
    """Message and fix for a name that upstream does not know."""
    nearest = get_close_matches(str(name), names, n=1) or get_close_matches(
        str(name).lower(), [n.lower() for n in names], n=1
    )
    by_lower = {n.lower(): n for n in names}
    suggestion = by_lower[nearest[0].lower()] if nearest else None
    said = "is missing" if name is None else f"{as_yaml(name)} is not {kind}"
    fix = nested(key, suggestion) if suggestion else f"one of {', '.join(names)}"
    return f"{said}; " + (f"did you mean {suggestion}?" if suggestion else f"there are {', '.join(names)}"), fix


def nested(key: str, value: str) -> str:
    """Lines of YAML for a dotted key."""
    *sections, last = key.split(".")
    lines = [*(f"{section}:" for section in sections), f"{last}: {value}".rstrip()]
    return "\n".join(f"{'  ' * depth}{line}" for depth, line in enumerate(lines))


def _model_line(line: str) -> str:
    return f"model:\n  {line}"

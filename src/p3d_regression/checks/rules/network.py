"""Rules about the network: whether it can be built, and whether a patch goes through it. Nothing is computed."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, write
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.model.contract import network_of
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection
from p3d_regression.upstream.introspection import UnknownUpstreamError
from p3d_regression.upstream.networks import MOST_LEVELS, on_meta_device, output_shape

family = Family()


@family.rule("P3D111", "error", modes=BOTH)
def network_not_built(view: View) -> Iterator[Found]:
    """pytorch-3dunet cannot build the network of the section `model`, and stops with an assertion of one of its
    layers: `num_groups` must divide each number of channels in `f_maps` that is not smaller, `f_maps` needs two levels
    or more, and `layer_order` needs a convolution that no activation comes before.

    Example:
        model:
          f_maps: [12, 24]
          num_groups: 8

    Use instead:
        model:
          f_maps: [12, 24]
          num_groups: 6
    """
    section = _section(view)
    error = None if section is None else _error_of(section)
    if section is None or error is None:
        return
    for key, value in _repairs(section, str(error)):
        if _error_of({**section, key: value}) is None:
            said = f"is {as_yaml(section[key])}" if key in section else "is missing"
            yield Found(f"model.{key}", f"{said}: {_reason(key, section, error)}", write(f"model.{key}", value))
            return
    message = f"pytorch-3dunet cannot build this network: {_in_one_line(error)}"
    yield Found("model", message, advise("correct the section model; see the documentation of pytorch-3dunet"))


def _section(view: View) -> dict[str, Any] | None:
    """The model section that pytorch-3dunet gets; None where another rule reports what is wrong with it."""
    section = {key: value for key, value in view.model.items() if isinstance(key, str) and key not in PLUGIN_KEYS}
    channels = [section.get(key) for key in ("in_channels", "out_channels")]
    if introspection.model_class(section.get("name")) is None or view.out_channels is None:
        return None
    return section if all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in channels) else None


def _error_of(section: Mapping[str, Any]) -> Exception | None:
    try:
        on_meta_device(section)
    except UnknownUpstreamError:
        raise  # nothing is known of its networks
    except Exception as error:
        return error
    return None


def _repairs(section: Mapping[str, Any], error: str) -> Iterator[tuple[str, Any]]:
    """Changes of one key that may make a network of a section, the likeliest first."""
    cls = introspection.model_class(section["name"])
    assert cls is not None
    f_maps, groups = section.get("f_maps"), section.get("num_groups", introspection.default(cls, "num_groups"))
    if isinstance(groups, int):
        yield from (("num_groups", n) for n in range(min(groups - 1, 64), 0, -1))
    if isinstance(f_maps, list) and len(f_maps) == 1:
        yield "f_maps", [*f_maps, *(2 * n for n in f_maps if isinstance(n, int))]
    if isinstance(f_maps, list | str | float):
        numbers = _numbers(f_maps)
        if numbers:
            yield "f_maps", numbers
    # a key that is no argument of the class is ignored, and another rule says so
    named = [key for key in introspection.arguments(cls) if section.get(key) is not None or key in section]
    named.sort(key=lambda key: key.partition("_")[0] not in error)
    yield from ((key, introspection.default(cls, key)) for key in named if key not in ("in_channels", "out_channels"))


def _numbers(value: list[Any] | str | float) -> list[int] | int | None:
    """Whole numbers in what was given for some, such as ``"8, 16"`` or ``["8", "16"]``."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and value > 0 else None
    parts = value if isinstance(value, list) else value.strip("[]() ").split(",")
    try:
        numbers = [int(float(part)) for part in parts]
    except (TypeError, ValueError, OverflowError):
        return None
    if not all(n > 0 for n in numbers):
        return None
    return numbers[0] if isinstance(value, str) and len(numbers) == 1 else numbers


def _reason(key: str, section: Mapping[str, Any], error: Exception) -> str:
    if key == "num_groups":
        return f"GroupNorm needs a number that divides the channels of each level ({as_yaml(section.get('f_maps'))})"
    levels = section.get("num_levels")
    if key == "num_levels" and isinstance(levels, int) and levels > MOST_LEVELS:
        return f"each level has twice the channels of the one before, and none can have more than {MOST_LEVELS}"
    if "at least 2 levels" in str(error):
        return "a U-Net needs two levels or more"
    return f"pytorch-3dunet cannot build this network ({_in_one_line(error)})"


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@family.rule("P3D112", "error", modes=BOTH)
def patch_does_not_fit_network(view: View) -> Iterator[Found]:
    """A patch cannot go through the network: each level of the encoder halves it, so that a network of four levels
    needs patches of 8 voxels or more along each axis; a 2D network needs patches of one plane and no halo along Z. Or
    the output has another size than the patch, as with `conv_padding: 0`. Training stops at the first batch, prediction
    at the first patch.

    Example:
        model:
          f_maps: [8, 16, 32, 64]
        loaders:
          train:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [4, 64, 64]

    Use instead:
        model:
          f_maps: [8, 16, 32]
        loaders:
          train:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [4, 64, 64]
    """
    section = _section(view)
    if section is None or _error_of(section) is not None:
        return
    if section["name"] == "ResidualUNet2D" and view.mode == "train":
        return  # another rule says that the trainer cannot use it
    said: set[str] = set()
    for phase in view.phase_names:
        for found in _of_phase(view, section, phase):
            if found.message not in said:
                said.add(found.message)
                yield found


def _of_phase(view: View, section: Mapping[str, Any], phase: str) -> Iterator[Found]:
    place = f"loaders.{phase}.slice_builder"
    patch, halo = view.get(f"{place}.patch_shape"), view.get(f"{place}.halo_shape")
    if not is_shape(patch) or max(patch) > 2**20:
        return
    margin = halo if view.mode == "predict" and is_shape(halo, least=0) else [0, 0, 0]
    whole = [n + 2 * h for n, h in zip(patch, margin, strict=True)]
    error = _refusal(section, whole, view, phase)
    if error is None:
        return
    levels = len(network_of(section).get("f_maps", []))
    is_2d = "2D" in str(section["name"])
    if is_2d and patch[0] == 1 and margin[0] > 0:
        message = f"is {margin}, but a 2D network takes single planes: a halo along Z has to be 0"
        yield Found(f"{place}.halo_shape", message, write(f"{place}.halo_shape", [0, *margin[1:]]))
    elif is_2d and patch[0] != 1:
        yield Found(
            f"{place}.patch_shape", f"is {patch}, but {section['name']} takes single planes", _planes(view, phase)
        )
    elif levels and min(whole) < (least := 2 ** (levels - 1)):
        axis = "ZYX"[whole.index(min(whole))]
        message = (
            f"is {patch}: {min(whole)} voxel(s) along {axis} cannot be halved {levels - 1} times, as a network of "
            f"{levels} levels does; it takes {least} or more"
        )
        yield Found(f"{place}.patch_shape", message, _thick_enough(view, section, phase, patch, least))
    else:
        yield _of_other_cause(view, section, phase, patch, whole, error)


def _of_other_cause(
    view: View, section: Mapping[str, Any], phase: str, patch: list[int], whole: list[int], error: str
) -> Found:
    cls = introspection.model_class(section["name"])
    for key in introspection.arguments(cls) if cls else ():
        default = introspection.default(cls, key) if cls else None
        if key == "f_maps" or default is None or section.get(key, default) == default:
            continue
        if _refusal({**section, key: default}, whole, view, phase) is None:
            message = f"is {as_yaml(section[key])}: a patch of {patch} cannot go through this network ({error})"
            return Found(f"model.{key}", message, write(f"model.{key}", default))
    message = f"is {patch}: it cannot go through the network of the section model ({error})"
    return Found(
        f"loaders.{phase}.slice_builder.patch_shape", message, advise("correct the section model or the patch")
    )


def _refusal(section: Mapping[str, Any], patch: list[int], view: View, phase: str) -> str | None:
    """What is wrong with a patch that goes through the network; None if nothing is."""
    size = view.get("loaders.batch_size", 1)
    # one voxel has no spread, but two samples may have
    is_training = phase == "train" and not (isinstance(size, int) and size > 1)
    try:
        network = on_meta_device(section)
        output = output_shape(network, (section["in_channels"], *patch), training=is_training)
    except Exception as error:
        return _in_one_line(error)
    if list(output[1:]) == patch:
        return None
    return f"its output has the shape {tuple(output[1:])}, the labels have {tuple(patch)}"


def _most_levels(patch: list[int]) -> int:
    return int(math.log2(min(patch))) + 1


def fewer_levels(view: View) -> list[int] | None:
    """The default ``f_maps`` of pytorch-3dunet without the levels that the patches are too thin for."""
    patches = [view.get(f"loaders.{phase}.slice_builder.patch_shape") for phase in view.phase_names]
    levels = min((_most_levels(patch) for patch in patches if is_shape(patch)), default=MOST_LEVELS)
    f_maps: list[int] = network_of({"name": "UNet3D"}).get("f_maps", [])
    return f_maps[:levels] if 1 < levels < len(f_maps) else None


def _planes(view: View, phase: str) -> Fix:
    place = f"loaders.{phase}.slice_builder"
    fix = write(f"{place}.patch_shape", [1, *view.get(f"{place}.patch_shape")[1:]])
    stride = view.get(f"{place}.stride_shape")
    return fix + (write(f"{place}.stride_shape", [1, *stride[1:]]) if is_shape(stride) and stride[0] != 1 else NO_FIX)


def _thick_enough(view: View, section: Mapping[str, Any], phase: str, patch: list[int], least: int) -> Fix:
    """A larger patch if the volumes have the voxels, else fewer levels."""
    place = f"loaders.{phase}.slice_builder.patch_shape"
    wanted = [max(n, least) for n in patch]
    files = view.phases[phase].files if phase in view.phases else []
    sizes = [file.raw.spatial for file in files if file.raw and len(file.raw.spatial) == 3]
    if sizes and all(n <= size for shape in sizes for n, size in zip(wanted, shape, strict=True)):
        return write(place, wanted)
    f_maps = network_of(section).get("f_maps", [])
    levels = _most_levels(patch)
    if view.mode == "train" and levels > 1 and len(f_maps) > levels:
        return write("model.f_maps", f_maps[:levels])
    if sizes:
        return advise("use UNet2D with patches of one plane, or volumes with more planes")
    return write(place, wanted)

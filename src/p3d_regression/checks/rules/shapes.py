"""Rules about the shapes of volumes, patches and labels. No volume is read for these."""

from collections.abc import Iterator
from itertools import permutations

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.data import FileLayout, Phase, is_shape
from p3d_regression.checks.reading import compared_label_channels, is_sound
from p3d_regression.checks.rule import BOTH, PREDICT, Family
from p3d_regression.checks.rules.transforms import steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.upstream import datasets

family = Family()


@family.rule("P3D405", "error", modes=BOTH, needs="files")
def shapes_apart(view: View) -> Iterator[Found]:
    """A volume is neither (D, H, W) nor (C, D, H, W), or the labels and the raw volume differ in size.

    Example:
        loaders:
          label_internal_path: half_label

    Use instead:
        loaders:
          label_internal_path: label
    """
    yield from (mixed := list(_mixed_channels(view)))
    for phase in view.phases.values():
        for file in phase.files:
            yield from _shapes_of(view, phase, file, has_one_number=not mixed)


def _mixed_channels(view: View) -> Iterator[Found]:
    """Files whose raw volumes have different numbers of channels."""
    by_channels: dict[int, FileLayout] = {}
    for file in (file for phase in view.phases.values() for file in phase.files):
        if file.raw:
            by_channels.setdefault(file.raw.shape[0] if len(file.raw.shape) == 4 else 1, file)
    if len(by_channels) > 1:
        (one, first), (other, second) = list(by_channels.items())[:2]
        message = f"{first.path} has {one} channel(s), {second.path} has {other}: no network takes both"
        yield Found("loaders.raw_internal_path", message, advise("give all raw volumes the same channels"))


def _transposed(raw: tuple[int, ...], label: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of the axes of labels that makes them fit a raw volume; None if there is none."""
    orders = permutations(range(len(label)))
    return next((order for order in orders if tuple(label[axis] for axis in order) == raw), None)


def _shapes_of(view: View, phase: Phase, file: FileLayout, *, has_one_number: bool) -> Iterator[Found]:
    allowed = (2, 3, 4) if datasets.takes_2d_volumes() else (3, 4)
    stored = {"raw_internal_path": (phase.raw_path, file.raw)}
    if view.mode == "train":
        stored["label_internal_path"] = (phase.label_path, file.label)
    for key, (path, volume) in stored.items():
        if volume and len(volume.shape) not in allowed:
            message = f"{path} in {file.path} has the shape {volume.shape}; pytorch-3dunet reads (D, H, W) and "
            advice = advise(f"reshape {path} in {file.path} to (D, H, W) or (C, D, H, W)")
            yield Found(f"loaders.{key}", f"{message}(C, D, H, W)", advice)
    if view.mode == "train" and file.raw and file.label and file.raw.spatial != file.label.spatial:
        message = f"in {file.path} the raw volume has the shape {file.raw.shape}, the labels {file.label.shape}"
        advice = advise(f"resample {phase.label_path} in {file.path} to the voxels of {phase.raw_path}")
        if order := _transposed(file.raw.spatial, file.label.spatial):
            message += ": their axes are in another order"
            advice = advise(f"write numpy.transpose({phase.label_path}, {order}) in its place; the axes are Z, Y, X")
        yield Found("loaders.label_internal_path", message, advice)
    channels, wanted = file.raw.shape[0] if file.raw and len(file.raw.shape) == 4 else 1, view.model.get("in_channels")
    is_read = has_one_number and file.raw is not None and len(file.raw.shape) in allowed
    if file.raw and is_read and isinstance(wanted, int) and channels != wanted:
        message = f"is {wanted}, but the raw volume in {file.path} has the shape {file.raw.shape}"
        fix = write("model.in_channels", channels)
        if file.raw.shape[-1] <= min(4, channels - 1):
            message += ": its channels seem to be the last axis, not the first"
            fix = advise(f"write numpy.moveaxis({phase.raw_path}, -1, 0) in its place")
        elif channels >= 8 and file.label and len(file.label.shape) == 4 and file.label.shape[0] == channels:
            message += ": these seem to be several volumes in one dataset"
            fix = advise("write each volume to a file of its own")
        yield Found("model.in_channels", message, fix)


@family.rule("P3D406", "error", modes=BOTH, needs="files")
def patch_larger_than_volume(view: View) -> Iterator[Found]:
    """A patch must fit into every volume of its phase, and pytorch-3dunet requires at least 64 voxels in Y and X. It
    stops with an assertion at the first file that is too small.

    Example:
        loaders:
          train:
            slice_builder:
              patch_shape: [512, 64, 64]

    Use instead:
        loaders:
          train:
            slice_builder:
              patch_shape: [4, 64, 64]
    """
    for name, phase in view.phases.items():
        place = f"loaders.{name}.slice_builder"
        patch = view.get(f"{place}.patch_shape")
        if not phase.is_hdf5 or not view.section(place):
            continue
        wrong = [key for key in (f"{place}.patch_shape", f"{place}.stride_shape") if not is_shape(view.get(key))]
        for key in wrong:
            value = view.get(key)
            is_given = "is missing" if value is None else f"is {value!r}"
            message = f"{is_given}; it must be three whole numbers, at least 1, for Z, Y and X"
            yield Found(key, message, _fitting_slices(view, name))
        halo = view.get(f"{place}.halo_shape")
        if halo is not None and not is_shape(halo, least=0):
            message = f"is {halo!r}; it must be three whole numbers, at least 0, for Z, Y and X"
            numbers = [abs(n) for n in halo if isinstance(n, int)] if isinstance(halo, list) else []
            fix = write(f"{place}.halo_shape", (3 * numbers)[:3]) if numbers else delete(f"{place}.halo_shape")
            yield Found(f"{place}.halo_shape", message, fix)
        for message in [] if wrong else _against_patch(view, name, phase, patch):
            yield Found(f"{place}.patch_shape", f"is {patch}{message}", _fitting_slices(view, name))


def _against_patch(view: View, name: str, phase: Phase, patch: list[int]) -> Iterator[str]:
    if error := datasets.patch_shape_error(view.section(f"loaders.{name}.slice_builder")):
        yield f": {error}"
    for file in phase.files:
        if file.raw and file.is_smaller_than(patch):
            yield f", larger than the volume {file.raw.spatial} in {file.path}"


def _fitting_slices(view: View, name: str) -> Fix:
    """Patch and stride together: a stride larger than the patch leaves gaps."""
    place = f"loaders.{name}.slice_builder"
    keys = [f"{place}.patch_shape", f"{place}.stride_shape"]
    shapes = [_listed(view.get(key)) for key in keys]
    patch = fitting(view, name, next(filter(is_shape, shapes), [32, 64, 64]))
    if 0 in patch:
        return advise(f"remove the file without voxels from loaders.{name}.file_paths")
    stride = [min(s, p) for s, p in zip(shapes[1] if is_shape(shapes[1]) else patch, patch, strict=True)]
    pairs = zip(keys, (patch, stride), strict=True)
    fix = sum((write(key, shape) for key, shape in pairs if shape != view.get(key)), NO_FIX)
    if datasets.patch_shape_error({**view.section(place), "patch_shape": patch}):
        fix += write(f"{place}.skip_shape_check", True)
    return fix


def _listed(value: object) -> object:
    """The list in a text such as ``"8, 64, 64"``."""
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else []
    return [int(part) for part in parts] if parts and all(part.strip().isdigit() for part in parts) else value


def fitting(view: View, name: str, patch: list[int]) -> list[int]:
    """The shape next to that of a patch that pytorch-3dunet accepts and that fits into all volumes of a phase."""
    if view.model.get("name") == "UNet2D":
        patch = [1, *patch[1:]]
    if datasets.patch_shape_error({**view.section(f"loaders.{name}.slice_builder"), "patch_shape": patch}):
        patch = [patch[0], *(max(64, n) for n in patch[1:])]
    for file in view.phases[name].files if name in view.phases else ():
        if file.raw and len(file.raw.spatial) == 3:
            patch = [min(p, n) for p, n in zip(patch, file.raw.spatial, strict=True)]
    return patch


@family.rule("P3D407", "error", needs="files")
def label_channels(view: View) -> Iterator[Found]:
    """The output of the model has the shape (N, C, D, H, W). With `expand_dims: false`, labels that are stored as (D,
    H, W) reach the loss as (N, D, H, W). torch broadcasts them: the loss compares every sample of the batch with the
    labels of every other one, and the only sign is one warning of torch. MSE and PSNR stop the training at the first
    score; if no score of these labels is computed (`skip_train_validation`), the training continues, and the network
    learns a blur. Labels whose number of channels is not `out_channels` stop the training too.

    Example:
        loss:
          name: MSELoss
        loaders:
          batch_size: 2
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: false}

    Use instead:
        loss:
          name: MSELoss
        loaders:
          batch_size: 2
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true}
    """
    if not view.has_regression_loss or view.out_channels is None:
        return
    for name, phase in view.phases.items():
        if not is_sound(view, name, phase):
            continue
        expands = [bool(s.get("expand_dims")) for _, s in steps_of(view, name, "label") if s.get("name") == "ToTensor"]
        shapes = sorted({file.label.shape for file in phase.files if file.label and len(file.label.shape) in (3, 4)})
        if phase.statistics and phase.statistics.channels:
            yield from _channels_of(
                view, name, bool(phase.statistics.has_channel_axis), compared_label_channels(view, phase.statistics)
            )
        elif shapes and expands and _keeps_channels(view, name):
            shape = shapes[0]
            channels = shape[0] if len(shape) == 4 else 1
            for file in phase.files:
                if file.raw and file.label and len(file.raw.shape) == len(file.label.shape) == 4:
                    # pytorch-3dunet then takes as many of them as the raw volume has
                    channels = min(file.raw.shape[0], file.label.shape[0])
            skipped = bool(view.get("loss.skip_last_target", False))
            yield from _channels_of(view, name, len(shape) == 4 or expands[-1], channels - skipped)


def _keeps_channels(view: View, phase: str) -> bool:
    """Whether no transform makes channels of its own, so that the shape in the file tells."""
    names = {str(step.get("name")) for _, step in steps_of(view, phase, "label")}
    return not any(name.startswith(("Label", "RandomLabel", "StandardLabel", "Blobs", "Relabel")) for name in names)


def _channels_of(view: View, phase: str, has_axis: bool, channels: int) -> Iterator[Found]:
    key, wanted = f"loaders.{phase}.transformer.label", view.predicted_label_channels
    if not has_axis:
        size = view.get("loaders.batch_size", 1)
        message = (
            f"the labels have no channel axis: the loss broadcasts them over the {wanted} output channel(s) and the "
            f"batch of {size}"
        )
        steps = list(steps_of(view, phase, "label"))
        tensors = [(place, dict(step)) for place, step in steps if step.get("name") == "ToTensor"]
        place, step = tensors[-1] if tensors else (f"{key}[{len(steps)}]", {"name": "ToTensor"})
        yield Found(key, message, write(place, {**step, "expand_dims": True}))
    elif channels not in (0, wanted):
        message = f"is {view.out_channels}, but the labels of {phase} have {channels} channel(s)"
        if wanted != view.out_channels:
            message += f", and {view.loss} is for {wanted}"
        needed = 2 * channels if view.plan.loss and view.plan.loss.variance else channels
        fix, final = write("model.out_channels", needed), view.model.get(KEY)
        if isinstance(final, list):
            fix += write(f"model.{KEY}", (final + final[-1:] * needed)[:needed])
        yield Found("model.out_channels", message, fix)


@family.rule("P3D408", "error", modes=PREDICT, needs="files")
def gaps_in_prediction(view: View) -> Iterator[Found]:
    """With a stride larger than the patch, some voxels lie between the patches. pytorch-3dunet writes a constant there
    and ends with exit status 0. This is easily overlooked after the patch was made smaller, and a volume that is as
    thick as the patch shows no gap.

    Example:
        loaders:
          test:
            slice_builder:
              patch_shape: [1, 64, 64]
              stride_shape: [3, 64, 64]

    Use instead:
        loaders:
          test:
            slice_builder:
              patch_shape: [1, 64, 64]
              stride_shape: [1, 64, 64]
    """
    phase = view.phases.get("test")
    places = [f"loaders.test.slice_builder.{kind}_shape" for kind in ("patch", "stride")]
    patch, stride = (view.get(place) for place in places)
    if phase is None or not (is_shape(patch) and is_shape(stride)):
        return
    for file in phase.files:
        size = file.raw.spatial if file.raw else ()
        if len(size) == 3 and any(s > p and n > 2 * p for s, p, n in zip(stride, patch, size, strict=True)):
            message = f"is {stride}, larger than the patch {patch}: voxels of {file.path} between patches are not "
            steps = [min(s, p) for s, p in zip(stride, patch, strict=True)]
            yield Found(places[1], f"{message}predicted", write(places[1], steps))
            return


@family.rule("P3D409", "warning")
def gaps_in_training(view: View) -> Iterator[Found]:
    """With a stride larger than the patch, the voxels between the patches are never shown to the network, in any epoch.

    Example:
        loaders:
          train:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [4, 64, 96]

    Use instead:
        loaders:
          train:
            slice_builder:
              patch_shape: [4, 64, 64]
              stride_shape: [4, 64, 64]
    """
    place = "loaders.train.slice_builder"
    patch, stride = view.get(f"{place}.patch_shape"), view.get(f"{place}.stride_shape")
    if is_shape(patch) and is_shape(stride) and any(s > p for s, p in zip(stride, patch, strict=True)):
        steps = [min(s, p) for s, p in zip(stride, patch, strict=True)]
        message = f"is {stride}, larger than the patch {patch}: the voxels between patches are never used"
        yield Found(f"{place}.stride_shape", message, write(f"{place}.stride_shape", steps))

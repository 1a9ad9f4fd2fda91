"""Rules about the shapes of volumes, patches and labels. No volume is read for these."""

from collections.abc import Iterator

from p3d_regression.checks.data import FileLayout, Phase, is_shape
from p3d_regression.checks.reading import compared_label_channels, is_sound
from p3d_regression.checks.rule import BOTH, PREDICT, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.upstream import datasets

family = Family()


@family.rule("P3D405", "error", modes=BOTH, needs="files")
def shapes_apart(view: View) -> Iterator[Found]:
    """Volumes that are neither (D, H, W) nor (C, D, H, W), or labels of another size than the raw volume.

    Example:
        loaders:
          label_internal_path: half_label

    Use instead:
        loaders:
          label_internal_path: label
    """
    for phase in view.phases.values():
        for file in phase.files:
            yield from _shapes_of(view, phase, file)


def _shapes_of(view: View, phase: Phase, file: FileLayout) -> Iterator[Found]:
    allowed = (2, 3, 4) if datasets.takes_2d_volumes() else (3, 4)
    stored = {"raw_internal_path": (phase.raw_path, file.raw)}
    if view.mode == "train":
        stored["label_internal_path"] = (phase.label_path, file.label)
    for key, (path, volume) in stored.items():
        if volume and len(volume.shape) not in allowed:
            said = f"{path} in {file.path} has the shape {volume.shape}"
            yield Found(
                f"loaders.{key}", f"{said}; upstream reads (D, H, W) and (C, D, H, W)", "reshape the volume in the file"
            )
    if view.mode == "train" and file.raw and file.label and file.raw.spatial != file.label.spatial:
        said = f"in {file.path} the raw volume has the shape {file.raw.shape}, the labels {file.label.shape}"
        yield Found("loaders.label_internal_path", said, "resample one of them")
    channels, wanted = (
        (file.raw.shape[0] if file.raw and len(file.raw.shape) == 4 else 1),
        view.model.get("in_channels"),
    )
    if file.raw and isinstance(wanted, int) and channels != wanted and len(file.raw.shape) in allowed:
        said = f"is {wanted}, but the raw volume in {file.path} has the shape {file.raw.shape}"
        yield Found("model.in_channels", said, f"model:\n  in_channels: {channels}")


@family.rule("P3D406", "error", modes=BOTH, needs="files")
def patch_larger_than_volume(view: View) -> Iterator[Found]:
    """A patch must fit into every volume of its phase, and upstream wants at least 64 voxels in Y and X. It stops at
    the first file that is too small, with an assertion.

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
        key = f"loaders.{name}.slice_builder.patch_shape"
        patch = view.get(key)
        if not phase.is_hdf5 or patch is None:
            continue
        stride = f"loaders.{name}.slice_builder.stride_shape"
        wrong = [place for place in (key, stride) if not is_shape(view.get(place))]
        for place in wrong:
            yield Found(place, f"is {view.get(place)!r}; it must be three whole numbers, at least 1, for Z, Y and X")
        halo = f"loaders.{name}.slice_builder.halo_shape"
        if view.get(halo) is not None and not is_shape(view.get(halo), least=0):
            yield Found(halo, f"is {view.get(halo)!r}; it must be three whole numbers, at least 0, for Z, Y and X")
        if wrong:
            continue
        if view.model.get("name") == "UNet2D" and patch[0] != 1:
            yield Found(key, f"is {patch}, but UNet2D takes single planes", _patch(name, [1, *patch[1:]]))
        if error := datasets.patch_shape_error(view.section(f"loaders.{name}.slice_builder")):
            yield Found(key, f"is {patch}: {error}", _patch(name, [patch[0], max(64, patch[1]), max(64, patch[2])]))
        for file in phase.files:
            if file.raw and file.is_smaller_than(patch):
                size = file.raw.spatial
                fitting = [min(p, n) for p, n in zip(patch, size, strict=True)]
                fix = _patch(name, fitting)
                if any(s > p for s, p in zip(view.get(stride), fitting, strict=True)):
                    # a stride beyond the patch would leave gaps
                    steps = [min(s, p) for s, p in zip(view.get(stride), fitting, strict=True)]
                    fix += f"\n      stride_shape: {steps}"
                yield Found(key, f"is {patch}, larger than the volume {size} in {file.path}", fix)


def _patch(phase: str, shape: list[int]) -> str:
    return f"loaders:\n  {phase}:\n    slice_builder:\n      patch_shape: {shape}"


@family.rule("P3D407", "error", needs="files")
def label_channels(view: View) -> Iterator[Found]:
    """The output of the model has the shape (N, C, D, H, W). Labels of the shape (N, D, H, W), as `expand_dims:
    false` makes them of (D, H, W), are broadcast: the loss compares every sample of the batch with the labels of
    every other one, and all that torch says is one warning. MSE and PSNR stop the training at the first score; where
    none is taken of these labels (`skip_train_validation`), it goes on towards a blur. Labels with another number of
    channels than `out_channels` stop it too.

    Example:
        loss:
          name: MSELoss
        loaders:
          batch_size: 2
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: false

    Use instead:
        loss:
          name: MSELoss
        loaders:
          batch_size: 2
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: true
    """
    if not view.has_regression_loss or view.out_channels is None:
        return
    for name, phase in view.phases.items():
        if not is_sound(view, name, phase):
            continue
        expands = [
            bool(step.get("expand_dims")) for step in view.steps(name, "label") if step.get("name") == "ToTensor"
        ]
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
                    # upstream then takes as many of them as the raw volume has
                    channels = min(file.raw.shape[0], file.label.shape[0])
            skipped = bool(view.get("loss.skip_last_target", False))
            yield from _channels_of(view, name, len(shape) == 4 or expands[-1], channels - skipped)


def _keeps_channels(view: View, phase: str) -> bool:
    """Whether no transform makes channels of its own, so that the shape in the file tells."""
    names = {str(step.get("name")) for step in view.steps(phase, "label")}
    return not any(name.startswith(("Label", "RandomLabel", "StandardLabel", "Blobs", "Relabel")) for name in names)


def _channels_of(view: View, phase: str, has_axis: bool, channels: int) -> Iterator[Found]:
    key, wanted = f"loaders.{phase}.transformer.label", view.label_channels
    if not has_axis:
        size = view.get("loaders.batch_size", 1)
        yield Found(
            key,
            f"the labels have no channel axis: the loss broadcasts them over the {wanted} output channel(s) and the "
            f"batch of {size}",
            "- {name: ToTensor, expand_dims: true}",
        )
    elif channels not in (0, wanted):
        said = f"is {view.out_channels}, but the labels of {phase} have {channels} channel(s)"
        if wanted != view.out_channels:
            said += f", and {view.loss} is for {wanted}"
        needed = 2 * channels if view.plan.loss and view.plan.loss.variance else channels
        yield Found("model.out_channels", said, f"model:\n  out_channels: {needed}")


@family.rule("P3D408", "error", modes=PREDICT, needs="files")
def gaps_in_prediction(view: View) -> Iterator[Found]:
    """With a stride larger than the patch, voxels lie between the patches. Upstream writes a constant there, exit
    status 0. It is easily overlooked where the patch has been made smaller, and in a volume as thick as the patch
    there is no gap yet.

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
            steps = [min(s, p) for s, p in zip(stride, patch, strict=True)]
            said = (
                f"is {stride}, larger than the patch {patch}: voxels of {file.path} between patches are not predicted"
            )
            yield Found(places[1], said, f"loaders:\n  test:\n    slice_builder:\n      stride_shape: {steps}")
            return

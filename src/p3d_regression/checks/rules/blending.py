"""Rules about seams between predicted patches, and about the keys of this project for predictions."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import PREDICT, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import delete, write
from p3d_regression.model.precision import check_device
from p3d_regression.prediction import ensemble, files, orientations, settings
from p3d_regression.prediction.spec import AXES, BLEND, PRECISION, SECTION, SPREAD, TTA, Options, obstacle, options_of
from p3d_regression.upstream import introspection
from p3d_regression.upstream.introspection import device_name

family = Family()

#: Predictors that blend.
_PREDICTORS = ("StandardPredictor", "LazyPredictor")

_SLICES = "loaders.test.slice_builder"


@family.rule("P3D625", "error", modes=PREDICT)
def blend_not_understood(view: View) -> Iterator[Found]:
    """`blend`, `output`, `compression`, `resume`, `tta`, `ensemble` or `precision` in the section `predictor` has an
    unknown value, the predictor is one that does not blend, the device does not have the precision, or the halo is
    larger than the patch. The prediction stops with the same message.

    Example:
        predictor: {name: StandardPredictor, blend: gauss}

    Use instead:
        predictor: {name: StandardPredictor, blend: gaussian}
    """
    try:
        options = options_of(view.section(SECTION))
        if options is not None:
            check_device(options.precision, device_name(view.get("device")), PRECISION)
    except ConfigError as error:
        yield error.found
        return
    name = view.get("predictor.name", "StandardPredictor")
    if options is None:
        return
    if view.get("predictor.output_dataset") == SPREAD and (clash := obstacle(view.section(SECTION))):
        yield clash.found
    if name not in _PREDICTORS and introspection.predictor_class(name) is not None:
        message = f"{name} does not blend patches; {' and '.join(_PREDICTORS)} do"
        yield Found(BLEND, message, write("predictor.name", _PREDICTORS[0]))
    patch, halo = view.get(f"{_SLICES}.patch_shape"), view.get(f"{_SLICES}.halo_shape")
    if is_shape(patch) and is_shape(halo, least=0) and any(h > p for h, p in zip(halo, patch, strict=True)):
        message = f"is {halo}, larger than the patch {patch}: most of what is computed would be cut off"
        smaller = [min(h, p // 2) for h, p in zip(halo, patch, strict=True)]
        yield Found(f"{_SLICES}.halo_shape", message, write(f"{_SLICES}.halo_shape", smaller))
    channels = view.out_channels
    wrong = {axis: channel for axis, channel in _directions(options).items() if channels and channel >= channels}
    if wrong:
        message = f"names channel {max(wrong.values())}, but the model has {channels} output channel(s), counted from 0"
        yield Found(f"{TTA}.directions", message, delete(f"{TTA}.directions"))


def _directions(options: Options) -> Mapping[int, int]:
    return options.tta.directions if options.tta else {}


@family.rule("P3D626", "warning", modes=PREDICT, needs="files")
def seams(view: View) -> Iterator[Found]:
    """Where patches do not overlap, a prediction of continuous values has steps at their borders: the normalisation of
    the network and the padding differ from patch to patch. With small patches a step at a border was measured to be
    three times as large as elsewhere. `blend: gaussian` weights overlapping patches so that their borders hardly count;
    along an axis without overlap there is nothing to weight. It takes as many times longer as there are more patches.

    Example:
        model: {final_activation: none}
        loaders:
          test:
            slice_builder: {patch_shape: [2, 64, 64], stride_shape: [2, 64, 64]}

    Use instead:
        model: {final_activation: none}
        predictor: {blend: gaussian}
        loaders:
          test:
            slice_builder: {patch_shape: [2, 64, 64], stride_shape: [1, 32, 32]}
    """
    patch, stride = view.get(f"{_SLICES}.patch_shape"), view.get(f"{_SLICES}.stride_shape")
    phase, options = view.phases.get("test"), _options(view)
    if not (is_shape(patch) and is_shape(stride)) or phase is None or not view.is_regression:
        return
    # view.blends without options: what the section says is not understood, and another rule says so
    if options is None and (view.blends or introspection.averages_overlap()):
        return
    if any(s > p for s, p in zip(stride, patch, strict=True)):
        return
    sizes = [file.raw.spatial for file in phase.files if file.raw and len(file.raw.spatial) == 3]
    axes = [
        axis
        for index, (axis, p, s) in enumerate(zip(AXES, patch, stride, strict=True))
        if s == p > 1 and any(size[index] > p for size in sizes)
    ]
    name = view.get("predictor.name", "StandardPredictor")
    if axes and name in _PREDICTORS and not view.get("predictor.save_segmentation", False):
        blends = options is not None and options.averages
        along = " and ".join(map(str.upper, axes))
        message = (
            f"is {stride}, and the patches {patch} do not overlap along {along}: the prediction has steps at their"
            f" borders{', which blending cannot remove' if blends else ''}"
        )
        half = [p // 2 if axis in axes else s for axis, p, s in zip(AXES, patch, stride, strict=True)]
        fix = write(f"{_SLICES}.stride_shape", half)
        yield Found(f"{_SLICES}.stride_shape", message, fix if blends else fix + write(BLEND, "gaussian"))


@family.rule("P3D627", "error", modes=PREDICT, needs="files")
def members_differ(view: View) -> Iterator[Found]:
    """The members of an ensemble have to predict the same from the same: equal channels in the same meaning, equal
    transforms of raw volumes and labels, and `model_path` among them. `tta: rotations` needs axes of equal length and
    voxel size. The prediction stops with the same message.

    Example:
        model_path: trained_with_none.pytorch
        predictor: {name: StandardPredictor, ensemble: [no_such_file.pytorch]}

    Use instead:
        model_path: trained_with_none.pytorch
        predictor: {name: StandardPredictor, ensemble: [trained_with_none.pytorch]}
    """
    options = _options(view)
    if options is None:
        return
    try:
        if options.ensemble:
            ensemble.members_of(view.config, options.ensemble)
        patch, halo = view.get(f"{_SLICES}.patch_shape"), view.get(f"{_SLICES}.halo_shape", [0, 0, 0])
        if is_shape(patch) and is_shape(halo, least=0):
            for file in view.phases["test"].files if "test" in view.phases else ():
                shape = [p + 2 * h for p, h in zip(patch, halo, strict=True)]
                orientations.orientations_of(options.tta, shape, file.raw.spacing if file.raw else None)
    except ConfigError as error:
        yield error.found


@family.rule("P3D628", "error", modes=PREDICT, needs="files")
def resumes_another(view: View) -> Iterator[Found]:
    """With `resume: true` a prediction goes on that was interrupted, and files that are complete are left as they are.
    What is there was predicted with other settings, other checkpoints, another version of the input file or other
    versions of the packages: part of the volume would be another prediction.

    Example:
        loaders:
          output_dir: predicted_by_others
        predictor: {name: StandardPredictor, resume: true}

    Use instead:
        loaders:
          output_dir: predicted_by_others
        predictor: {name: StandardPredictor, blend: gaussian}
    """
    options, phase, path = _options(view), view.phases.get("test"), view.get("model_path")
    if options is None or not options.resume or phase is None or not isinstance(path, str):
        return
    checkpoints = [Path(member) for member in options.ensemble or [path]]
    if not all(member.is_file() for member in checkpoints):
        return  # another rule reports it
    dataset, directory = view.get("predictor.output_dataset", "predictions"), view.get("loaders.output_dir")
    for file in phase.files:
        source = Path(file.path)
        output = files.output_path(source, directory, options.output)
        try:
            if source.exists():
                files.check_resumable(settings.settings_of(view.config, source, checkpoints), output, dataset)
        except ConfigError as error:
            yield error.found
            return


def _options(view: View) -> Options | None:
    try:
        return options_of(view.section(SECTION))
    except ConfigError:
        return None  # a rule reports it

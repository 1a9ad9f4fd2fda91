"""Rules about seams between predicted patches, and about the key that removes them."""

from collections.abc import Iterator

from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import PREDICT, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import write
from p3d_regression.prediction.spec import PLACE, blend_of
from p3d_regression.upstream import introspection

family = Family()

#: Predictors that blend.
_PREDICTORS = ("StandardPredictor", "LazyPredictor")

_SLICES = "loaders.test.slice_builder"


@family.rule("P3D625", "error", modes=PREDICT)
def blend_not_understood(view: View) -> Iterator[Found]:
    """`predictor.blend` has an unknown value, the predictor is one that does not blend, or the halo is larger than the
    patch. The prediction stops with the same message.

    Example:
        predictor: {name: StandardPredictor, blend: gauss}

    Use instead:
        predictor: {name: StandardPredictor, blend: gaussian}
    """
    try:
        blend = blend_of(view.get(PLACE))
    except ConfigError as error:
        yield error.found
        return
    name = view.get("predictor.name", "StandardPredictor")
    if blend is not None and name not in _PREDICTORS and introspection.predictor_class(name) is not None:
        message = f"{name} does not blend patches; {' and '.join(_PREDICTORS)} do"
        yield Found(PLACE, message, write("predictor.name", _PREDICTORS[0]))
    patch, halo = view.get(f"{_SLICES}.patch_shape"), view.get(f"{_SLICES}.halo_shape")
    has_shapes = is_shape(patch) and is_shape(halo, least=0)
    if blend is not None and has_shapes and any(h > p for h, p in zip(halo, patch, strict=True)):
        message = f"is {halo}, larger than the patch {patch}: most of what is computed would be cut off"
        smaller = [min(h, p // 2) for h, p in zip(halo, patch, strict=True)]
        yield Found(f"{_SLICES}.halo_shape", message, write(f"{_SLICES}.halo_shape", smaller))


@family.rule("P3D626", "warning", modes=PREDICT, needs="files")
def seams(view: View) -> Iterator[Found]:
    """Where patches do not overlap, a prediction of continuous values has steps at their borders: the normalisation of
    the network and the padding differ from patch to patch. With small patches a step at a border was measured to be
    three times as large as elsewhere. `blend: gaussian` weights overlapping patches so that their borders hardly count.
    It takes as many times longer as there are more patches.

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
    phase = view.phases.get("test")
    if not (is_shape(patch) and is_shape(stride)) or phase is None or not view.is_regression or blends(view):
        return
    if introspection.averages_overlap() or any(s > p for s, p in zip(stride, patch, strict=True)):
        return
    sizes = [file.raw.spatial for file in phase.files if file.raw and len(file.raw.spatial) == 3]
    has_borders = any(n > p and s == p for size in sizes for n, p, s in zip(size, patch, stride, strict=True))
    name = view.get("predictor.name", "StandardPredictor")
    if has_borders and name in _PREDICTORS and not view.get("predictor.save_segmentation", False):
        message = f"is {stride}, and the patches {patch} do not overlap: the prediction has steps at their borders"
        half = [s if s < p else max(1, p // 2) for p, s in zip(patch, stride, strict=True)]
        fix = write(f"{_SLICES}.stride_shape", half) + write(PLACE, "gaussian")
        yield Found(f"{_SLICES}.stride_shape", message, fix)


def blends(view: View) -> bool:
    """Whether the prediction blends its patches."""
    try:
        return blend_of(view.get(PLACE)) is not None
    except ConfigError:
        return True  # it is meant to; a rule says what is wrong

"""What the datasets of a prediction say of themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p3d_regression.model.contract import Contract
from p3d_regression.prediction.ensemble import variances
from p3d_regression.prediction.settings import Settings, as_attributes
from p3d_regression.prediction.spec import Options
from p3d_regression.volumes.geometry import GEOMETRY
from p3d_regression.volumes.opening import opened


def of_prediction(
    predictor: Any, dataset: Any, options: Options, contract: Contract | None, settings: Settings
) -> dict[str, Any]:
    """The attributes of the dataset of the predictions.

    Args:
        predictor: of pytorch-3dunet.
        dataset: of the raw volume.
        options: of the prediction.
        contract: of the training, if it is known.
        settings: of the prediction.
    """
    with opened(dataset.file_path) as file:
        raw = file[dataset.raw_internal_path].attrs
        found = {name: raw[name] for name in GEOMETRY if name in raw}
    names = channel_names(contract, predictor.out_channels)
    chosen = predictor.prediction_channel
    found |= {
        "axes": "czyx",
        "channel_names": names if chosen is None else [names[chosen]],
        "blend": options.blend,
        "patch_shape": [part.stop - part.start for part in dataset.raw_slices[0][-3:]],
        "stride_shape": _strides(dataset),
        "halo_shape": list(dataset.halo_shape),
        "raw": str(Path(dataset.file_path).absolute()),
        "raw_internal_path": str(dataset.raw_internal_path),
    }
    if chosen is not None:
        found["prediction_channel"] = int(chosen)
    if contract is not None and contract.units:
        found["units"] = contract.units
    return found | as_attributes(settings)


def of_spread(common: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the spread, from those of the predictions."""
    return {**common, "description": "standard deviation among the members of the ensemble and the orientations"}


def channel_names(contract: Contract | None, channels: int) -> list[str]:
    """What each channel of an output is.

    >>> channel_names(Contract({}, targets=[[0, False], [0, True]]), 2), channel_names(None, 2)
    (['mean', 'variance'], ['0', '1'])
    """
    of_variances = variances(contract)
    means = [channel for channel in range(channels) if channel not in of_variances]
    if not of_variances:
        return [str(channel) for channel in range(channels)]
    ends = {channel: "" if len(means) == 1 else f" {index}" for index, channel in enumerate(means)}
    return [
        f"variance{ends.get(of_variances[channel], '')}" if channel in of_variances else f"mean{ends[channel]}"
        for channel in range(channels)
    ]


def _strides(dataset: Any) -> Sequence[int]:
    """Between the first two patches along each axis; the patch itself where there is one."""
    found = []
    for axis in (-3, -2, -1):
        starts = sorted({place[axis].start for place in dataset.raw_slices})
        first = dataset.raw_slices[0][axis]
        found.append(starts[1] - starts[0] if len(starts) > 1 else first.stop - first.start)
    return found

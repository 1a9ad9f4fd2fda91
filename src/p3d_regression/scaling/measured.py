"""Mean and standard deviation of the training labels, for the output channels that predict them."""

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, advise, write
from p3d_regression.labels.moments import Moments
from p3d_regression.scaling.spec import PLACE
from p3d_regression.scaling.terms import SMALLEST, Numbers, single

#: Relative to the largest label: what float32 cannot tell apart.
_ROUNDING = 1e-6


def numbers_of(labels: Sequence[Moments], targets: Sequence[tuple[int, bool]], source: str) -> list[Numbers]:
    """Return the numbers that scale each output channel to the labels that it predicts.

    Args:
        labels: moments of each channel of the labels.
        targets: for each output channel the channel of the labels that it predicts, and whether it predicts their
            variance.
        source: which labels, for error messages.

    Raises:
        ConfigError: a channel is constant, masked or not finite, or the number of channels is another.
    """
    wanted = 1 + max(channel for channel, _ in targets)
    if wanted != len(labels):
        message = f"the labels of {source} have {len(labels)} channel(s), the model predicts {wanted}."
        raise ConfigError(PLACE, message, advise("correct model.out_channels or the labels"))
    return [_number(labels, channel, source, is_variance=is_variance) for channel, is_variance in targets]


def check_variances(found: Sequence[Numbers], least: Mapping[int, tuple[str, float]]) -> None:
    """Refuse a loss that takes no variance as small as those of the labels.

    Args:
        found: what :func:`numbers_of` returns.
        least: for each output channel that predicts a variance the smallest one that the loss takes: its key, its
            value.

    Raises:
        ConfigError: the predicted variances would be wrong.
    """
    for channel, (key, value) in least.items():
        if found[channel].std < 1000 * value:
            raise ConfigError(
                key,
                f"{value:g} is the smallest variance that the loss takes, and the labels have the variance "
                f"{found[channel].std:.3g}: the predicted variances would be wrong.",
                write(key, single(found[channel].std * 1e-6)),
            )


def _number(labels: Sequence[Moments], channel: int, source: str, *, is_variance: bool) -> Numbers:
    found = labels[channel]
    place = f"the labels of {source}" + (f", channel {channel}," if len(labels) > 1 else "")
    if not found.count:
        _degenerate(f"no voxel of {place} counts, all are loss.ignore_index", "correct loss.ignore_index")
    if found.nan or found.inf:
        what = f"{place} hold {found.nan:.0f} NaN and {found.inf:.0f} infinite value(s)"
        if found.nan and not found.inf:
            _degenerate(what, write("loss.ignore_index", math.nan, note="if these voxels have no label"))
        _degenerate(what, "replace these values in the files")
    largest = max(abs(found.low), abs(found.high))
    look = "check the files and loaders.label_internal_path"
    if found.low == found.high:
        _degenerate(f"{place} are {found.low:.6g} in every voxel", look)
    if found.std <= _ROUNDING * largest:
        around = f"around {found.mean:.9g}, which float32 rounds off"
        _degenerate(f"{place} have the std {found.std:.3g} {around}", look)
    mean, std = single(found.mean), single(found.std)
    if not (math.isfinite(mean) and math.isfinite(std)) or std < SMALLEST:
        _degenerate(
            f"{place} have the std {found.std:.3g}, which float32 cannot represent", "write the labels in another unit"
        )
    return Numbers(0.0, single(std * std)) if is_variance else Numbers(mean, std)


def _degenerate(what: str, fix: Fix | str) -> NoReturn:
    fix = advise(f"{fix}, or delete {PLACE}") if isinstance(fix, str) else fix
    raise ConfigError(PLACE, f"standardize cannot be measured: {what}.", fix)

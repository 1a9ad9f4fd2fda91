"""Which part of a prediction this process computes: one of those of ``torchrun``, or one job of an array."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from p3d_regression import group
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise, write
from p3d_regression.model.contract import mapping
from p3d_regression.prediction.spec import OUTPUT, SECTION, format_of
from p3d_regression.upstream.introspection import device_name
from p3d_regression.upstream.log import console

#: Environment variable: which job of how many this is, such as 3/10.
SETTING = "P3D_REGRESSION_PART"


@dataclass(frozen=True)
class Share:
    """This process among those that share a prediction.

    Attributes:
        index: of it, from 0.
        count: of all.
        is_job: whether there are jobs that know nothing of each other: none may delete what another has done.
    """

    index: int
    count: int
    is_job: bool


def share() -> Share:
    """Of this process.

    Raises:
        ConfigError: the environment variable is not understood.
    """
    given = os.environ.get(SETTING, "").strip()
    if not given:
        return Share(group.rank(), group.size(), False)
    matched = re.fullmatch(r"(\d+)/(\d+)", given)
    part, parts = (int(number) for number in matched.groups()) if matched else (0, 0)
    if not 1 <= part <= parts:
        message = f"the environment variable {SETTING} is {given!r}, not the number of a job and of how many."
        example = advise(f"count jobs from 1: for the third of ten, {SETTING}=3/10")
        raise ConfigError("", message, example)
    return Share((part - 1) * group.size() + group.rank(), parts * group.size(), True)


def prepare(config: Mapping[str, Any], *, is_ours: bool) -> None:
    """Give each process that predicts a device of its own; called when the config is loaded.

    Args:
        config: of the prediction.
        is_ours: whether it uses this project.

    Raises:
        ConfigError: several processes would write one file.
    """
    own = share()
    if own.count == 1:
        return
    if format_of(mapping(config.get(SECTION))) != "zarr":
        message = (
            f"{own.count} processes predict with this config. Each of them would predict all volumes, and write to the "
            "same HDF5 files. With Zarr as output they share out the volumes."
        )
        if is_ours:
            raise ConfigError(OUTPUT, message, write(OUTPUT, "zarr"))
        console().warning(f"{message} Write:\n{write(OUTPUT, 'zarr')}")
        return
    if group.size() > 1:
        group.take_device(device_name(config.get("device")))
        _see_one_gpu()
        group.quieten()


def _see_one_gpu() -> None:
    """pytorch-3dunet would take all GPUs for DataParallel."""
    import torch

    torch.cuda.device_count = lambda: 1


def first_alone(function: Callable[[], None]) -> None:
    """Call a function in the first process of ``torchrun``, before the others go on."""
    group.join("cpu")
    group.once(function)
    group.leave()

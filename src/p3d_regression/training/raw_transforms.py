"""Raw transforms that remove the level of a patch or a volume, and fixed numbers in their place."""

from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import NO_FIX, Fix, write
from p3d_regression.labels.moments import Moments
from p3d_regression.labels.scan import moments_of
from p3d_regression.scaling.terms import single
from p3d_regression.upstream import datasets, transforms
from p3d_regression.upstream.stored import stored_volume


def check_raw_transforms(config: Mapping[str, Any]) -> None:
    """Refuse transforms that take from each raw patch or volume what the output is to follow.

    Raises:
        ConfigError: a raw transform scales by statistics; the fix has fixed numbers in their place.
    """
    steps = list(raw_steps_by_statistics(config))
    if not steps:
        return
    loaders = config["loaders"]
    moments = Moments()
    for path in datasets.files(loaders, "train") if datasets.is_hdf5(loaders) else ():
        moments.merge(moments_of(stored_volume(path, loaders.get("raw_internal_path", "raw")), lambda n: None))
    key, step = steps[0]
    of = "each volume" if loaders.get("global_normalization") and step["name"] == "Standardize" else "each patch"
    message = f"{step['name']} scales by the statistics of {of}: the level that the output is to follow is lost."
    raise ConfigError(key, message, fixed_numbers(config, moments))


def raw_steps_by_statistics(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Key and arguments of the raw transforms that scale each patch or volume by its own statistics."""
    for phase in ("train", "val"):
        section: Any = config.get("loaders")
        for key in (phase, "transformer", "raw"):
            section = section.get(key) if isinstance(section, Mapping) else None
        for index, step in enumerate(section if isinstance(section, list) else ()):
            if isinstance(step, Mapping) and transforms.by_statistics(step):
                yield f"loaders.{phase}.transformer.raw[{index}]", step


def fixed_numbers(config: Mapping[str, Any], raw: Moments) -> Fix:
    """Write numbers in place of the statistics of patches and volumes.

    Args:
        config: of the training.
        raw: of the raw volumes of the training.
    """
    is_known = raw.finite > 0 and raw.std > 0
    numbers = {"mean": single(raw.mean), "std": single(raw.std)} if is_known else {"mean": 0.0, "std": 1.0}
    note = "" if is_known else "with the mean and std of your raw volumes"
    fix = NO_FIX
    for place, step in raw_steps_by_statistics(config):
        is_tensor = step["name"] == "ToTensor"
        fix += write(place, {**step, "normalize": False} if is_tensor else {"name": "Standardize", **numbers}, note)
    return fix

"""What decides the values of a prediction: kept with it, so that it explains itself, and compared before it goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from p3d_regression._version import __version__
from p3d_regression.model.contract import mapping
from p3d_regression.text import as_json, as_yaml
from p3d_regression.upstream import introspection
from p3d_regression.volumes.zarr_store import metadata_file

#: Keys of a config that do not change the values.
_FREE = (
    "device",
    "model_path",
    "predictor.ensemble",
    "predictor.output",
    "predictor.resume",
    "loaders.num_workers",
    "loaders.output_dir",
    "loaders.test.file_paths",
    "loaders.test.slice_builder.lazy_loader",
)

#: More does not fit an attribute of HDF5.
_MOST_BYTES = 60_000

Settings = Mapping[str, Any]


def settings_of(config: Mapping[str, Any], raw: Path, checkpoints: Sequence[Path]) -> Settings:
    """All that decides the values of a prediction, as plain data.

    Args:
        config: of the prediction.
        raw: the input file.
        checkpoints: whose networks predict.

    Returns:
        The config without keys that change no value; the SHA-256 of each checkpoint; size and time of the input file;
        the versions of the packages.
    """
    import torch

    # of Zarr the metadata of the array: its directory changes with every file that is written next to it
    key = mapping(config.get("loaders")).get("raw_internal_path", "raw")
    held = (metadata_file(raw, str(key)) if raw.is_dir() else raw).stat()
    upstream = getattr(introspection.module_of("pytorch3dunet"), "__version__", "unknown")
    versions = {"p3d-regression": __version__, "pytorch3dunet": upstream, "torch": torch.__version__}
    return {
        "config": as_json(_without(config)),
        "checkpoints": {str(path): _sha256(path, path.stat().st_mtime_ns) for path in checkpoints},
        "raw_file": {"bytes": held.st_size, "modified": held.st_mtime_ns},
        "versions": {name: str(version) for name, version in versions.items()},
    }


def _without(config: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    kept = {str(key): value for key, value in config.items() if f"{start}{key}" not in _FREE}
    return {k: _without(v, f"{start}{k}.") if isinstance(v, Mapping) else v for k, v in kept.items()}


@lru_cache
def _sha256(path: Path, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_attributes(settings: Settings) -> dict[str, str]:
    """As the attributes of a dataset: JSON, or of a config that is too long its SHA-256."""
    texts = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
    return {
        name: text if len(text) < _MOST_BYTES else hashlib.sha256(text.encode()).hexdigest()
        for name, text in texts.items()
    }


def difference(settings: Settings, attributes: Mapping[str, Any]) -> str | None:
    """How a prediction was made in another way, in words; None if it was not.

    Args:
        settings: those that it is compared with.
        attributes: of the prediction, see :func:`as_attributes`.
    """
    for name, text in as_attributes(settings).items():
        held = attributes.get(name)
        if held is None:
            return "was not written by p3d-regression"
        if held != text and not (name == "checkpoints" and _hashes(held) == _hashes(text)):
            return f"was predicted with {_what(name, held, text)}"
    return None


def _hashes(text: str) -> list[str]:
    """Of checkpoints, which may have moved."""
    return sorted(json.loads(text).values())


def _what(name: str, held: Any, own: Any) -> str:
    if name == "checkpoints":
        return "other checkpoints"
    if name == "raw_file":
        return "another version of the input file"
    try:
        place, was, now = next(_differences(json.loads(held), json.loads(own), ""))
    except (ValueError, StopIteration):
        return f"another {name}"
    return f"{place.removeprefix('.')}: {as_yaml(was)}, not {as_yaml(now)}"


def _differences(held: Any, own: Any, place: str) -> Any:
    if isinstance(held, dict) and isinstance(own, dict):
        for key in sorted(held.keys() | own.keys()):
            yield from _differences(held.get(key), own.get(key), f"{place}.{key}")
    elif held != own:
        yield place, held, own

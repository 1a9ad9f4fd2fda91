"""The copies of training configs that pytorch-3dunet leaves in ``logs/`` beside its checkpoints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def training_config_beside(checkpoint: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The copy of a training config that upstream has left beside a checkpoint, the newest one."""
    return next(training_configs_beside(checkpoint), None)


def training_configs_beside(checkpoint: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The copies of training configs that upstream has left beside a checkpoint, the newest one first."""
    copies = [p for pattern in ("*.yml", "*.yaml") for p in (checkpoint.parent / "logs").glob(f"*/{pattern}")]
    for path in sorted(copies, key=lambda p: p.parent.name, reverse=True):
        try:
            config = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(config, Mapping) and isinstance(config.get("trainer"), Mapping):
            yield path, config

"""The checkpoint that a config names, as the rules see it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from p3d_regression.checks.rule import Mode
from p3d_regression.model import memory
from p3d_regression.model.contract import Trained, trained_with
from p3d_regression.upstream import checkpoints


class OfCheckpoint:
    """Properties of a :class:`~p3d_regression.checks.view.View`; each is None where there is no readable checkpoint."""

    config: Mapping[str, Any]
    mode: Mode
    opens_files: bool

    @property
    def checkpoint_key(self) -> str | None:
        """Where the config names it: also where the name is missing or wrong; None for a training from the start."""
        if self.mode == "predict":
            return "model_path"
        trainer = self.config.get("trainer")
        given = [key for key in ("resume", "pre_trained") if isinstance(trainer, Mapping) and trainer.get(key)]
        return f"trainer.{given[0]}" if given else None

    @cached_property
    def _checkpoint(self) -> Mapping[str, Any] | Exception | None:
        path = checkpoints.checkpoint_of(self.config, self.mode) if self.opens_files else None
        try:
            return None if path is None else checkpoints.checkpoint_weights(path)
        except Exception as error:
            return error

    @property
    def checkpoint_error(self) -> Exception | None:
        """Why the file cannot be read."""
        return self._checkpoint if isinstance(self._checkpoint, Exception) else None

    @property
    def checkpoint_weights(self) -> Mapping[str, Any] | None:
        """The ``state_dict`` of the model, whose values are left on disk."""
        return None if isinstance(self._checkpoint, Exception) else self._checkpoint

    @property
    def checkpoint_metadata(self) -> Mapping[str, Any] | None:
        """What the weights say of themselves."""
        weights = self.checkpoint_weights
        return None if weights is None else checkpoints.metadata_of(weights)

    @cached_property
    def checkpoint_memory(self) -> memory.Memory | None:
        """The last layer of the training, where the checkpoint has it."""
        head = (self.checkpoint_weights or {}).get("final_conv.weight")
        channels = 1 if head is None or not head.ndim else int(head.shape[0])
        try:
            return memory.from_metadata(self.checkpoint_metadata or {}, channels)
        except ValueError:
            return None  # a rule reports it

    @cached_property
    def trained(self) -> Trained | None:
        """The contract of the training."""
        path, metadata = checkpoints.checkpoint_of(self.config, self.mode), self.checkpoint_metadata
        try:
            return None if path is None or metadata is None else trained_with(path, metadata)
        except Exception:
            return None  # a rule reports it, or pytorch-3dunet is not as expected

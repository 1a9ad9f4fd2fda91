"""A config as the rules see it, whatever is wrong with it, and what follows from it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.checkpoint import OfCheckpoint
from p3d_regression.checks.rule import Mode
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, delete, write
from p3d_regression.interval import REAL_LINE, Interval
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.losses import registry as losses
from p3d_regression.model.contract import Adopted
from p3d_regression.model.last_layer import LastLayer, last_layer
from p3d_regression.prediction.spec import SECTION as PREDICTOR
from p3d_regression.prediction.spec import options_of
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.scaling.spec import Spec, check_company, spec_of
from p3d_regression.training.plan import Plan, plan_of
from p3d_regression.upstream import introspection

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation
    from p3d_regression.checks.data import Phase

#: Metrics of pytorch-3dunet that compare continuous values voxel by voxel.
REGRESSION_METRICS = ("MSE", "PSNR")

#: A model with more could not be built, and its list of ranges would fill the memory.
MOST_CHANNELS = 2**16


@dataclass
class View(OfCheckpoint):
    """One config.

    Attributes:
        config: as pytorch-3dunet has it after reading and overriding.
        mode: the command that it is for.
        phases: what the files of each phase hold, by name; empty if no files were read.
        interrupted: whether the reading of volumes was stopped by the user.
        opens_files: whether the checkpoint may be opened.
        duplicate_keys: keys that the file gives a second time, with the line.
        adopted: what the config has taken from its checkpoint; None if nothing.
    """

    config: Mapping[str, Any]
    mode: Mode
    phases: "dict[str, Phase]" = field(default_factory=dict)
    interrupted: bool = False
    opens_files: bool = True
    duplicate_keys: tuple[tuple[str, int], ...] = ()
    adopted: Adopted | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """The value at a dotted key; the default where a part of the key is missing or not a mapping."""
        value: Any = self.config
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value

    def section(self, key: str) -> Mapping[str, Any]:
        """The mapping at a dotted key; empty where there is none."""
        value = self.get(key)
        return value if isinstance(value, Mapping) else {}

    def gaps(self, phase: str, *, is_hdf5: bool) -> Iterator[tuple[str, str]]:
        """Keys of a phase that are missing or of another kind than pytorch-3dunet needs, and that kind."""
        kinds: dict[str, type] = {"": dict, ".file_paths": list, ".transformer": dict, ".transformer.raw": list}
        kinds |= {".transformer.label": list} if self.mode == "train" else {}
        kinds |= {".slice_builder": dict} if is_hdf5 else {}
        for key, kind in kinds.items():
            place = f"loaders.{phase}{key}"
            value = self.get(place)
            may_be_empty = key.startswith(".transformer.")
            if not self.section(place.rpartition(".")[0]):
                continue  # the section is missing, with all that should be in it
            if not isinstance(value, kind) or not (value or may_be_empty):
                yield place, "list" if kind is list else "mapping"
            elif may_be_empty:
                for index, step in enumerate(self.get(place)):
                    if not isinstance(step, Mapping):
                        yield f"{place}[{index}]", "mapping"

    def labels_are_in(self, interval: Interval) -> bool:
        """Whether no label that was read is outside; also where none was."""
        read = [phase.statistics for phase in self.phases.values() if phase.statistics]
        labels = [part for statistics in read for part in statistics.channels if part.finite]
        return all(interval.low <= part.low and part.high <= interval.high for part in labels)

    @property
    def phase_names(self) -> tuple[str, ...]:
        return ("train", "val") if self.mode == "train" else ("test",)

    @property
    def model(self) -> Mapping[str, Any]:
        return self.section("model")

    @property
    def out_channels(self) -> int | None:
        channels = self.model.get("out_channels")
        if not isinstance(channels, int) or isinstance(channels, bool):
            return None
        return channels if 0 < channels <= MOST_CHANNELS else None

    @cached_property
    def _resolved(self) -> "FinalActivation | ConfigError | None":
        if KEY not in self.model:
            return self.checkpoint_memory.final if self.checkpoint_memory else None
        from p3d_regression.activations.registry import resolve

        try:
            final = resolve(self.model[KEY], self.out_channels or 1)
            # impossible arguments show here
            assert final.ranges
        except ConfigError as error:
            return error
        return final

    @property
    def final(self) -> "FinalActivation | None":
        """What ``final_activation`` stands for, or a checkpoint brings in its place; None if it is absent or wrong."""
        return None if isinstance(self._resolved, ConfigError) else self._resolved

    @property
    def final_error(self) -> ConfigError | None:
        return self._resolved if isinstance(self._resolved, ConfigError) else None

    @cached_property
    def _scaling(self) -> "Spec | ConfigError | None":
        from p3d_regression.scaling.target import spec_for

        try:
            check_company(self.model)
            return spec_for(self.model, self.final) if self.final else spec_of(self.model, self.out_channels or 1)
        except ConfigError as error:
            return error

    @property
    def scaling(self) -> "Spec | None":
        """What ``target_scaling`` says, or a checkpoint brings in its place; None if it is absent or wrong."""
        if SCALING not in self.model and self.checkpoint_memory and self.checkpoint_memory.scaling:
            return Spec(self.checkpoint_memory.scaling.terms)
        return None if isinstance(self._scaling, ConfigError) else self._scaling

    @property
    def scaling_error(self) -> ConfigError | None:
        return self._scaling if isinstance(self._scaling, ConfigError) else None

    @property
    def uses_plugin(self) -> bool:
        """Whether the config uses a key, a loss or a metric of this project, or a checkpoint brings one."""
        return self._model_is_ours or self.blends or self.plan.is_ours or self.plan_error is not None

    @property
    def blends(self) -> bool:
        """Whether this project predicts, and blends patches."""
        try:
            return self.mode == "predict" and options_of(self.section(PREDICTOR)) is not None
        except ConfigError:
            return True  # it is meant to; a rule says what is wrong

    @property
    def _model_is_ours(self) -> bool:
        return bool(PLUGIN_KEYS & self.model.keys()) or self.final is not None

    @cached_property
    def _planned(self) -> Plan | ConfigError:
        if self.mode != "train":
            return Plan(self._model_is_ours)
        try:
            return plan_of(self.config, model_is_ours=self._model_is_ours)
        except ConfigError as error:
            return error

    @property
    def plan(self) -> Plan:
        """Which parts of the training are this project's; where a loss or a metric is wrong, none."""
        if isinstance(self._planned, ConfigError):
            return Plan(self._model_is_ours, loss_section=self.section("loss"))
        return self._planned

    @property
    def plan_error(self) -> ConfigError | None:
        """Why a loss or a metric is wrong."""
        return self._planned if isinstance(self._planned, ConfigError) else None

    @cached_property
    def last_layer(self) -> LastLayer:
        """The model's last layer. Where ``final_activation`` is wrong: as if it were not there."""
        return last_layer(self.model, self.out_channels or 1, self.final)

    @property
    def fitting_activation(self) -> Fix | None:
        """Write activations for the outputs that the loss is for; None if it is for any."""
        if self.plan.loss is None or self.out_channels is None:
            return None
        needed = {channel: interval for channel, interval, _ in self.plan.loss.needs(self.out_channels)}
        if set(needed.values()) <= {REAL_LINE}:
            return None
        return self.activation_within([interval for _, interval in sorted(needed.items())])

    def activation_within(self, intervals: Sequence[Interval]) -> Fix:
        """Write activations that keep each output channel in an interval."""
        values = [_activation_within(interval) for interval in intervals]
        if len(values) > 1 and set(intervals) == {Interval(high=0.0)}:
            return self.with_activation("log_softmax")
        return self.with_activation(values if any(value != values[0] for value in values) else values[0])

    def with_activation(self, value: object) -> Fix:
        """Write a final activation, and delete what pytorch-3dunet would read in its place."""
        return self.without_other_last_layers + write(f"model.{KEY}", value)

    @property
    def without_other_last_layers(self) -> Fix:
        """Delete the keys of pytorch-3dunet that ask for a Sigmoid or a Softmax."""
        names = ("is_segmentation", "final_sigmoid") if last_layer(self.model, 1).name != "none" else ()
        return delete(*(f"model.{name}" for name in names if name in self.model))

    @property
    def predicted_label_channels(self) -> int | None:
        """How many channels of labels the output predicts; None if that is not known."""
        return None if self.out_channels is None else len(self.plan.predicted(self.out_channels))

    def predicting(self, ranges: tuple[Interval, ...]) -> tuple[Interval, ...]:
        """Of the ranges of all output channels those of channels that predict labels."""
        return tuple(ranges[channel] for channel in self.plan.predicted(len(ranges)))

    def seen_by_loss(self, phase: str) -> tuple[Interval, ...]:
        """The values that the loss is given, per channel: not the output, if pytorch-3dunet applies the layer later."""
        return self._seen(self.last_layer.is_ours or introspection.loss_sees_output(phase))

    def seen_by_score(self, phase: str) -> tuple[Interval, ...]:
        """The values that the metric is given, per channel."""
        return self._seen(self.last_layer.is_ours or introspection.score_sees_output(phase))

    def _seen(self, is_output: bool) -> tuple[Interval, ...]:
        ranges = self.last_layer.ranges
        return ranges if is_output else (REAL_LINE,) * len(ranges)

    @property
    def loss(self) -> str | None:
        name = self.get("loss.name")
        return name if isinstance(name, str) else None

    @property
    def metric(self) -> str | None:
        name = self.get("eval_metric.name")
        return name if isinstance(name, str) else None

    @property
    def has_regression_loss(self) -> bool:
        # where the plan is an error, the name alone tells
        known = losses.known(self.loss)
        return self.plan.loss is not None or (known is not None and known.compares == "values")

    @property
    def has_regression_metric(self) -> bool:
        return self.plan.metric is not None or self.metric in REGRESSION_METRICS

    @property
    def is_regression(self) -> bool:
        """Whether the labels are continuous, as far as the config tells."""
        if self.mode == "train":
            return self.has_regression_loss or self.has_regression_metric
        return not self.last_layer.is_segmentation

    @property
    def higher_is_better(self) -> bool | None:
        """Of the metric; None if it is not known."""
        return self.plan.higher_is_better if self.plan.metric else introspection.higher_is_better(self.metric)


#: Final activations for outputs within these bounds.
_FITTING = {
    (0.0, 1.0): "sigmoid",
    (0.0, math.inf): "softplus",
    (-math.inf, 0.0): "logsigmoid",
    (-math.inf, math.inf): "none",
}


def _activation_within(interval: Interval) -> str | dict[str, object]:
    """A final activation for outputs in an interval, as a config has it."""
    low, high = interval.low, interval.high
    if (low, high) in _FITTING:
        return _FITTING[low, high]
    if math.isinf(low):
        return {"name": "upper_bounded", "high": high}
    return {"name": "lower_bounded", "low": low} if math.isinf(high) else {"name": "bounded", "low": low, "high": high}

"""What is this project's in a training: decided once, from its config, before anything is built."""

import copy
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.spec import KEY
from p3d_regression.components.registry import UPSTREAM
from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.losses import registry as losses
from p3d_regression.metrics import registry as metrics
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.precision import KEY as PRECISION
from p3d_regression.upstream import builders, checkpoints, introspection

if TYPE_CHECKING:
    from p3d_regression.components.configured import Configured
    from p3d_regression.components.registry import Registry
    from p3d_regression.losses.mask import Mask
    from p3d_regression.losses.resolved import Resolved
    from p3d_regression.metrics.metric import Metric

#: Metrics of pytorch-3dunet that this project computes if voxels are masked, or half of the output predicts no label.
REPLACED_METRICS = ("MSE", "PSNR")

_current: "ContextVar[Plan | None]" = ContextVar("current", default=None)


@dataclass(frozen=True)
class Plan:
    """Which parts of a training are this project's.

    Attributes:
        is_ours: whether the config uses the plugin at all.
        loss: None for pytorch-3dunet's.
        metric: None for pytorch-3dunet's.
        mask: which voxels count, for both; None for all, or where pytorch-3dunet's loss masks in its own way.
        loss_section: of the config.
        metric_name: as written.
        skips_last_target: whether the loss skips the last channel of the labels.
    """

    is_ours: bool
    loss: "Resolved | None" = None
    metric: "Configured[Metric] | None" = None
    mask: "Mask | None" = None
    loss_section: Mapping[str, Any] = field(default_factory=dict)
    metric_name: str = ""
    skips_last_target: bool = False

    @cached_property
    def described(self) -> "Resolved | None":
        """What is known of the loss, whoever builds it; None for a loss that was added to pytorch-3dunet."""
        from p3d_regression.losses.build import described

        return self.loss or described(self.loss_section)

    @property
    def compares_values(self) -> bool:
        """Whether the loss compares continuous values voxel by voxel."""
        known = losses.known(self.loss_section.get("name"))
        return known is not None and known.compares == "values"

    @property
    def is_regression(self) -> bool:
        """Whether output and labels are compared as continuous values."""
        return self.loss is not None or self.metric is not None or self.compares_values

    @property
    def higher_is_better(self) -> bool | None:
        """The direction of the metric; None if it is not known."""
        return (
            self.metric.component.higher_is_better if self.metric else introspection.higher_is_better(self.metric_name)
        )

    def describe(self) -> str:
        """Loss, metric and mask in words, for a line of the log."""
        better = {True: "higher is better", False: "lower is better", None: "direction from the config"}
        parts = [f"loss {self.loss or self.loss_section.get('name')}", f"metric {self.metric or self.metric_name}"]
        parts[1] += f" ({better[self.higher_is_better]})"
        if self.mask:
            parts.append(f"voxels labelled {self.mask} do not count")
        return ", ".join(parts)

    def predicted(self, channels: int) -> list[int]:
        """Which of so many output channels predict the channels of the labels."""
        return self.loss.predicted(channels) if self.loss else list(range(channels))

    def targets(self, channels: int) -> list[tuple[int, bool]]:
        """For each of so many output channels the channel of the labels that it is about.

        And whether it predicts the variance of that instead.
        """
        return self.loss.targets(channels) if self.loss else [(channel, False) for channel in range(channels)]

    def least_variances(self, channels: int) -> dict[int, tuple[str, float]]:
        """For each output channel that predicts a variance the smallest one that the loss takes: its key, its value."""
        return self.loss.least_variances(channels) if self.loss else {}

    def units_differ(self, channels: int) -> str | None:
        """Why outputs are not in the units of the labels; None if the loss compares them as they are."""
        if self.loss is not None:
            return self.loss.units_differ(channels)
        known = losses.known(self.loss_section.get("name"))
        return f"{known.name} compares {known.compares}" if known and known.compares != "values" else None


def plan_of(config: Mapping[str, Any], *, model_is_ours: bool) -> Plan:
    """Decide what is this project's in a training.

    Args:
        config: of the training.
        model_is_ours: whether its model has a final activation of this project.

    Raises:
        ConfigError: a loss or a metric is not understood.
    """
    loss, metric = (_section(config, name) for name in ("loss", "eval_metric"))
    model = _section(config, "model")
    own_loss, own_metric = _is_own_loss(loss), _is_own_metric(metric)
    own_keys = PRECISION in _section(config, "trainer") or builders.STEP_PER in _section(config, "lr_scheduler")
    is_ours = model_is_ours or own_loss or own_metric or own_keys
    # pytorch-3dunet empties the section
    loss_section, metric_name = copy.deepcopy(loss), str(metric.get("name"))
    if not is_ours:
        return Plan(False, loss_section=loss_section, metric_name=metric_name)
    from p3d_regression.losses import build
    from p3d_regression.losses.mask import mask_of
    from p3d_regression.metrics import score

    _check_name(config, "loss", builders.knows_loss, losses.registry, build.resolve)
    _check_name(config, "eval_metric", introspection.knows_metric, metrics.registry, score.resolve)
    masked = loss.get("ignore_index") is not None
    if masked and not own_loss:
        # pytorch-3dunet divides by all voxels, masked ones included; this project takes the mean of the others
        registration = losses.registry().get(str(loss.get("name")), "loss")
        own_loss = registration is not None and registration.component.per_voxel
    channels = model.get("out_channels")
    is_number = isinstance(channels, int) and not isinstance(channels, bool) and channels > 0
    resolved = build.resolve(loss, channels if is_number else None) if own_loss else None
    mask = mask_of(loss.get("ignore_index")) if own_loss or own_metric else None
    if (mask or (resolved and resolved.has_variance)) and metric.get("name") in REPLACED_METRICS:
        own_metric = True
    found = score.resolve(metric) if own_metric else None
    if found and mask and found.component.on == "patches":
        raise ConfigError(
            "eval_metric.name",
            f"{found} compares neighbourhoods, from which no voxels can be excluded; with loss.ignore_index the metric "
            "has to be one of single voxels.",
            metrics.registry().example("eval_metric", found.arguments),
        )
    if resolved:
        build.build(resolved, mask)
    if found:
        for phase in _scored_phases(config):
            score.try_on(found, _patch_shape(config, phase))
    skips = bool(loss.get("skip_last_target", False))
    return Plan(True, resolved, found, mask, loss_section, metric_name, skips)


def _scored_phases(config: Mapping[str, Any]) -> list[str]:
    """Where pytorch-3dunet computes the metric: also of a training batch, whenever it logs one."""
    return ["val"] if _section(config, "trainer").get("skip_train_validation", False) else ["val", "train"]


def _patch_shape(config: Mapping[str, Any], phase: str) -> tuple[int, ...]:
    """Of the patches of a phase, (D, H, W)."""
    part: Any = config
    for key in ("loaders", phase, "slice_builder", "patch_shape"):
        part = part.get(key) if isinstance(part, Mapping) else None
    is_shape = isinstance(part, list) and len(part) == 3 and all(isinstance(n, int) and n > 0 for n in part)
    return tuple(part) if is_shape else (16, 64, 64)


def current_or(config: Mapping[str, Any]) -> Plan:
    """The plan of the training that is being created; else that of a config which is used without a trainer."""
    return _current.get() or plan_of(config, model_is_ours=KEY in _section(config, "model"))


@contextmanager
def following(plan: Plan) -> Iterator[None]:
    """While this lasts, pytorch-3dunet's builders follow a plan, since it empties the sections on the way."""
    token = _current.set(plan)
    try:
        yield
    finally:
        _current.reset(token)


def model_is_ours(config: Mapping[str, Any]) -> bool:
    """Whether the model of a training is built with our key, or gets a checkpoint that remembers one."""
    if KEY in _section(config, "model"):
        return True
    path = checkpoints.checkpoint_of(config, "train")
    try:
        return path is not None and checkpoint_memory.METADATA_KEY in checkpoints.checkpoint_metadata(path)
    except Exception:
        return False  # pytorch-3dunet says what is wrong with it


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _check_name(
    config: Mapping[str, Any],
    key: str,
    is_known: Callable[[str], bool],
    registry: "Callable[[], Registry[Any]]",
    resolve: Callable[[Mapping[str, Any]], object],
) -> None:
    """Refuse a section without a name, which pytorch-3dunet answers with a bare TypeError.

    A missing section is accepted: a loss can be built without a metric.
    """
    section = config.get(key, {"name": ""})
    if isinstance(section, Mapping) and isinstance(section.get("name"), str):
        return
    if isinstance(section, Mapping) and all(isinstance(option, str) for option in section):
        resolve(section)
    is_name = isinstance(section, str) and (is_known(section) or registry().get(section, key) is not None)
    # as a whole: what is no text has no dotted key
    example = registry().example(key, {}).applied_to({})[key]
    fix = write(f"{key}.name", section) if is_name else write(key, example)
    raise ConfigError(key, f"{reprlib.repr(section)} is not a section with a name.", fix)


def _is_own_loss(section: Mapping[str, Any]) -> bool:
    """Whether pytorch-3dunet has no such loss, or would ignore an option of it."""
    name, ignored = section.get("name"), section.get("ignore_index")
    if not isinstance(name, str):
        return False
    if not builders.knows_loss(name):
        return True
    if isinstance(ignored, float) and math.isnan(ignored):
        return True  # pytorch-3dunet looks for labels that equal NaN: there are none
    unread = [key for key in builders.loss(section).unread if section.get(key) is not None]
    return bool(unread) and _takes(losses.registry(), name, unread, "loss")


def _is_own_metric(section: Mapping[str, Any]) -> bool:
    """Whether pytorch-3dunet has no such metric, or would ignore an option of it."""
    name = section.get("name")
    if not isinstance(name, str):
        return False
    if not introspection.knows_metric(name):
        return True
    given = [key for key, value in section.items() if key != "name" and value is not None]
    return name in REPLACED_METRICS and bool(given) and _takes(metrics.registry(), name, given, "eval_metric")


def _takes(registry: "Registry[Any]", name: str, options: list[str], place: str) -> bool:
    """Whether what this project has under the name can use one of the options, which pytorch-3dunet ignores."""
    registration = registry.get(name, place)
    if registration is None or registration.origin == UPSTREAM:
        return False
    return bool(set(options) & registration.component.parameters.keys())

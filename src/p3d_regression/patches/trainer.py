"""``pytorch3dunet.unet3d.trainer``: its config is checked, its training watched.

A pre-trained checkpoint may get a new final activation.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from p3d_regression._patching import AnyFunction, Patch, replace_function
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.contract import Contract, contract_of, mapping
from p3d_regression.model.unet import is_attached, note_contract

if TYPE_CHECKING:
    from p3d_regression.training.plan import Plan


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the trainer, which has just been executed."""
    yield _patch_create_trainer(module)
    # only newer versions squeeze planes in the trainer
    if hasattr(module, "is_model_2d"):
        yield _patch_is_model_2d(module)


def _patch_create_trainer(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def create_trainer(config: Any) -> Any:
            if not (patch.is_applied and isinstance(config, Mapping)):
                return original(config)
            from p3d_regression.checks.at_start import check_at_start

            check_at_start(config, "train")
            from p3d_regression import group
            from p3d_regression.training import distributed
            from p3d_regression.training.plan import following, model_is_ours, plan_of
            from p3d_regression.training.scaling import with_numbers

            plan = plan_of(config, model_is_ours=model_is_ours(config))
            creating: AbstractContextManager[None] = nullcontext()
            if plan.is_ours and group.is_launched():
                distributed.join(config)
                config = distributed.restarted(config)
                creating = distributed.creating(module)
            else:
                distributed.warn_of_many(config)
            config = group.once(lambda: with_numbers(config, plan))
            allow = checkpoint_memory.new_head_allowed() if _starts_from_pre_trained(config) else nullcontext()
            with following(plan), allow, creating:
                return _watched(original, config, plan) if plan.is_ours else _alone(original, config)

        return create_trainer

    return replace_function(module, "create_trainer", wrap, parameters=["config"])


def _patch_is_model_2d(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def is_model_2d(model: Any) -> Any:
            # pytorch-3dunet looks into DataParallel only
            return original(getattr(model, "module", model) if patch.is_applied else model)

        return is_model_2d

    return replace_function(module, "is_model_2d", wrap, parameters=["model"])


def _watched(original: AnyFunction, config: Mapping[str, Any], plan: "Plan") -> Any:
    """Create a trainer that uses this project."""
    from p3d_regression import group
    from p3d_regression.model.precision import FULL
    from p3d_regression.training import distributed, monitor, precision, progress, resuming, schedule
    from p3d_regression.training.baselines import guesses_of
    from p3d_regression.training.direction import with_direction
    from p3d_regression.training.saving import claim
    from p3d_regression.upstream.log import say

    computed_in = precision.precision_of(config)
    unit = schedule.step_per(config.get("lr_scheduler"))
    complete, lines = with_direction(schedule.without(precision.without(config)), plan)
    # before pytorch-3dunet empties the sections
    contract = contract_of(complete)
    guesses = group.once(lambda: guesses_of(complete, plan))
    # pytorch-3dunet takes resume out of the section
    resumed = {"trainer": dict(mapping(complete.get("trainer")))}
    trainer = original(complete)
    _keep(contract, trainer)
    precision.use(trainer, computed_in)
    position = resuming.restore(trainer, resumed)
    schedule.use(trainer, unit, position, is_resumed=bool(resumed["trainer"].get("resume")))
    # after all that may be wrong: a failing start leaves nothing behind
    if group.is_main() and isinstance(directory := getattr(trainer, "checkpoint_dir", None), str) and directory:
        claim(directory)
    if group.is_running():
        distributed.share_out(trainer, complete)
    baselines = monitor.watch(trainer, plan, guesses, position)
    is_resumed = bool(resumed["trainer"].get("resume"))
    progress.follow(trainer, plan, lambda: baselines.values if baselines else {}, is_resumed=is_resumed)
    say("; ".join(filter(None, [plan.describe(), *(f"set {line}, from the metric" for line in lines)])))
    if computed_in != FULL:
        say(f"layers in {computed_in}; the last layer, target scaling and the loss in float32")
    return trainer


def _alone(original: AnyFunction, config: Mapping[str, Any]) -> Any:
    """Create a trainer that does not use this project."""
    from p3d_regression.training.progress import discard

    discard()
    return original(config)


def _keep(contract: Contract, trainer: Any) -> None:
    """Let the checkpoints of a training hold its contract, where its model is this project's."""
    model = getattr(trainer, "model", None)
    unet = getattr(model, "module", model)
    if is_attached(unet):
        note_contract(unet, contract.plain)


def _starts_from_pre_trained(config: Mapping[str, Any]) -> bool:
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping):
        return False
    # pytorch-3dunet looks at pre_trained only where resume is not given
    return trainer.get("resume") is None and trainer.get("pre_trained") is not None

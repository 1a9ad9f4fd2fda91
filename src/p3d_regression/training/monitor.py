"""The trainer of pytorch-3dunet, watched: what this project adds to a training, on one object and no other.

The trainer's methods are replaced on the instance; each calls the original one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p3d_regression import group
from p3d_regression._patching import wrap_method
from p3d_regression.errors import NonFiniteLossError, UnsupportedUpstreamError
from p3d_regression.losses import share as shares
from p3d_regression.model import last_layer
from p3d_regression.training import (
    augmentation,
    batches,
    diagnosis,
    distributed,
    images,
    randomness,
    resuming,
    saving,
    scaling,
)
from p3d_regression.training.plan import Plan
from p3d_regression.upstream import builders
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from torch import Tensor

    from p3d_regression.metrics.score import Score
    from p3d_regression.training.baselines import Baselines, Guess

#: What a trainer must have, so that it can be watched.
_METHODS = ("train", "validate", "_forward_pass", "_log_stats", "_log_images")
_ATTRIBUTES = (
    "loss_criterion",
    "eval_criterion",
    "loaders",
    "writer",
    "model",
    "num_iterations",
    "tensorboard_formatter",
)


def watch(
    trainer: Any,
    plan: Plan,
    guesses: Mapping[int, "Guess"] | None = None,
    position: resuming.Position | None = None,
) -> "Baselines | None":
    """Add to a trainer what a training with this plan needs.

    Args:
        trainer: that of pytorch-3dunet.
        plan: of the training.
        guesses: what its scores are compared with, by output channel.
        position: in an epoch, where it goes on.

    Returns:
        What its scores are compared with; None if nothing.

    Raises:
        UnsupportedUpstreamError: the trainer is built differently, and the plan needs what it lacks.
    """
    from p3d_regression.losses.criterion import Criterion
    from p3d_regression.metrics.score import Score

    lacking = [name for name in (*_METHODS, *_ATTRIBUTES) if not hasattr(trainer, name)]
    has_loss = plan.loss is None or isinstance(getattr(trainer, "loss_criterion", None), Criterion)
    has_metric = plan.metric is None or isinstance(getattr(trainer, "eval_criterion", None), Score)
    if lacking or not (has_loss and has_metric):
        what = f"its trainer has no {', '.join(lacking)}" if lacking else "it does not use the patched builders"
        message = f"p3d-regression does not support the trainer of this pytorch3dunet: {what}"
        if plan.loss or plan.metric or scaling.of_model(trainer):
            raise UnsupportedUpstreamError(f"{message}. See `p3d-regression doctor`.")
        console().warning(f"{message}; this training is not monitored for NaN, constant output and wrong shapes")
        return None
    monitor = _Monitor(trainer, plan, guesses or {}, position)
    monitor.start()
    return monitor.baselines


class _Monitor:
    """One training.

    Args:
        trainer: that of pytorch-3dunet.
        plan: what is this project's in it.
        guesses: what its scores are compared with, by output channel.
        position: in an epoch, where it goes on.
    """

    def __init__(
        self, trainer: Any, plan: Plan, guesses: Mapping[int, "Guess"], position: resuming.Position | None
    ) -> None:
        self.trainer = trainer
        self.position = position
        #: The states of the generators before the epoch.
        self.epoch_start: dict[str, Any] | None = None
        self.plan = plan
        self.phase = "train"
        self.output_range = diagnosis.OutputRange()
        self.checkpointed = 0
        self.reported: set[str] = set()
        #: The sum of the losses whose values pytorch-3dunet has not asked for.
        self.unread: Tensor | None = None
        #: Of the batch that was computed last; None if this process has all of it.
        self.share: shares.Share | None = None
        self.recorders = {name: batches.record(loader) for name, loader in trainer.loaders.items()}
        self.gradient_factor = scaling.gradient_factor(trainer, plan)
        self.baselines = self._baselines(guesses)

    def _baselines(self, guesses: Mapping[int, "Guess"]) -> "Baselines | None":
        from p3d_regression.metrics.score import Accumulated
        from p3d_regression.training.baselines import Baselines, SquaredError

        better, score, name = self.plan.higher_is_better, self.score, self.plan.metric_name
        if not guesses or better is None or (score is None and name != "MSE"):
            return None
        if score is None:
            return Baselines(guesses, name, SquaredError, self.plan.predicted, better)
        gathered = group.gathered if group.is_running() else None
        return Baselines(
            guesses,
            str(score.metric),
            lambda: Accumulated(score.metric, score.mask, gathered),
            score.predicted,
            better,
        )

    @property
    def score(self) -> "Score | None":
        from p3d_regression.metrics.score import Score

        metric = self.trainer.eval_criterion
        return metric if isinstance(metric, Score) else None

    def start(self) -> None:
        if self.plan.loss is None and self.plan.compares_values:
            builders.inner_loss(self.trainer.loss_criterion).register_forward_pre_hook(_compare_shapes)
        augmentation.vary(self.trainer.loaders.get("train"))
        if group.is_running():
            distributed.share_criteria(self.trainer, lambda: self.share, knows_shares=self.plan.loss is not None)
        wrap_method(self.trainer, "train", self._train)
        if hasattr(self.trainer, "_save_checkpoint"):
            wrap_method(self.trainer, "_save_checkpoint", self._save_checkpoint)
        wrap_method(self.trainer, "validate", self._validate)
        wrap_method(self.trainer, "_forward_pass", self._forward_pass)
        wrap_method(self.trainer, "_log_stats", self._log_stats)
        if self.plan.is_regression:
            wrap_method(self.trainer, "_log_images", self._log_images)

    def _train(self, original: Callable[[], Any]) -> Any:
        """One epoch, or the rest of one."""
        loaders = self.trainer.loaders
        loader, position, self.position = loaders["train"], self.position, None
        if position is not None and position.batches == position.of:
            randomness.restore(position.now[group.rank()], loader)
            position = None
        if position is None:
            self.epoch_start = randomness.state_of(loader)
            return self._scored(original)
        self.epoch_start = position.start[group.rank()]
        loaders["train"] = resuming.Rest(loader, self.recorders["train"], position)
        try:
            return self._scored(original)
        finally:
            loaders["train"] = loader

    def _scored(self, original: Callable[[], Any]) -> Any:
        if self.score is None or self.score.metric.component.keeps_voxels:
            # kept for a whole epoch, they would fill the memory: each batch has a score of its own
            return original()
        self.score.begin()
        try:
            return original()
        finally:
            self.score.end()

    def _save_checkpoint(self, original: Callable[..., Any], *args: Any) -> Any:
        recorder, start, position = self.recorders["train"], self.epoch_start, None
        if recorder is not None and start is not None:
            position = resuming.position_of(self.trainer, recorder.taken, start)
        with saving.safely(resuming.kept(self.trainer, position)):
            return original(*args)

    def _validate(self, original: Callable[[], Any]) -> Any:
        self.phase, self.output_range, share = "val", diagnosis.OutputRange(), self.share
        self._look_at_unread("a training iteration before")
        if self.score is not None:
            self.score.begin()
        try:
            score = original()
            # pytorch-3dunet compares it, gives it to the scheduler and keeps it in checkpoints
            found = float(score)
            self._look_at_validation(found)
            if self.baselines is not None:
                self.baselines.compare(found)
            self.checkpointed = self.trainer.num_iterations
            return found if self.score is not None else score
        finally:
            self.phase = "train"
            # pytorch-3dunet may compute the score of the training's batch after this
            self._take_share(share)
            if self.score is not None:
                self.score.end()

    def _forward_pass(self, original: Callable[..., Any], raw: Any, labels: Any, *weights: Any) -> Any:
        recorder = self.recorders.get(self.phase)
        indices = recorder.next() if recorder else []
        self._take_share(recorder.share(group.summed) if recorder and group.is_running() else None)
        with shares.of_batch(self.share):
            output, loss = original(raw, labels, *weights)
        if self.gradient_factor is not None and loss.requires_grad:
            loss.register_hook(self._standardised)
        if self.phase == "val":
            self.output_range.add(output)
            if self.baselines is not None:
                own = slice(None if self.share is None else self.share.own)
                self.baselines.add((raw[0] if isinstance(raw, tuple | list) else raw)[own], labels[own], output[own])
        plain, predicted = loss.detach(), output.detach()
        self.unread = plain if self.unread is None else self.unread + plain.float()

        def item() -> float:
            # pytorch-3dunet asks for the value of every loss: where it does, a GPU is waited for anyway
            value: float = plain.item()
            values = [value] if self.share is None else group.each(value)
            if not np.isfinite(value):
                self._stop(value, raw, labels, predicted, indices)
            if not np.isfinite(values).all():
                self._stop_with(values)
            value = sum(values) / len(values)
            self.unread = None
            # pytorch-3dunet keeps the loss until the next batch is there, and this would keep the patches
            del loss.item
            return value

        loss.item = item
        return output, loss

    def _take_share(self, share: shares.Share | None) -> None:
        self.share = share
        if self.score is not None:
            self.score.share = share

    def _look_at_unread(self, when: str) -> None:
        """Where pytorch-3dunet reads losses by other means than ``item()``, look at them before anything is kept.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite.
        """
        if self.unread is None:
            return
        total, self.unread = float(self.unread), None
        if not np.isfinite(total):
            raise NonFiniteLossError(
                f"the loss is NaN or infinite in {when} {self.trainer.num_iterations}, and the weights may be too; "
                f"training stops. Check raw and labels: `p3d-regression check` finds NaN and infinite values in them. "
                f"{self._kept()}"
            )
        self._warn(
            "unread",
            "this pytorch-3dunet does not read losses with item(): a NaN or infinite loss stops the training at the "
            "next validation or log line, not at once, and the message does not name the batch",
        )

    def _standardised(self, gradient: "Tensor") -> "Tensor":
        assert self.gradient_factor is not None
        return gradient * self.gradient_factor

    def _stop(self, loss: float, raw: Any, labels: "Tensor", output: "Tensor", indices: list[int]) -> None:
        """Stop training, and say all that is known of the batch.

        Raises:
            NonFiniteLossError: always.
        """
        raw = raw[0] if isinstance(raw, tuple | list) else raw
        masks_nan = self.plan.mask is not None and np.isnan(self.plan.mask.ignored)
        trainer, dataset = self.trainer, self.trainer.loaders[self.phase].dataset
        when = "training iteration" if self.phase == "train" else "the validation after iteration"
        files = "\n".join(f"    {place}" for place in batches.places(dataset, indices)) or "    (not known)"
        tensors = {"raw": raw, "labels": labels, "output": output}
        lines = "\n".join(f"  {name:<7} {diagnosis.statistics(values)}" for name, values in tensors.items())
        raise NonFiniteLossError(
            f"the loss is {loss} in {when} {trainer.num_iterations}; training stops before the weights change.\n"
            f"  batch:\n{files}\n{lines}\n"
            f"{diagnosis.cause_of_no_number(raw, labels, output, masks_nan=bool(masks_nan))}\n{self._kept()}"
        )

    def _stop_with(self, values: list[float]) -> None:
        """Stop training, because another process does.

        Raises:
            NonFiniteLossError: always.
        """
        others = " and ".join(str(rank) for rank, value in enumerate(values) if not np.isfinite(value))
        raise NonFiniteLossError(
            f"the loss is NaN or infinite in process {others}, whose message names the patches; training stops before "
            "the weights change."
        )

    def _kept(self) -> str:
        directory = Path(self.trainer.checkpoint_dir)
        kept = [name for name in ("best_checkpoint", "last_checkpoint") if (directory / f"{name}.pytorch").is_file()]
        if not kept:
            return "No checkpoint has been written yet."
        when = f", last written after iteration {self.checkpointed}" if self.checkpointed else ""
        return f"Checkpoints in {directory}: {' and '.join(kept)}{when}."

    def _look_at_validation(self, score: float) -> None:
        """Say once what is wrong with everything that was seen."""
        constants, *others = group.gathered(self.output_range.constants())
        for channel, value in constants.items():
            if any(other.get(channel) != value for other in others):
                continue
            layer = last_layer.of_model(getattr(self.trainer.model, "module", self.trainer.model), channel)
            self._warn(
                f"constant {channel}",
                f"output channel {channel} was {value:g} in every voxel of the validation after iteration "
                f"{self.trainer.num_iterations}. {diagnosis.cause_of_constant(value, layer)}",
            )
        # PSNR is infinite where nothing is wrong
        if np.isnan(score) or (np.isinf(score) and not (score > 0 and self.plan.higher_is_better)):
            values = self.score.channels if self.score else []
            channels = [str(channel) for channel, value in enumerate(values) if not np.isfinite(value)]
            where = f" in channel {' and '.join(channels)}" if len(values) > 1 else ""
            self._warn(
                "score",
                f"{self.plan.metric or self.plan.metric_name} is {score}{where} over the whole validation after "
                f"iteration {self.trainer.num_iterations}: no best_checkpoint is written for it. Labels or output may "
                "be constant, or no voxel counts.",
            )

    def _warn(self, key: str, message: str) -> None:
        if key not in self.reported:
            self.reported.add(key)
            console().warning(message)

    def _log_stats(self, original: Callable[..., Any], phase: str, loss: float, score: Any) -> Any:
        self._look_at_unread("the validation after iteration" if phase == "val" else "a training iteration before")
        if self.score is None:
            return original(phase, loss, score)
        result = original(phase, loss, float(score))
        values = self.score.channels
        if len(values) > 1:
            for channel, value in enumerate(values):
                tag = f"{phase}_eval_score/channel_{channel}"
                self.trainer.writer.add_scalar(tag, value, self.trainer.num_iterations)
            listed = ", ".join(f"channel {channel} {value:.6g}" for channel, value in enumerate(values))
            say(f"{phase} {self.score.metric.component.name}: {listed}")
        return result

    def _log_images(self, original: Callable[..., Any], raw: Any, labels: Any, output: Any, prefix: str = "") -> None:
        trainer = self.trainer
        inputs = dict(enumerate(raw)) if isinstance(raw, tuple | list) else {"": raw}
        for number, part in inputs.items():
            # one sample at a time: with two channels pytorch-3dunet fails at the second one of a batch
            for index, sample in enumerate(_array(part)):
                for tag, image in trainer.tensorboard_formatter(f"inputs{number}", sample[None]):
                    place = prefix + tag.replace("batch_0", f"batch_{index}", 1)
                    trainer.writer.add_image(place, image, trainer.num_iterations)
        label, prediction = _array(labels), _array(output)
        if label.shape[2:] != prediction.shape[2:] or label.ndim != 5:
            original(raw, labels, output, prefix)
            return
        predicted = self.plan.predicted(prediction.shape[1])[: label.shape[1]]
        counts = None if self.plan.mask is None else self.plan.mask.of_array(label)
        for tag, image in images.pictures(label, prediction, predicted, counts):
            trainer.writer.add_image(prefix + tag, image, trainer.num_iterations)


def _array(values: Any) -> Any:
    """pytorch-3dunet gives arrays since 1.7 or so, tensors before."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def _compare_shapes(module: Any, inputs: Any) -> None:
    from p3d_regression.losses.criterion import check_shapes

    check_shapes(*inputs[:2])

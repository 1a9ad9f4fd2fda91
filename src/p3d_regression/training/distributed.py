"""One training by several processes: what of the trainer is shared out, and what only the first process does.

``torchrun`` starts the processes, ``DistributedDataParallel`` adds up gradients, :class:`.batches.Recorder` shares
out the patches. Here they are put into the trainer of pytorch-3dunet, which knows nothing of them.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from p3d_regression import group
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.losses.share import Share
from p3d_regression.metrics import merging
from p3d_regression.model.contract import mapping
from p3d_regression.training import augmentation, resuming
from p3d_regression.upstream import checkpoints
from p3d_regression.upstream.introspection import device_name
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from torch import Tensor


def warn_of_many(config: Mapping[str, Any]) -> None:
    """Say that pytorch-3dunet alone makes a training of each process."""
    if group.size() == 1 or not group.is_main():
        return
    console().warning(
        f"torchrun has started {group.size()} processes, and this config uses nothing of p3d-regression: "
        f"pytorch-3dunet makes {group.size()} separate trainings of it, which all write to {_directory(config)} and "
        "overwrite each other's checkpoints. Start one process; or write a final_activation of p3d-regression, so that "
        f"they are one training, such as\n  model:\n    final_activation: none"
    )


def join(config: Mapping[str, Any]) -> None:
    """Meet the other processes, each with a device of its own.

    Raises:
        ConfigError: there are too few GPUs.
    """
    device = device_name(config.get("device"))
    group.take_device(device)
    group.join(device)
    group.quieten()


def restarted(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a training that ``torchrun`` has started anew: it goes on after its own last checkpoint."""
    if group.restarts() == 0:
        return config
    last = str(_directory(config) / "last_checkpoint.pytorch")
    if not group.of_main(group.is_main() and _is_of_this_run(last)):
        say(f"start {group.restarts() + 1} of this training: it has no checkpoint, and starts from the beginning")
        return config
    say(f"start {group.restarts() + 1} of this training: it goes on after {last}")
    trainer = {key: value for key, value in mapping(config.get("trainer")).items() if key != "pre_trained"}
    return {**config, "trainer": {**trainer, "resume": last}}


def _is_of_this_run(path: str) -> bool:
    if not Path(path).is_file():
        return False
    held = checkpoints.load_checkpoint(path, mmap=True).get(resuming.KEY)
    return mapping(held).get("run") == group.run_id()


def _directory(config: Mapping[str, Any]) -> Path:
    trainer = mapping(config.get("trainer"))
    # pytorch-3dunet writes beside the checkpoint that it resumes
    return Path(trainer["resume"]).parent if trainer.get("resume") else Path(str(trainer.get("checkpoint_dir")))


class _Quiet:
    """Stands in for a TensorBoard writer in all processes but the first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@contextmanager
def creating(module: Any) -> Iterator[None]:
    """While pytorch-3dunet creates a trainer: one device, and files from the first process only.

    Args:
        module: ``pytorch3dunet.unet3d.trainer``.
    """
    import torch

    # pytorch-3dunet would take all GPUs for DataParallel, and multiply the batch size by their number
    with mock.patch.object(torch.cuda, "device_count", return_value=1):
        if group.is_main():
            yield
            return
        module.tqdm = lambda batches, *args, **kwargs: batches
        with mock.patch.object(module, "SummaryWriter", _Quiet):
            yield


def share_out(trainer: Any, config: Mapping[str, Any]) -> None:
    """Share out the work of a trainer that has just been created.

    Raises:
        ConfigError: the processes find different files, or a loader, a metric cannot be shared out.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from p3d_regression.metrics.score import Score

    for name, loader in trainer.loaders.items():
        if not hasattr(getattr(loader, "batch_sampler", None), "sampler"):
            raise ConfigError(
                "loaders.dataset",
                f"the {name} loader is a {type(loader).__name__}, whose patches cannot be shared out among processes.",
                advise("train with one process, or with a dataset that torch's DataLoader reads"),
            )
    if isinstance(trainer.eval_criterion, Score):
        merging.check(trainer.eval_criterion.build(), "eval_metric.name")
    _same_files(trainer)
    if not group.is_main():
        torch.manual_seed(torch.initial_seed() + group.rank())  # dropout
        augmentation.draw_from([torch.initial_seed(), group.rank()], trainer.loaders["train"].dataset)
    device = device_name(config.get("device"))
    model = _normalised(trainer.model, device)
    own = [torch.cuda.current_device()] if device == "cuda" else None
    trainer.model = DistributedDataParallel(model, device_ids=own, gradient_as_bucket_view=True)
    _write_once(trainer)
    _leave_at_end(trainer)
    batch = trainer.loaders["train"].batch_size
    say(
        f"number of processes that train together: {group.size()} ({torch.distributed.get_backend()}), with "
        f"loaders.batch_size {batch} in each, {batch * group.size()} in all. The first process writes the files."
    )


def share_criteria(trainer: Any, share_of: Callable[[], Share | None], *, knows_shares: bool) -> None:
    """Let loss and score be those of the batches of all processes, without the patches that fill them up.

    Args:
        trainer: that has been shared out.
        share_of: returns this process's part of the batch that is computed; None if it has all of it.
        knows_shares: whether the loss is one of this project, which takes its mean over all processes itself.
    """
    import torch

    from p3d_regression.metrics.score import Score

    criterion, metric, batch_size = trainer.loss_criterion, trainer.eval_criterion, trainer._batch_size

    def loss_of(output: "Tensor", *labels: "Tensor") -> "Tensor":
        share = share_of()
        if share is None:
            result: Tensor = criterion(output, *labels)
            return result
        # also a process without patches takes part in the sums of all, and has a gradient: 0
        nothing = 0.0 if share.own else output.sum() * 0.0
        if share.own or knows_shares:
            result = criterion(output[: share.own], *(part[: share.own] for part in labels))
            return nothing + (result if knows_shares else result * share.factor)
        return output.sum() * 0.0

    def score_of(output: "Tensor", label: "Tensor") -> Any:
        share = share_of()
        if share is None:
            return metric(output, label)
        own = float(metric(output[: share.own], label[: share.own])) * share.own if share.own else 0.0
        return torch.tensor(sum(group.each(own)) / share.total, dtype=torch.float64)

    trainer.loss_criterion = loss_of
    if isinstance(metric, Score):
        metric.gathered = group.gathered
    else:
        trainer.eval_criterion = score_of

    def size_of(batch: Any) -> int:
        share = share_of()
        return int(batch_size(batch)) if share is None else share.total

    trainer._batch_size = size_of


def _same_files(trainer: Any) -> None:
    found = {name: _contents(loader.dataset) for name, loader in trainer.loaders.items()}
    for name, own in found.items():
        others = group.gathered(own)
        if sorted(others[0]) != sorted(own):
            first, here = (", ".join(f"{path} ({n} patches)" for path, n in sorted(c)) for c in (others[0], own))
            raise ConfigError(
                f"loaders.{name}.file_paths",
                f"process {group.rank()} finds other volumes than process 0: {here}; process 0 has {first}.",
                advise("let all machines see the same files"),
            )
        if any(other != others[0] for other in others):
            # the order in which a directory is listed differs from machine to machine
            dataset = trainer.loaders[name].dataset
            dataset.datasets.sort(key=lambda part: _contents(part))
            dataset.cumulative_sizes = dataset.cumsum(dataset.datasets)


def _contents(dataset: Any) -> list[tuple[str, int]]:
    parts = getattr(dataset, "datasets", [dataset])
    return [(Path(str(getattr(part, "file_path", ""))).name, len(part)) for part in parts]


def _normalised(model: Any, device: str) -> Any:
    """The model, whose batch normalisation sees the batch of all processes, where torch can do that."""
    from torch.nn import SyncBatchNorm
    from torch.nn.modules.batchnorm import _BatchNorm

    if group.size() == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    if device == "cuda":
        return SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    console().warning(
        "batch normalisation sees the patches of each process only: torch can share it out on CUDA GPUs alone. Group "
        "normalisation, model.layer_order: gcr, does not depend on the number of processes."
    )
    return model


def _write_once(trainer: Any) -> None:
    save: Callable[[bool], None] = trainer._save_checkpoint

    def save_checkpoint(is_best: bool) -> None:
        if not group.is_main():
            return
        parallel, trainer.model = trainer.model, trainer.model.module
        try:
            # the keys of a checkpoint are those of the model itself
            save(is_best)
        finally:
            trainer.model = parallel

    trainer._save_checkpoint = save_checkpoint
    if not group.is_main():
        trainer._log_images = lambda *args, **kwargs: None


def _leave_at_end(trainer: Any) -> None:
    fit: Callable[[], Any] = trainer.fit

    def fit_and_leave() -> Any:
        result = fit()
        # it holds connections to the other processes, which must not outlive the interpreter
        trainer.model = trainer.model.module
        gc.collect()
        group.leave()
        return result

    trainer.fit = fit_and_leave

"""A job's configs, and the commands of pytorch-3dunet run on them as subprocesses."""

import json
import math
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from p3d_regression.demo.jobs import Job
from p3d_regression.errors import DemoError
from p3d_regression.keys import PLUGIN_KEYS

#: In each training.
_VALIDATIONS = 10

#: Called with the number of finished iterations and, right after a validation, its R2.
Progress = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Run:
    """One training and one prediction.

    Attributes:
        job: what is trained.
        directory: absolute; gets ``train.yml``, ``predict.yml``, their logs, ``checkpoints`` and ``predictions``.
        data: absolute directory of the job's volumes.
        iterations: of training, one patch each.
    """

    job: Job
    directory: Path
    data: Path
    iterations: int

    @property
    def predictions(self) -> Path:
        return self.directory / "predictions" / "test_predictions.h5"

    @property
    def best_checkpoint(self) -> Path:
        return self.directory / "checkpoints" / "best_checkpoint.pytorch"

    @property
    def uses_plugin(self) -> bool:
        return any(map(_is_ours, self.job.model))

    def volumes(self, phase: str = "") -> list[Path]:
        """The HDF5 files of ``train``, ``val`` or ``test``, or of all three, in the order of :meth:`Job.files`."""
        return [self.data / f"{name}.h5" for name in self.job.files() if name.startswith(phase)]

    def outputs(self) -> list[Path]:
        """Checkpoints and predictions."""
        return [self.best_checkpoint, self.best_checkpoint.with_name("last_checkpoint.pytorch"), self.predictions]

    def configs(self) -> dict[Path, str]:
        """Path and text of both configs."""
        train, predict = self.directory / "train.yml", self.directory / "predict.yml"
        remembered = ["# final_activation and target_scaling are in the checkpoint"] * self.uses_plugin
        return {
            train: _TRAIN.format(
                job=self.job,
                config=train,
                model=_model(self.job, self.job.model),
                checkpoint_dir=_quoted(self.best_checkpoint.parent),
                iterations=self.iterations,
                validations=_VALIDATIONS,
                validate_after=math.ceil(self.iterations / _VALIDATIONS),
                train_files=", ".join(_quoted(path) for path in self.volumes("train")),
                augmentation="".join(f"        - {line}\n" for line in self.job.augmentation),
                val_files=", ".join(_quoted(path) for path in self.volumes("val")),
            ),
            predict: _PREDICT.format(
                job=self.job,
                config=predict,
                model=_model(self.job, [*(line for line in self.job.model if not _is_ours(line)), *remembered]),
                checkpoint=_quoted(self.best_checkpoint),
                blend=_BLEND * self.uses_plugin,
                prediction_dir=_quoted(self.predictions.parent),
                test_files=", ".join(_quoted(path) for path in self.volumes("test")),
            ),
        }

    def train(self, progress: Progress) -> None:
        """Run ``train3dunet``; raises :class:`DemoError` where it fails or runs without the plugin."""
        plugin_spoke = not self.uses_plugin
        finished = 0

        def watch(line: str) -> None:
            nonlocal plugin_spoke, finished
            plugin_spoke = plugin_spoke or " P3DRegression - " in line
            if iteration := re.search(r"Training iteration \[(\d+)/", line):
                if not plugin_spoke:
                    raise DemoError(f"train3dunet runs without the plugin; see {self.directory / 'train.log'}.")
                finished = int(iteration[1]) - 1
                progress(finished, None)
            elif score := re.search(r"Validation finished\..* Evaluation score: (\S+)", line):
                progress(finished + 1, float(score[1]))

        try:
            self._run("train3dunet", "train.yml", watch)
        except DemoError as error:
            if plugin_spoke:
                raise
            raise DemoError(
                f"{error}\n"
                "The plugin wrote nothing into this log; `p3d-regression doctor` reports whether it is active."
            ) from error

    def predict(self) -> None:
        """Run ``predict3dunet``; raises :class:`DemoError` where it fails."""
        self._run("predict3dunet", "predict.yml", lambda line: None)

    def _run(self, command: str, config: str, watch: Callable[[str], None]) -> None:
        # what --compare shows is an error in a config that uses the plugin, as the loss without NaN does
        run_command(
            command, self.directory / config, watch, {} if self.uses_plugin else {"P3D_REGRESSION_CHECKS": "off"}
        )


def _is_ours(line: str) -> bool:
    return line.startswith(tuple(PLUGIN_KEYS))


def _quoted(path: Path) -> str:
    # JSON's quoting of a string is YAML's, whatever the path holds
    return json.dumps(str(path))


def _model(job: Job, last_lines: Iterable[str]) -> str:
    return _MODEL.format(job=job) + "".join(f"  {line}\n" for line in last_lines)


def run_command(
    command: str, config: Path, watch: Callable[[str], None], variables: Mapping[str, str] | None = None
) -> None:
    """Run a command of pytorch-3dunet on a config, with more environment variables; ``watch`` gets each line."""
    log = config.with_suffix(".log")
    # the script of this environment, not the first on PATH
    script = shutil.which(command, path=sysconfig.get_path("scripts")) or shutil.which(command)
    if script is None:
        raise DemoError(f"{command} is not installed in this environment: pip install pytorch3dunet")
    with (
        log.open("w") as copy,
        subprocess.Popen(
            [script, "--config", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | (variables or {}),
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                copy.write(line)
                watch(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = "".join(log.read_text().splitlines(keepends=True)[-5:])
        # HDF5 and torch do not always say so
        full = "; its disk is full" if shutil.disk_usage(log.parent).free < 2**20 else ""
        raise DemoError(
            f"{command} --config {config} ended with exit code {process.returncode}{full}; see {log}:\n{last}"
        )


#: In the prediction config, for a checkpoint of the plugin.
_BLEND = "  blend: gaussian  # overlapping patches: no steps at their borders\n"

_MODEL = """\
model:
  name: ResidualUNet3D
  in_channels: 1
  out_channels: {job.channels}
  f_maps: [8, 16, 32]
  # convolution, then ELU: without GroupNorm (g), the network sees absolute intensities
  layer_order: ce
"""

_TRAIN = """\
# {job.title}
# train3dunet --config {config}
manual_seed: 0
device: cpu
{model}loss:
  name: {job.loss}
  ignore_index: .nan  # voxels outside the brain have no label
eval_metric:
  name: R2Score
optimizer:
  name: Adam
  learning_rate: 0.0015
lr_scheduler:
  # counts validations, not iterations
  name: CosineAnnealingLR
  T_max: {validations}
trainer:
  checkpoint_dir: {checkpoint_dir}
  max_num_epochs: 100000
  max_num_iterations: {iterations}
  # checkpoints are written at validations only: keep this below max_num_iterations
  validate_after_iters: {validate_after}
  log_after_iters: {validate_after}
loaders:
  dataset: StandardHDF5Dataset
  num_workers: 0
  batch_size: 1
  raw_internal_path: raw
  label_internal_path: label
  train:
    file_paths: [{train_files}]
    slice_builder:
      name: SliceBuilder
      patch_shape: [8, 64, 64]
      stride_shape: [2, 14, 9]
    transformer:
      # only the raw volume is normalised, by fixed numbers: labels stay in their units
      raw:
        - {{name: Standardize, mean: {job.mean}, std: {job.std}}}
{augmentation}        - {{name: RandomFlip}}
        - {{name: ToTensor, expand_dims: true}}
      label:
        - {{name: RandomFlip}}
        - {{name: ToTensor, expand_dims: true}}
  val:
    file_paths: [{val_files}]
    slice_builder:
      name: SliceBuilder
      patch_shape: [8, 64, 64]
      stride_shape: [8, 14, 9]
    transformer:
      raw:
        - {{name: Standardize, mean: {job.mean}, std: {job.std}}}
        - {{name: ToTensor, expand_dims: true}}
      label:
        - {{name: ToTensor, expand_dims: true}}
"""

_PREDICT = """\
# {job.title}
# predict3dunet --config {config}
model_path: {checkpoint}
device: cpu
{model}predictor:
  name: StandardPredictor
{blend}loaders:
  dataset: StandardHDF5Dataset
  num_workers: 0
  batch_size: 1
  output_dir: {prediction_dir}
  raw_internal_path: raw
  label_internal_path: label  # for p3d-regression evaluate
  test:
    file_paths: [{test_files}]
    slice_builder:
      name: SliceBuilder
      # of the training
      patch_shape: [8, 64, 64]
      stride_shape: [4, 14, 9]
    transformer:
      raw:
        - {{name: Standardize, mean: {job.mean}, std: {job.std}}}
        - {{name: ToTensor, expand_dims: true}}
"""

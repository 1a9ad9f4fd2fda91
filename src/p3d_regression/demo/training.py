"""The demo's configs, and the commands of pytorch-3dunet run on them as subprocesses."""

import json
import math
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from p3d_regression.errors import DemoError
from p3d_regression.keys import PLUGIN_KEYS

#: Last layer of the model -> its lines in the section model.
FINAL_LAYERS = {
    "none": (
        "final_activation: none  # this line and the next need p3d-regression",
        "target_scaling: standardize  # trains on standardised labels; loss, scores and predictions stay in mm",
    ),
    "sigmoid": ("final_sigmoid: true  # the default of pytorch-3dunet",),
    "softmax": ("final_sigmoid: false  # a Softmax, which is 1.0 everywhere on one channel",),
}

#: Called with the number of finished iterations and, right after a validation, its MSE.
Progress = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Run:
    """One training and one prediction.

    Attributes:
        final_layer: a key of :data:`FINAL_LAYERS`.
        directory: absolute; gets ``train.yml``, ``predict.yml``, their logs, ``checkpoints`` and ``predictions``.
        train_file, test_file: absolute paths of HDF5 files with the datasets ``raw`` and ``label``.
        iterations: of training, one patch each.
    """

    final_layer: str
    directory: Path
    train_file: Path
    test_file: Path
    iterations: int

    @property
    def predictions(self) -> Path:
        return self.directory / "predictions" / f"{self.test_file.stem}_predictions.h5"

    @property
    def last_checkpoint(self) -> Path:
        return self.directory / "checkpoints" / "last_checkpoint.pytorch"

    def outputs(self) -> list[Path]:
        """Checkpoints and predictions."""
        return [self.last_checkpoint, self.last_checkpoint.with_name("best_checkpoint.pytorch"), self.predictions]

    def configs(self) -> dict[Path, str]:
        """Path and text of both configs."""
        train, predict = self.directory / "train.yml", self.directory / "predict.yml"
        lines = FINAL_LAYERS[self.final_layer]
        # JSON's quoting of a string is YAML's, whatever the path holds
        train_file, test_file = json.dumps(str(self.train_file)), json.dumps(str(self.test_file))
        return {
            train: _TRAIN.format(
                config=train,
                model=_model(lines),
                checkpoint_dir=json.dumps(str(self.last_checkpoint.parent)),
                iterations=self.iterations,
                validate_after=math.ceil(self.iterations / 6),
                train_file=train_file,
                test_file=test_file,
            ),
            predict: _PREDICT.format(
                config=predict,
                model=_model(
                    [*(line for line in lines if not _is_ours(line)), *_REMEMBERED * any(map(_is_ours, lines))]
                ),
                checkpoint=json.dumps(str(self.last_checkpoint)),
                blend=_BLEND * any(map(_is_ours, lines)),
                prediction_dir=json.dumps(str(self.predictions.parent)),
                test_file=test_file,
            ),
        }

    def train(self, progress: Progress) -> None:
        """Run ``train3dunet``; raises :class:`DemoError` where it fails or runs without the plugin."""
        plugin_spoke = self.final_layer != "none"
        finished = 0

        def watch(line: str) -> None:
            nonlocal plugin_spoke, finished
            plugin_spoke = plugin_spoke or " P3DRegression - " in line
            if iteration := re.search(r"Training iteration \[(\d+)/", line):
                if not plugin_spoke:
                    raise DemoError("train3dunet runs without the plugin; `p3d-regression doctor` reports why.")
                finished = int(iteration[1]) - 1
                progress(finished, None)
            elif score := re.search(r"Validation finished\..* Evaluation score: (\S+)", line):
                progress(finished + 1, float(score[1]))

        _run("train3dunet", self.directory / "train.yml", watch)

    def predict(self) -> None:
        """Run ``predict3dunet``; raises :class:`DemoError` where it fails."""
        _run("predict3dunet", self.directory / "predict.yml", lambda line: None)


def _is_ours(line: str) -> bool:
    return line.startswith(tuple(PLUGIN_KEYS))


def _model(last_lines: Iterable[str]) -> str:
    return _MODEL + "".join(f"  {line}\n" for line in last_lines)


def _run(command: str, config: Path, watch: Callable[[str], None]) -> None:
    log = config.with_suffix(".log")
    # the script of this environment, not the first on PATH
    script = shutil.which(command, path=sysconfig.get_path("scripts")) or shutil.which(command)
    if script is None:
        raise DemoError(f"{command} is not installed in this environment: pip install pytorch3dunet")
    with (
        log.open("w") as copy,
        subprocess.Popen(
            [script, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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


#: In the prediction config, in place of the lines for the plugin.
_REMEMBERED = ["# no final_activation and no target_scaling here: both are in the checkpoint"]

#: The same for the predictor.
_BLEND = "  blend: gaussian  # overlapping patches: no steps at their borders\n"

_MODEL = """\
model:
  name: UNet3D
  in_channels: 1
  out_channels: 1
  f_maps: [8, 16, 32]
  layer_order: gcr
  num_groups: 4
"""

_TRAIN = """\
# Regress the distance to white matter from a T1-weighted MRI.
# train3dunet --config {config}
# For your own data change the paths, in_channels, patch_shape and device, and validate on separate data.
manual_seed: 0
device: cpu
{model}loss:
  name: MSELoss
eval_metric:
  name: MSE
optimizer:
  name: Adam
  learning_rate: 0.002
lr_scheduler:
  # counts validations, not iterations
  name: MultiStepLR
  milestones: [5]
  gamma: 0.3
trainer:
  checkpoint_dir: {checkpoint_dir}
  # MSE is an error: without this line pytorch-3dunet keeps the WORST model as best_checkpoint
  eval_score_higher_is_better: false
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
  global_normalization: true
  train:
    file_paths: [{train_file}]
    slice_builder:
      name: SliceBuilder
      patch_shape: [32, 64, 64]
      stride_shape: [3, 13, 13]
    transformer:
      # only the raw volume is normalised: labels stay in mm
      raw:
        - name: Standardize
        - name: ToTensor
          expand_dims: true
      label:
        - name: ToTensor
          expand_dims: true
  # the whole test half, only to monitor the training: the prediction uses last_checkpoint, which does not depend on it
  val:
    file_paths: [{test_file}]
    slice_builder:
      name: SliceBuilder
      patch_shape: [36, 90, 77]
      stride_shape: [36, 90, 77]
    transformer:
      raw:
        - name: Standardize
        - name: ToTensor
          expand_dims: true
      label:
        - name: ToTensor
          expand_dims: true
"""

_PREDICT = """\
# predict3dunet --config {config}
# with separate validation data use best_checkpoint.pytorch
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
  global_normalization: true
  test:
    file_paths: [{test_file}]
    slice_builder:
      name: SliceBuilder
      patch_shape: [32, 64, 64]
      stride_shape: [16, 32, 32]
      halo_shape: [4, 4, 4]
    transformer:
      raw:
        - name: Standardize
        - name: ToTensor
          expand_dims: true
"""

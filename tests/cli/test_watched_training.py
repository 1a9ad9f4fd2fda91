"""What a training says while it runs: guards and pictures."""

import math
import re
from typing import Any

import h5py
import numpy as np
import torch

from support.checks import merged
from support.ours import OURS, compared, hide, log_of, stopped_with, with_two_channels
from support.traps import Run, Traps


class TestGuards:
    def test_upstream_alone_goes_on_with_labels_that_it_broadcasts(self, traps: Traps) -> None:
        trap = traps.new()
        assert "P3D407" in trap.train(_NO_CHANNEL_AXIS, iterations=2).found

    def test_labels_without_channel_axis_stop_before_the_first_batch(self, runs: Traps) -> None:
        trap = runs.new()
        run = trap.train(merged(OURS, _NO_CHANNEL_AXIS))
        message = stopped_with(run, "ConfigError")
        assert "P3D407 label-channels: loaders.train.transformer.label: the labels have no channel axis" in message
        assert "expand_dims: true" in message
        assert "Training stats" not in log_of(run)

    def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(self, runs: Traps) -> None:
        trap = runs.new()
        # the weights become so large that an output is infinite
        changes = {"optimizer": {"name": "SGD", "learning_rate": 10.0}, "trainer": {"validate_after_iters": 1}}
        run = trap.train(merged(OURS, changes), iterations=30)
        message = stopped_with(run, "NonFiniteLossError")
        kept = torch.load(trap.directory / "checkpoints" / "last_checkpoint.pytorch", map_location="cpu")
        assert f"last written after iteration {kept['num_iterations']}" in message
        assert all(torch.isfinite(value).all() for value in kept["model_state_dict"].values())
        assert "optimizer.learning_rate" in message

    def test_a_validation_with_nan_names_its_file_and_saves_nothing(self, runs: Traps) -> None:
        trap = runs.new()
        trap.edit("val", raw=lambda file: np.where(file["raw"] > 0.99, np.nan, file["raw"]))
        message = stopped_with(trap.train(OURS), "NonFiniteLossError")
        assert "in the validation after iteration 2" in message
        assert str(trap.directory / "val.h5") in message
        assert "The raw volume holds NaN" in message
        assert not list((trap.directory / "checkpoints").glob("*.pytorch"))

    def test_a_constant_output_is_reported_once_with_the_cause(self, runs: Traps) -> None:
        trap = runs.new()
        for name in ("train", "val"):
            trap.edit(name, label=lambda file: -np.abs(file["label"]))
        # the nearest that relu can say is 0, where it has no gradient any more
        changes = merged(OURS, {"model": {"final_activation": "relu"}, "trainer": {"validate_after_iters": 1}})
        changes = merged(changes, {"optimizer": {"learning_rate": 0.5}, "eval_metric": {"name": "MAE"}})
        run = trap.train(changes, iterations=6).succeeded()
        lines = [line for line in log_of(run).splitlines() if "in every voxel of the validation" in line]
        assert len(lines) == 1
        assert "output channel 0 was 0 in every voxel" in lines[0]
        assert "the end of the range [0, inf) of relu" in lines[0]

    def test_a_loss_of_ours_with_upstreams_softmax_stops_before_training(self, runs: Traps) -> None:
        trap = runs.new()
        changes = {
            "model": {"is_segmentation": ..., "final_sigmoid": False},
            "loss": {"name": "HuberLoss"},
            "eval_metric": {"name": "MSE"},
        }
        assert "P3D101" in stopped_with(trap.train(changes), "ConfigError")


_NO_CHANNEL_AXIS: dict[str, Any] = {
    "loaders": {
        "batch_size": 2,
        "train": {"transformer": {"label": [{"name": "ToTensor", "expand_dims": False}]}},
    },
    "trainer": {"skip_train_validation": True, "validate_after_iters": 1000},
}


class TestPictures:
    @staticmethod
    def drawn(run: Run) -> dict[str, np.ndarray]:
        import io

        from PIL import Image
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (events,) = run.left.directory.glob("checkpoints/logs/**/events*")
        accumulator = EventAccumulator(str(events), size_guidance={"images": 0})
        accumulator.Reload()
        return {
            tag: np.asarray(Image.open(io.BytesIO(accumulator.Images(tag)[-1].encoded_image_string)).convert("RGB"))
            for tag in accumulator.Tags()["images"]
        }

    def test_upstream_alone_draws_an_argmax(self, traps: Traps) -> None:
        trap = traps.new()
        with_two_channels(trap)
        drawn = self.drawn(trap.train({"model": {"out_channels": 2}}, iterations=2).succeeded())
        # the second channel is the larger one everywhere: one colour
        assert len(np.unique(drawn["val_0_targets/batch_0/slice_2"].reshape(-1, 3), axis=0)) == 1

    def test_every_channel_on_one_scale_with_its_error(self, runs: Traps) -> None:
        trap = runs.new()
        with_two_channels(trap)
        changes = merged(OURS, {"model": {"out_channels": 2}, "trainer": {"log_after_iters": 2}})
        run = trap.train(changes, iterations=2).succeeded()
        drawn = self.drawn(run)
        kinds = ["targets", "predictions", "errors"]
        tags = {f"{kind}/batch_0/channel_{channel}/slice_2" for kind in kinds for channel in (0, 1)}
        for prefix in ("val_0_", "train_"):
            assert {f"{prefix}{tag}" for tag in (*tags, "inputs/batch_0/slice_2")} <= drawn.keys()
        assert not [tag for tag in drawn if re.search(r"(targets|predictions)/batch_0/slice", tag)]
        output, label = (tensor[0, 1, 2].numpy() for tensor in compared(run))
        low, width = label.min(), np.ptp(label)
        wanted = {
            "targets": (label - low) / width,
            "predictions": (output - low) / width,
            "errors": 0.5 + (output - label) / width / 2,
        }
        for kind, picture in wanted.items():
            image = drawn[f"val_0_{kind}/batch_0/channel_1/slice_2"]
            np.testing.assert_allclose(image[..., 0], 255 * np.clip(picture, 0, 1), atol=1.01)

    def test_masked_voxels_are_no_error(self, runs: Traps) -> None:
        trap = runs.new()
        hide(trap, math.nan)
        run = trap.train(
            merged(OURS, {"loss": {"name": "MSELoss", "ignore_index": math.nan}}), iterations=2
        ).succeeded()
        drawn = self.drawn(run)
        with h5py.File(trap.directory / "val.h5") as file:
            hidden = np.isnan(file["label"][2])
        assert set(drawn["val_0_targets/batch_0/slice_2"][hidden].ravel()) == {0}
        assert set(drawn["val_0_errors/batch_0/slice_2"][hidden].ravel()) <= {127, 128}

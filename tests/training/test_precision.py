"""``trainer.precision``: layers in half precision, and predictions that are not rounded to it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from p3d_regression.checks.run import check_file
from p3d_regression.errors import ConfigError
from p3d_regression.model.precision import PRECISIONS, slow_reason
from p3d_regression.training import monitor, precision
from support import together
from support.checks import Silent
from support.lab import training_config, write_config, write_volumes


def trained(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch, **trainer: Any) -> tuple[dict[str, Any], Any]:
    model = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}
    config = training_config(directory, model, iterations=4)
    config["eval_metric"] = {"name": "R2Score"}
    config["optimizer"]["learning_rate"] = 0.001
    del config["trainer"]["eval_score_higher_is_better"]
    config["trainer"] |= {"checkpoint_dir": str(directory / name), **trainer}
    seen: list[Any] = []
    watch = monitor.watch
    monkeypatch.setattr(monitor, "watch", lambda trainer, *rest: (seen.append(trainer), watch(trainer, *rest)))
    # oneDNN's bfloat16 gradients of some convolutions are NaN now and then (torch 2.14 on AMD EPYC with one thread)
    with torch.backends.mkldnn.flags(enabled=False):
        found = together.train(write_config(directory / f"{name}.yml", config))
    monkeypatch.undo()
    return found, seen[0]


def test_is_as_good_as_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # labels far from 0: rounded to bfloat16 they would be 4 apart
    write_volumes(tmp_path, labels=(1000.0, 1040.0))
    full, _ = trained(tmp_path, "full", monkeypatch)
    half, trainer = trained(tmp_path, "half", monkeypatch, precision="bf16-mixed")
    assert half["weights"] != full["weights"]
    assert half["val score"][-1] == pytest.approx(full["val score"][-1], abs=0.05)
    layers: dict[str, torch.dtype] = {}
    first = next(module for module in trainer.model.modules() if isinstance(module, torch.nn.Conv3d))
    for name, module in (("first", first), ("last", trainer.model.final_conv)):
        module.register_forward_hook(lambda _, inputs, output, name=name: layers.update({name: output.dtype}))
    raw, label = next(iter(trainer.loaders["val"]))
    output, loss = trainer._forward_pass(raw, label)
    assert layers == {"first": torch.bfloat16, "last": torch.float32}
    assert output.dtype == loss.dtype == torch.float32
    assert len(output.unique()) > 1000
    state = torch.load(tmp_path / "half" / "last_checkpoint.pytorch", weights_only=True)["model_state_dict"]
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize("value", [32, "32"])
def test_float32_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    write_volumes(tmp_path)
    alone, _ = trained(tmp_path, "alone", monkeypatch)
    named, _ = trained(tmp_path, "named", monkeypatch, precision=value)
    assert named == alone


@pytest.mark.parametrize(
    ("value", "device", "message"),
    [
        ("fp16", "cpu", "'fp16' is not one of 32, bf16-mixed, 16-mixed"),
        (True, "cpu", "True is not one of"),
        (16, "cuda", "16 is not one of"),
        ("16-mixed", "cpu", "needs a CUDA GPU, and device is cpu"),
    ],
)
def test_what_cannot_be_used(value: object, device: str, message: str) -> None:
    config: dict[str, Any] = {"device": device, "trainer": {"precision": value}}
    with pytest.raises(ConfigError, match=message) as raised:
        precision.precision_of(config)
    fixed = raised.value.found.fix.applied_to(config)
    assert precision.precision_of(fixed) in PRECISIONS


def test_a_processor_without_fast_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda: False, raising=False)
    assert slow_reason("bf16-mixed", "cpu", precision.PLACE) == (
        "trainer.precision: this processor has no instructions for bfloat16; 32 is faster"
    )
    for section, place in (("trainer", "trainer.precision"), ("predictor", "predictor.precision")):
        text = f"model_path: a\nloaders: {{test: {{}}}}\ndevice: cpu\n{section}: {{precision: bf16-mixed}}\n"
        report = check_file("t.yml", [], [], with_data=False, progress=Silent(), text=text)
        assert f"{place}: this processor has no instructions for bfloat16; 32 is faster" in report.notes
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert slow_reason("bf16-mixed", "cpu", precision.PLACE) is None

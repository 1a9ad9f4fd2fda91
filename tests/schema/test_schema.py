"""The JSON Schema: it takes what is right, and nothing that pytorch-3dunet would ignore."""

import copy
import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from p3d_regression.checks.rule import Rule
from p3d_regression.cli.main import main
from p3d_regression.demo.jobs import JOBS
from p3d_regression.demo.training import Run
from p3d_regression.schema.build import schema
from support.lab import prediction_config, training_config
from support.rules import OWN, config_of

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yml"))

SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def errors(config: Any) -> list[str]:
    # as an editor sees it
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(json.loads(json.dumps(config)))]


def test_it_is_a_schema_and_the_command_prints_it() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    printed = CliRunner().invoke(main, ["schema"])
    assert json.loads(printed.stdout) == SCHEMA


def test_examples_with_the_tool_of_others(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    script = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    assert EXAMPLES
    run = subprocess.run([script, "--schemafile", tmp_path / "s.json", *EXAMPLES], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("job", JOBS)
def test_configs_of_the_demo(tmp_path: Path, job: str) -> None:
    for text in Run(JOBS[job], tmp_path, tmp_path, 10).configs().values():
        assert errors(yaml.safe_load(text)) == []


VALUES: list[dict[str, Any]] = [
    {"final_activation": "Leaky ReLU"},
    {"final_activation": None},
    {"final_activation": {"name": "bounded", "low": 0, "high": 70}, "target_scaling": "none"},
    {"final_activation": ["sigmoid", {"name": "softplus", "beta": 2}], "target_scaling": [None, "standardize"]},
    {"final_activation": "none", "target_scaling": {"mean": [1, 2.5], "std": 3}},
    {"final_activation": "none", "target_scaling": {"name": "residual", "in_channel": 1}},
    {"f_maps": 32, "num_levels": 3, "layer_order": "cr"},
]


@pytest.mark.parametrize("model", VALUES, ids=str)
def test_values_that_a_model_takes(tmp_path: Path, model: dict[str, Any]) -> None:
    assert errors(training_config(tmp_path, {"name": "UNet3D", **model})) == []


SECTIONS: list[tuple[str, Any]] = [
    ("loss", {"name": "huber_loss", "delta": 2.0, "ignore_index": -1}),
    ("loss", {"name": "channelwise", "channels": [{"name": "BCELoss"}, "L1Loss", {"name": "MSE", "weight": 0.1}]}),
    ("loss", {"name": "CrossEntropyLoss", "weight": [0.1, 0.9], "ignore_index": 0}),
    ("eval_metric", {"name": "PSNR", "data_range": 255}),
    ("eval_metric", {"name": "SSIM", "data_range": 1.0, "sigma": [0.5, 1.5, 1.5]}),
    ("eval_metric", {"name": "BoundaryAdaptedRandError", "thresholds": [0.4], "use_first_input": True}),
    ("lr_scheduler", None),
    ("lr_scheduler", {"name": "CosineAnnealingLR", "T_max": 100, "step_per": "iteration"}),
    ("optimizer", {"name": "SGD", "learning_rate": 0.1, "momentum": 0.9}),
]


@pytest.mark.parametrize(("section", "value"), SECTIONS, ids=str)
def test_sections_that_are_right(tmp_path: Path, section: str, value: Any) -> None:
    assert errors({**training_config(tmp_path, {"name": "UNet3D"}), section: value}) == []


def test_predictions_that_are_right(tmp_path: Path) -> None:
    for more in (
        {"blend": "Gaussian", "tta": "flips", "resume": True, "compression": "lzf"},
        {"output": "zarr", "precision": "bf16-mixed", "ensemble": ["a.pytorch", "b.pytorch"]},
        {"tta": {"name": "rotations", "directions": {"z": 0, "y": 1, "x": 2}}},
        {"performance_metric": "R2Score", "gt_internal_path": "label"},
    ):
        config = prediction_config(tmp_path, {"name": "UNet3D"})
        config["predictor"] |= more
        assert errors(config) == [], more


#: Good examples about something else, with keys of other versions or programs in them.
OF_OTHERS = {"P3D131"}


@pytest.mark.parametrize("rule", [rule for rule in OWN if rule.code not in OF_OTHERS], ids=lambda rule: rule.code)
def test_what_the_rules_advise(tmp_path: Path, rule: Rule) -> None:
    assert errors(config_of(rule, rule.good, tmp_path)) == []


def _keys(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield (*path, key)
            yield from _keys(value, (*path, key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from _keys(value, (*path, index))


def _misspelled(config: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    key = path[-1]
    place[key[:1] + key[2:]] = place.pop(key)
    return changed


def test_misspelled_keys_are_refused(tmp_path: Path) -> None:
    train = yaml.safe_load((EXAMPLES[0].parent / "distance.yml").read_text())
    predict = prediction_config(tmp_path, {"name": "UNet3D"})
    predict["predictor"] |= {"blend": "gaussian", "tta": {"name": "flips", "directions": {"z": 0}}}
    accepted, count = [], 0
    for config in (train, predict):
        assert errors(config) == []
        for path in _keys(config):
            if len(path[-1]) > 2:
                count += 1
                if not errors(_misspelled(config, path)):
                    accepted.append(path)
    assert count >= 60
    assert accepted == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.name", "UNet3d"),
        ("model.final_activation", "sofplus"),
        ("model.final_activation", {"name": "bounded", "low": 0, "heigh": 7}),
        ("model.target_scaling", "standardise"),
        ("model.is_segmentation", "false"),
        ("loss.name", "MSLoss"),
        ("eval_metric.name", "R2Scor"),
        ("optimizer.name", "adamw"),
        ("lr_scheduler.name", "ReduceLROnPlato"),
        ("trainer.validate_after_iters", "500"),
        ("loaders.dataset", "StandardHDF5"),
        ("loaders.train.file_paths", "train.h5"),
        ("loaders.train.slice_builder.name", "SliceBulder"),
        ("loaders.train.slice_builder.patch_shape", [64, 64]),
        ("loaders.train.transformer.raw", [{"name": "Standardise"}]),
        ("loaders.train.transformer.raw", [{"name": "Standardize", "mena": 0.0}]),
    ],
)
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    config = yaml.safe_load((EXAMPLES[0].parent / "distance.yml").read_text())
    place = config
    *sections, last = key.split(".")
    for section in sections:
        place = place[section]
    place[last] = value
    assert errors(config)


def test_completions_of_the_language_server(tmp_path: Path) -> None:
    program = shutil.which("yaml-language-server")
    if program is None:
        pytest.skip("yaml-language-server is not installed")
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    text = "# yaml-language-server: $schema=s.json\nmodel:\n  name: UNet3D\n  fin\n"
    uri = (tmp_path / "train.yml").as_uri()

    def message(**content: Any) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", **content}).encode()
        return f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    with subprocess.Popen([program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        capabilities = {"textDocument": {"completion": {"completionItem": {"snippetSupport": False}}}}
        ask = {"id": 1, "method": "initialize", "params": {"rootUri": tmp_path.as_uri(), "capabilities": capabilities}}
        server.stdin.write(message(**ask))
        server.stdin.write(message(method="initialized", params={}))
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        server.stdin.write(message(method="textDocument/didOpen", params={"textDocument": document}))
        place = {"textDocument": {"uri": uri}, "position": {"line": 3, "character": 5}}
        server.stdin.write(message(id=2, method="textDocument/completion", params=place))
        server.stdin.flush()
        try:
            while True:
                length = 0
                while (line := server.stdout.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                found = json.loads(server.stdout.read(length))
                if "id" in found and "method" in found:
                    reply = [{}] * len(found["params"].get("items", [])) if found["params"] else None
                    server.stdin.write(message(id=found["id"], result=reply))
                    server.stdin.flush()
                if found.get("id") == 2 and "result" in found:
                    break
        finally:
            server.kill()
    labels = [item["label"] for item in found["result"]["items"]]
    assert "final_activation" in labels

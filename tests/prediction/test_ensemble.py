"""Ensembles of checkpoints, against what their networks predict one by one."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.datasets.utils import get_test_loaders
from pytorch3dunet.predict import get_predictor
from pytorch3dunet.unet3d.utils import load_checkpoint

from p3d_regression import ConfigError
from p3d_regression.prediction.ensemble import Combined, members_of
from p3d_regression.prediction.orientations import orientations_of
from support.volumes import RAW, config_of, net, section_of, write_checkpoint, write_volume

PATCH = [8, 16, 16]


def config_for(directory: Path, paths: list[Path], section: dict[str, Any], **predictor: Any) -> dict[str, Any]:
    config = config_of(directory / "volume.h5", PATCH, PATCH, [0, 0, 0], output_dir=str(directory))
    config["model"], config["model_path"] = section, str(paths[0])
    names = [str(path) for path in paths]
    return {**config, "predictor": {"name": "StandardPredictor", "ensemble": names, **predictor}}


def predicted(config: dict[str, Any], model: Any) -> dict[str, Any]:
    predictor = get_predictor(model, config)
    for loader in get_test_loaders(config):
        predictor(loader)
    with h5py.File(Path(config["loaders"]["output_dir"]) / "volume_predictions.h5") as file:
        return {name: (file[name][()], dict(file[name].attrs)) for name in file}


def alone(models: list[Any], raw: np.ndarray) -> list[np.ndarray]:
    seen = torch.from_numpy((raw - 0.5) / 2)[None, None]
    with torch.no_grad():
        return [model(seen)[0].double().numpy() for model in models]


def test_members_keep_their_own_activation_scaling_and_network(tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "volume.h5", tuple(PATCH))
    sections = [
        section_of(1),
        section_of(1, final_activation={"name": "lower_bounded", "low": 2.0}, f_maps=[6, 12], num_groups=3),
        section_of(1, target_scaling={"mean": 20.0, "std": 5.0}),
    ]
    paths = [tmp_path / name / "best_checkpoint.pytorch" for name in "abc"]
    models = [write_checkpoint(*each) for each in zip(paths, sections, range(3), strict=True)]
    found = predicted(config_for(tmp_path, paths, sections[0]), models[0])
    outputs = alone(models, raw)
    assert outputs[1].min() > 2
    assert outputs[2].mean() > 10
    np.testing.assert_allclose(found["predictions"][0], np.mean(outputs, 0), rtol=1e-5)
    np.testing.assert_allclose(found["spread"][0], np.std(outputs, 0), rtol=1e-5)
    assert all(str(path) in found["predictions"][1]["checkpoints"] for path in paths)


def test_total_variance_of_mean_and_variance_heads(tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "volume.h5", tuple(PATCH))
    section = section_of(2, final_activation=["none", "softplus"])
    paths = [tmp_path / name / "best_checkpoint.pytorch" for name in "abc"]
    models = [
        write_checkpoint(path, section, seed, loss={"name": "GaussianNLLLoss"}) for seed, path in enumerate(paths)
    ]
    values, attributes = predicted(config_for(tmp_path, paths, section), models[0])["predictions"]
    outputs = np.stack(alone(models, raw))
    means, variances = outputs[:, 0], outputs[:, 1]
    assert list(attributes["channel_names"]) == ["mean", "variance"]
    np.testing.assert_allclose(values[0], means.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values[1], variances.mean(0) + means.var(0), rtol=1e-5)
    one = config_for(tmp_path, paths, section, prediction_channel=1)
    np.testing.assert_array_equal(predicted(one, models[0])["predictions"][0], values[1:])
    assert list(predicted(one, models[0])["predictions"][1]["channel_names"]) == ["variance"]


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, self.value)

    networks = [Constant(10_000 + step) for step in (0, 1, 2)]
    combined = Combined(networks, orientations_of(None, PATCH, None), is_2d=[False] * 3)
    mean, spread = combined(torch.zeros(1, 1, 2, 2, 2))
    assert mean.unique().tolist() == [10_001]
    assert spread is not None
    np.testing.assert_allclose(spread.numpy(), 2 / 3, rtol=1e-6)


def test_the_command_loads_each_member_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("volume", "other"):
        write_volume(tmp_path / f"{name}.h5", tuple(PATCH))
    paths = [tmp_path / name / "best_checkpoint.pytorch" for name in "ab"]
    models = [write_checkpoint(path, section_of(1), seed) for seed, path in enumerate(paths)]
    config = config_for(tmp_path, paths, section_of(1))
    config["loaders"]["test"]["file_paths"].append(str(tmp_path / "other.h5"))
    loaded = []
    monkeypatch.setattr(
        "pytorch3dunet.unet3d.utils.load_checkpoint",
        lambda path, model, **more: (loaded.append(path), load_checkpoint(path, model, **more)),
    )
    predicted(config, models[0])
    assert loaded == [str(paths[1])]
    assert (tmp_path / "other_predictions.h5").is_file()


class TestMembersThatDoNotFit:
    @pytest.mark.parametrize(
        ("other", "training", "message"),
        [
            (section_of(2), {}, r"differ in model\.out_channels"),
            (
                section_of(1),
                {"val": {"transformer": {"raw": RAW[1:], "label": RAW[1:]}}},
                "differ in the transforms of the raw volume",
            ),
            (
                section_of(1),
                {"val": {"transformer": {"raw": RAW, "label": RAW}}},
                "differ in the transforms of the labels, so that its unit is another one",
            ),
        ],
    )
    def test_another_output_or_input(
        self, other: dict[str, Any], training: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        paths = [tmp_path / name / "best_checkpoint.pytorch" for name in "ab"]
        write_checkpoint(paths[0], section_of(1), 0)
        more = {"loaders": {"train": training["val"], **training}} if training else {}
        write_checkpoint(paths[1], other, 1, **more)
        config = config_for(tmp_path, paths, section_of(1))
        with pytest.raises(ConfigError, match=rf"^predictor\.ensemble\[1\]: .*{message}"):
            members_of(config, config["predictor"]["ensemble"])

    def test_names(self, tmp_path: Path) -> None:
        paths = [tmp_path / name / "best_checkpoint.pytorch" for name in "ab"]
        for seed, path in enumerate(paths):
            write_checkpoint(path, section_of(1), seed)
        a, b = map(str, paths)
        config: dict[str, Any] = {"model": section_of(1), "model_path": a}
        with pytest.raises(ConfigError, match=r"^model_path: .* is not a member of the ensemble") as caught:
            members_of(config, [b])
        assert len(members_of(caught.value.found.fix.applied_to(config), [b])) == 1
        with pytest.raises(ConfigError, match=r"ensemble\[1\]: .* is named twice") as caught:
            members_of(config, [a, a])
        assert caught.value.found.fix.applied_to({})["predictor"]["ensemble"] == [a]
        with pytest.raises(ConfigError, match=r"ensemble\[1\]: .*no\.pytorch does not exist"):
            members_of(config, [a, str(tmp_path / "no.pytorch")])
        (tmp_path / "text.pytorch").write_text("text")
        with pytest.raises(ConfigError, match=r"ensemble\[1\]: .*text\.pytorch cannot be read as a checkpoint"):
            members_of(config, [a, str(tmp_path / "text.pytorch")])


def test_without_a_contract_the_networks_are_those_of_the_config(tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "volume.h5", tuple(PATCH))
    models = [net(1, seed=seed) for seed in range(2)]
    paths = [tmp_path / f"{seed}.pytorch" for seed in range(2)]
    for model, path in zip(models, paths, strict=True):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save({"model_state_dict": weights}, path)
    found = predicted(config_for(tmp_path, paths, section_of(1)), models[0])
    np.testing.assert_allclose(found["predictions"][0], np.mean(alone(models, raw), 0), atol=1e-6)

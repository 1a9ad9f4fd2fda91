"""Each decision alone: from what volumes hold to lines of a config."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from p3d_regression.conversion.pairing import Pair, _neutral, find, role
from p3d_regression.conversion.source import Source
from p3d_regression.errors import VolumesError
from p3d_regression.fix import delete, write
from p3d_regression.planning import decisions
from p3d_regression.planning.decisions import Facts, Files
from p3d_regression.planning.fingerprint import Fingerprint, look, measure
from p3d_regression.planning.layout import split
from p3d_regression.planning.machine import Machine
from p3d_regression.planning.plan import Line, Plan
from p3d_regression.planning.size import choose
from p3d_regression.planning.task import task_of
from support.datasets import noise, texture

GPU = Machine("cuda", 16 * 2**30, 64 * 2**30, 4, has_bf16=True)
CPU = Machine("cpu", 8 * 2**30, 16 * 2**30, 1)

SHAPE = (8, 128, 128)


def of(directory: Path, raw: np.ndarray, label: np.ndarray, *, spacing: Any = None, volumes: int = 1) -> Fingerprint:
    """The fingerprint of volumes with these values."""
    pairs = []
    for number in range(volumes):
        np.save(directory / f"raw_{number}.npy", raw)
        np.save(directory / f"label_{number}.npy", label)
        files = [(Source(directory / f"{kind}_{number}.npy"),) for kind in ("raw", "label")]
        pairs.append(Pair(str(number), *files))
    found = measure(look(pairs), lambda voxels: None)
    for info in found.volumes:
        object.__setattr__(info, "spacing", spacing)
    return found


def facts(found: Fingerprint, task: str | None = None, machine: Machine = CPU, **more: Any) -> Facts:
    decided = task_of(found, task)
    size = choose(found, machine, found.smallest, decisions.outputs_of(found, decided))
    shapes = [info.shape for info in found.volumes]
    files = Files(["a"], ["b"], ["b"], shapes, "raw", "label", "StandardHDF5Dataset", "", "", "")
    return Facts(found, decided, size, machine, files, **more)


def config(known: Facts) -> dict[str, Any]:
    return Plan(decisions.training(known)).config


STRUCTURE = texture(0, SHAPE)

#: Labels, the task that they are for, and lines that follow: made of a raw volume of mean 100 and std 20.
LABELS: dict[str, tuple[np.ndarray, str | None, dict[str, Any]]] = {
    "any value": (5 * np.sin(3 * STRUCTURE) - 3, None, {"final_activation": "none", "target_scaling": "standardize"}),
    "0 and above": (5 * np.maximum(np.sin(3 * STRUCTURE), 0), None, {"final_activation": "softplus"}),
    "above 0": (10 + 5 * np.sin(3 * STRUCTURE), None, {"final_activation": "none", "target_scaling": "standardize"}),
    "far above 0": (1000 + np.sin(3 * STRUCTURE), None, {"final_activation": "none"}),
    "0 to 1": (np.clip(2 * np.sin(3 * STRUCTURE), -1, 1) / 2 + 0.5, None, {"final_activation": "sigmoid"}),
    "counts": (np.random.default_rng(0).poisson(1.0, SHAPE), "counts", {"final_activation": "softplus"}),
    "the raw volume without noise": (100 + 20 * STRUCTURE, "denoise", {"target_scaling": "residual"}),
    "a function of the brightness": (3 * STRUCTURE - 7, None, {"target_scaling": "residual"}),
    "directions": (
        np.stack([np.sin(9 * STRUCTURE), np.cos(9 * STRUCTURE)]),
        "vectors",
        {"final_activation": "unit_vector"},
    ),
    "displacements": (
        np.stack([noise(0, SHAPE), 3 * noise(1, SHAPE), noise(2, SHAPE)]),
        "vectors",
        {"final_activation": "none", "out_channels": 3},
    ),
    "a mask": ((STRUCTURE > 0).astype(np.uint8), None, {"final_activation": "sigmoid"}),
    "mask and distance": (
        np.stack([STRUCTURE > 0, np.maximum(STRUCTURE, 0)]).astype(np.float32),
        "mask+distance",
        {"final_activation": ["sigmoid", "softplus"], "target_scaling": ["none", "standardize"]},
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_decide_the_last_layer(tmp_path: Path, name: str) -> None:
    label, task, lines = LABELS[name]
    found = of(tmp_path, 100 + 20 * STRUCTURE + 0.1 * noise(5, SHAPE), label)
    known = facts(found)
    assert known.task.kind == task
    model = config(known)["model"]
    assert {key: model.get(key) for key in lines} == lines


def test_augmentation_of_vectors_is_left_out(tmp_path: Path) -> None:
    for name, flips in (("displacements", False), ("any value", True)):
        known = facts(of(tmp_path, STRUCTURE, LABELS[name][0]))
        steps = config(known)["loaders"]["train"]["transformer"]["label"]
        assert any(step["name"] == "RandomFlip" for step in steps) == flips, name


def test_channels_that_are_not_alike_have_losses_of_their_own(tmp_path: Path) -> None:
    label = np.stack([np.sin(3 * STRUCTURE) - 5, 100 * np.cos(3 * STRUCTURE) - 300])
    loss = config(facts(of(tmp_path, STRUCTURE, label)))["loss"]
    first, second = np.var(label, axis=(1, 2, 3))
    assert loss["name"] == "channelwise"
    weights = [entry["weight"] for entry in loss["channels"]]
    np.testing.assert_allclose(weights[0] / weights[1], second / first, rtol=0.01)
    alike = np.stack([label[0], 2 * label[0]])
    assert config(facts(of(tmp_path, STRUCTURE, alike)))["loss"] == {"name": "MSELoss"}


def test_outliers_and_missing_labels(tmp_path: Path) -> None:
    label = noise(0, SHAPE)
    label[0, 0, :8] = 300
    assert config(facts(of(tmp_path, STRUCTURE, label)))["loss"]["name"] == "HuberLoss"
    label = noise(0, SHAPE)
    label[:2] = np.nan
    loss = config(facts(of(tmp_path, STRUCTURE, label)))["loss"]
    assert math.isnan(loss["ignore_index"])
    label[2:] = np.abs(label[2:])
    label[:2] = -9999
    known = facts(of(tmp_path, STRUCTURE, label))
    assert config(known)["loss"] == {"name": "MSELoss", "ignore_index": -9999}
    # it decides nothing else
    assert config(known)["model"]["final_activation"] == "softplus"
    (values,) = known.labels
    moments = (values.moments.mean, values.moments.std, values.moments.low)
    np.testing.assert_allclose(moments, (label[2:].mean(), label[2:].std(), label[2:].min()), rtol=1e-3, atol=1e-6)


def test_raw_channels_of_different_size_have_numbers_of_their_own(tmp_path: Path) -> None:
    from pytorch3dunet.augment.transforms import Standardize

    raw = np.stack([1000 + 200 * STRUCTURE, 0.1 + 0.02 * STRUCTURE])
    (step,) = decisions.normalisation(of(tmp_path, raw, noise(0, SHAPE)))
    seen = Standardize(**{key: value for key, value in step.items() if key != "name"})(raw)
    np.testing.assert_allclose(seen.mean(axis=(1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std(axis=(1, 2, 3)), 1, atol=1e-3)
    # a whole number would be subtracted in the type of an integer volume
    (step,) = decisions.normalisation(of(tmp_path, np.full(SHAPE, 100) + 10 * (noise(0, SHAPE) > 0), noise(0, SHAPE)))
    assert isinstance(step["mean"], float)
    assert isinstance(step["std"], float)


@pytest.mark.parametrize(
    ("smallest", "spacing", "machine", "patch", "levels"),
    [
        ((200, 400, 400), (1, 1, 1), GPU, (128, 128, 128), 4),
        ((200, 400, 400), (5, 1, 1), GPU, (52, 256, 256), 4),
        ((12, 400, 400), (1, 1, 1), GPU, (12, 400, 400), 3),
        ((1, 100, 130), None, GPU, (1, 96, 128), 4),
        ((40, 50, 400), (1, 1, 1), CPU, (40, 50, 64), 3),
        ((200, 400, 400), (1, 1, 1), CPU, (64, 64, 64), 3),
    ],
    ids=str,
)
def test_patches_are_cubes_in_space_that_fit(
    tmp_path: Path, smallest: Any, spacing: Any, machine: Machine, patch: Any, levels: int
) -> None:
    found = of(tmp_path, STRUCTURE, noise(0, SHAPE), spacing=spacing)
    size = choose(found, machine, smallest, 1)
    assert all(p <= n for p, n in zip(size.patch, smallest, strict=True))
    assert (size.patch, len(size.f_maps)) == (patch, levels)
    assert size.memory <= machine.memory
    assert size.is_small == (min(size.patch[1:]) < 64)


def test_memory_bounds_the_patch(tmp_path: Path) -> None:
    found = of(tmp_path, STRUCTURE, noise(0, SHAPE))
    sizes = [choose(found, Machine("cuda", n * 2**30, 2**36, 4), (500, 500, 500), 1) for n in (2, 8, 40)]
    voxels = [math.prod(size.patch) for size in sizes]
    assert voxels == sorted(set(voxels))
    assert [size.memory <= n * 2**30 for size, n in zip(sizes, (2, 8, 40), strict=True)] == [True] * 3
    assert "2 GiB" in sizes[0].limit


def test_iterations_fit_the_patches(tmp_path: Path) -> None:
    known = facts(of(tmp_path, STRUCTURE, noise(0, SHAPE)))
    trainer = config(known)["trainer"]
    assert trainer["max_num_iterations"] == 1000
    assert 10 <= trainer["validate_after_iters"] <= 250
    trainer = config(facts(known.found, iterations=20))["trainer"]
    assert trainer["max_num_iterations"] == 20
    assert trainer["validate_after_iters"] <= 5
    assert config(facts(known.found, machine=GPU))["trainer"]["precision"] == "bf16-mixed"


def test_a_task_that_is_asked_for(tmp_path: Path) -> None:
    found = of(tmp_path, 100 + 20 * STRUCTURE + noise(5, SHAPE), 100 + 20 * STRUCTURE)
    known = facts(found, "mean+variance")
    assert config(known)["model"]["final_activation"] == ["none", "softplus"]
    assert config(known)["model"]["target_scaling"] == ["residual", "standardize"]
    assert config(known)["loss"]["name"] == "GaussianNLLLoss"
    with pytest.raises(VolumesError, match=r"needs labels of several channels"):
        task_of(found, "mask+distance")
    unrelated = of(tmp_path, STRUCTURE, noise(1, SHAPE))
    with pytest.raises(VolumesError, match=r"Are the right files paired\?"):
        task_of(unrelated, "denoise")


def test_volumes_are_divided_and_none_is_in_two_phases(tmp_path: Path) -> None:
    for n in (2, 3, 5, 12):
        found = split(of(tmp_path, STRUCTURE, noise(0, SHAPE), volumes=n).volumes)
        names = {phase: [p.name for p in found.parts if p.phase == phase] for phase in ("train", "val", "test")}
        assert sum(map(len, names.values())) == n
        assert names["train"]
        assert names["val"]
        assert bool(names["test"]) == (n >= 5)
        assert [part.name for part in found.of("test")] == (names["test"] or names["val"])


@pytest.mark.parametrize("shape", [(96, 64, 64), (12, 144, 70), (8, 70, 130)], ids=str)
def test_one_volume_is_cut_into_blocks_that_share_no_voxel(tmp_path: Path, shape: Any) -> None:
    found = split(of(tmp_path, np.zeros(shape), np.ones(shape)).volumes)
    train, val = found.parts
    assert train.box is not None
    assert val.box is not None
    apart = [a.stop <= b.start for a, b in zip(train.box, val.box, strict=True)]
    assert sum(apart) == 1
    assert min(train.shape[1:] + val.shape[1:]) >= 64
    assert "one volume: two blocks along" in found.why


def test_a_volume_that_is_too_small_to_be_cut(tmp_path: Path) -> None:
    with pytest.raises(VolumesError, match=r"too small to be divided .* Add a volume"):
        split(of(tmp_path, np.zeros((8, 100, 100)), np.ones((8, 100, 100))).volumes)


def test_a_plan_is_its_config_and_takes_fixes() -> None:
    plan = Plan(
        [
            Line("model.name", "UNet3D", "standard"),
            Line("loaders.train.transformer.raw", [{"name": "Standardize", "mean": 1.0}, {"name": "ToTensor"}]),
            Line("loss.ignore_index", math.nan, "NaN"),
            Line("trainer.list", [f"a/long/path/{n:030d}" for n in range(4)]),
        ]
    )
    text = plan.text("a\nb")
    np.testing.assert_equal(yaml.safe_load(text), plan.config)
    assert text.startswith("# a\n# b\nmodel:\n  name: UNet3D  # standard\n")
    plan.apply(
        write("loaders.train.transformer.raw[0].mean", 2.0)
        + write("model.target_scaling", "residual")
        + delete("loss.ignore_index"),
        "P3D1: because",
    )
    changed = yaml.safe_load(plan.text(""))
    assert changed["loaders"]["train"]["transformer"]["raw"][0] == {"name": "Standardize", "mean": 2.0}
    assert changed["model"] == {"name": "UNet3D", "target_scaling": "residual"}
    assert "ignore_index" not in str(changed)
    assert "# P3D1: because" in plan.text("")


def test_roles_and_names() -> None:
    assert [role(name) for name in ("imagesTr", "labelsTs", "raw_3", "a_gt", "noisy", "GT", "cell")] == [
        "raw",
        None,
        "raw",
        "label",
        "raw",
        "label",
        None,
    ]
    assert _neutral("cell_07_gt") == _neutral("raw-cell_07") == "cell_07"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], "no volumes are found"),
        (["a.npy", "b.npy"], "no labels are found among a.npy, b.npy"),
        (["raw/a.npy", "label/b.npy", "raw/c.npy"], "no raw volume and no label have the same name"),
    ],
)
def test_what_is_not_paired_says_what_to_do(tmp_path: Path, files: list[str], text: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.zeros((4, 5, 6)))
    with pytest.raises(VolumesError, match=text):
        find([tmp_path])


def test_words_of_roles_belong_to_names_that_are_the_same(tmp_path: Path) -> None:
    for folder in ("raw", "label", "mask"):
        (tmp_path / folder).mkdir()
        for name in ("a_x", "a_y"):
            np.save(tmp_path / folder / f"{name}.npy", np.zeros((4, 5, 6)))
    found = find([tmp_path])
    assert [(pair.name, [s.path.parent.name for s in pair.label]) for pair in found.pairs] == [
        ("a_x", ["label"]),
        ("a_y", ["label"]),
    ]
    # a folder of labels is there, so that masks are something else
    assert "mask" in found.notes[0]


def test_decisions_give_a_reason_where_there_is_a_choice(tmp_path: Path) -> None:
    lines = decisions.training(facts(of(tmp_path, STRUCTURE, noise(0, SHAPE))))
    assert len({line.key for line in lines}) == len(lines)
    plain = {line.key.rpartition(".")[2] for line in lines if not line.why}
    assert plain <= {"name", "factor", "checkpoint_dir", "log_after_iters", "file_paths", "label", "dataset"}

"""Streaming statistics against numpy on the whole volume."""

import math
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from p3d_regression.labels import scan as labels_module
from p3d_regression.labels.moments import Block, Moments, Weights
from p3d_regression.labels.scan import Statistics, Volume, VolumeError, moments_of, scan


def volume_of(data: np.ndarray, patches: Sequence[tuple[slice, ...]], *, voxelwise: bool = True, chunks=None) -> Volume:
    return Volume(
        path="labels.h5",
        patches=patches,
        opened=lambda: nullcontext(data.__getitem__),
        transform=lambda values: values,
        shape=data.shape,
        chunks=chunks,
        voxelwise=voxelwise,
    )


def patches_of(shape: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> list[tuple[slice, ...]]:
    """As upstream's SliceBuilder cuts them: the last one at the border."""
    starts = [
        [*range(0, n - k + 1, s), *([n - k] if (n - k) % s else [])]
        for n, k, s in zip(shape, patch, stride, strict=True)
    ]
    return [tuple(slice(c, c + k) for c, k in zip(corner, patch, strict=True)) for corner in product(*starts)]


def statistics_of(volume: Volume, **options: bool) -> Moments:
    statistics = Statistics()
    scan([volume], [], statistics, lambda voxels: None)
    assert statistics.complete
    (channel,) = statistics.channels
    return channel


def assert_moments(moments: Moments, values: np.ndarray) -> None:
    values = values.astype(np.float64).ravel()
    good = values[np.isfinite(values)]
    assert moments.count == len(values)
    assert moments.nan == np.isnan(values).sum()
    assert moments.inf == np.isinf(values).sum()
    if len(good):
        scale = max(1.0, np.abs(good).max())
        assert moments.mean == pytest.approx(good.mean(), rel=1e-12, abs=1e-12 * scale)
        assert moments.variance == pytest.approx(good.var(), rel=1e-9, abs=1e-12 * scale**2)
        assert (moments.low, moments.high) == (good.min(), good.max())


finite_or_not = st.floats(width=32, allow_nan=True, allow_infinity=True, min_value=None, max_value=None).filter(
    lambda x: not abs(x) > 1e15 or math.isinf(x)
)


class TestMoments:
    @given(
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=finite_or_not),
        st.integers(1, 5),
    )
    def test_merged_from_parts(self, values: np.ndarray, parts: int) -> None:
        moments = Moments()
        for part in np.array_split(values, parts):
            if part.size:
                moments.merge(Moments.of(Block(part, Weights.ones(part.shape))))
        assert_moments(moments, values)

    def test_a_large_mean_does_not_drown_the_variance(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(1e6, 1e-3, (40, 50, 60))
        moments = Moments()
        for part in np.array_split(values, 7):
            moments.merge(Moments.of(Block(part, Weights.ones(part.shape))))
        assert moments.std == pytest.approx(values.std(), rel=1e-6)

    def test_nothing(self) -> None:
        assert math.isnan(Moments().mean)
        assert math.isnan(Moments().std)
        all_nan = Moments.of(Block(np.full((1, 2, 3), np.nan), Weights.ones((1, 2, 3))))
        assert (all_nan.count, all_nan.nan, all_nan.finite) == (6, 6, 0)
        assert math.isnan(all_nan.mean)


SHAPE, PATCH = (7, 11, 13), (3, 4, 5)


class TestScan:
    @pytest.mark.parametrize("stride", [(3, 4, 5), (2, 3, 1), (1, 1, 1), (4, 7, 8)])
    @pytest.mark.parametrize("block", [10, 100, 10**6])
    @pytest.mark.parametrize("chunks", [None, (2, 4, 8), (7, 11, 13)])
    def test_voxels_count_as_often_as_patches_show_them(self, stride, block: int, chunks, monkeypatch) -> None:
        monkeypatch.setattr(labels_module, "_BLOCK", block)
        data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        patches = patches_of(SHAPE, PATCH, stride)
        shown = np.stack([data[patch] for patch in patches])
        for voxelwise in (True, False):
            assert_moments(statistics_of(volume_of(data, patches, voxelwise=voxelwise, chunks=chunks)), shown)

    @pytest.mark.parametrize("voxelwise", [True, False])
    def test_nan_counts_as_often_too(self, voxelwise: bool) -> None:
        data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        data[3, 5, 6], data[0, 0, 0], data[6, 10, 12] = np.nan, np.inf, -np.inf
        patches = patches_of(SHAPE, PATCH, (2, 2, 2))
        shown = np.stack([data[patch] for patch in patches])
        assert_moments(statistics_of(volume_of(data, patches, voxelwise=voxelwise)), shown)

    def test_patches_that_were_filtered(self) -> None:
        data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        patches = patches_of(SHAPE, PATCH, (2, 2, 2))[::3]
        assert_moments(statistics_of(volume_of(data, patches)), np.stack([data[patch] for patch in patches]))

    def test_each_chunk_is_read_once(self, monkeypatch) -> None:
        monkeypatch.setattr(labels_module, "_BLOCK", 64)
        data, reads = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, int)

        def read(part):
            assert all(s.start % c == 0 for s, c in zip(part, (2, 4, 8), strict=True))
            reads[part] += 1
            return data[part]

        patches = patches_of(SHAPE, PATCH, (1, 1, 1))
        volume = Volume("", patches, lambda: nullcontext(read), lambda values: values, SHAPE, (2, 4, 8), voxelwise=True)
        statistics_of(volume)
        assert (reads == 1).all()

    def test_channels(self) -> None:
        data = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
        patches = [(slice(0, 3), *patch) for patch in patches_of(SHAPE, PATCH, PATCH)]
        statistics = Statistics()
        scan([volume_of(data, patches)], [], statistics, lambda voxels: None)
        assert statistics.has_channel_axis
        for channel, moments in enumerate(statistics.channels):
            assert_moments(moments, np.stack([data[patch][channel] for patch in patches]))

    def test_progress_adds_up(self) -> None:
        data = np.zeros(SHAPE, np.float32)
        for voxelwise in (True, False):
            volume = volume_of(data, patches_of(SHAPE, PATCH, (2, 2, 2)), voxelwise=voxelwise)
            ticks: list[int] = []
            scan([volume], [], Statistics(), ticks.append)
            assert sum(ticks) == volume.voxels()

    def test_interrupted_it_keeps_what_it_knows(self) -> None:
        data = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
        statistics = Statistics()
        patches = patches_of(SHAPE, PATCH, PATCH)

        def interrupt(voxels: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scan([volume_of(data, patches, voxelwise=False)], [], statistics, interrupt)
        assert not statistics.complete
        assert_moments(statistics.channels[0], data[patches[0]])

    def test_an_error_while_reading_comes_through(self) -> None:
        def read(part):
            raise OSError("unable to read the chunk")

        one = [(slice(0, 1),) * 3]
        volume = Volume("labels.h5", one, lambda: nullcontext(read), lambda values: values, (1, 1, 1))
        with pytest.raises(VolumeError, match=r"labels\.h5: OSError: unable to read the chunk"):
            scan([volume], [], Statistics(), lambda voxels: None)

    @pytest.mark.parametrize("ends", ["well", "badly", "early"])
    def test_a_file_is_open_while_it_is_read(self, ends: str) -> None:
        data = np.zeros(SHAPE, np.float32)
        events: list[str] = []

        @contextmanager
        def opened():
            events.append("open")
            try:
                yield data.__getitem__
            finally:
                events.append("closed")

        def tick(voxels: int) -> None:
            if ends == "early":
                raise KeyboardInterrupt

        def transform(values):
            if ends == "badly":
                raise ValueError("no")
            return values

        volume = Volume("", patches_of(SHAPE, PATCH, PATCH), opened, transform, SHAPE)
        with nullcontext() if ends == "well" else pytest.raises((VolumeError, KeyboardInterrupt)):
            scan([volume, volume], [], Statistics(), tick)
        # the one after the other
        assert events == ["open", "closed"] * (2 if ends == "well" else 1)

    def test_what_is_read_ahead_is_closed_by_itself(self) -> None:
        """And not by the last reference to it: an error that is being shown may hold one."""
        events: list[str] = []

        def items():
            try:
                yield 1
                yield 2
            finally:
                events.append("closed")

        made = items()
        for _ in labels_module._ahead(made):
            break
        assert events == ["closed"]

    def test_values_beyond_all_measure(self) -> None:
        data = np.full(SHAPE, 1e200)
        data[0] = -1e200
        moments = statistics_of(volume_of(data, patches_of(SHAPE, PATCH, PATCH)))
        assert (moments.low, moments.high) == (-1e200, 1e200)


def test_moments_of_a_stored_volume() -> None:
    data = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    patches = [tuple(slice(0, n) for n in data.shape)]
    assert_moments(moments_of(volume_of(data, patches, chunks=(1, 2, 4, 8)), lambda voxels: None), data)

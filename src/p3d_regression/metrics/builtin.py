"""The project's own metrics: those that torchmetrics computes in another way than a volume or its units allow.

And some that have to work where torchmetrics cannot be imported.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from p3d_regression.metrics.metric import Metric


def metrics() -> list[Metric]:
    return [
        Metric(
            "RMSE",
            root_mean_squared_error,
            higher_is_better=False,
            summary="root of the mean squared error, in the units of the labels",
            aliases=("RootMeanSquaredError",),
        ),
        Metric(
            "R2Score",
            R2,
            higher_is_better=True,
            summary="part of the labels' variance that is explained: 1 is perfect, 0 is the constant guess",
            aliases=("R2",),
        ),
        Metric(
            "StructuralSimilarityIndexMeasure",
            StructuralSimilarity,
            higher_is_better=True,
            summary="SSIM in 3D (2D where patches are flat); data_range is that of the labels",
            on="patches",
            aliases=("SSIM",),
            example={"data_range": 1.0},
        ),
    ]


class MeanError:
    """The mean of a function of each voxel's error; NaN of no voxel.

    Args:
        of_error: from a tensor of errors to one of the same shape.
        of_mean: from the mean to the metric.
    """

    def __init__(self, of_error: Callable[[Tensor], Tensor], of_mean: Callable[[float], float] = float) -> None:
        self.of_error = of_error
        self.of_mean = of_mean
        self.reset()

    def reset(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.sum += float(self.of_error(preds - target).sum())
        self.count += target.numel()

    def merge(self, other: "MeanError") -> None:
        """Take in what another one has been shown."""
        self.sum += other.sum
        self.count += other.count

    def compute(self) -> float:
        return self.of_mean(self.sum / self.count) if self.count else math.nan


def mean_squared_error(squared: bool = True) -> MeanError:
    return MeanError(torch.square, float if squared else math.sqrt)


def root_mean_squared_error() -> MeanError:
    return mean_squared_error(squared=False)


def mean_absolute_error() -> MeanError:
    return MeanError(torch.abs)


def peak_signal_noise_ratio(data_range: float, base: float = 10.0) -> MeanError:
    if data_range <= 0:
        raise ValueError("data_range must be above 0")
    return MeanError(torch.square, lambda mse: 10 * math.log(data_range**2 / mse, base) if mse else math.inf)


class R2:
    """The coefficient of determination, 1 - residual / total sum of squares; NaN where all labels are equal.

    That of torchmetrics is 1 or 0 where these sums are below 0.0001, which depends on the units of the labels.

    Args:
        adjusted: number of independent regressors, for the adjusted coefficient.
    """

    def __init__(self, adjusted: int = 0) -> None:
        if adjusted < 0:
            raise ValueError("adjusted must be at least 0")
        self.adjusted = adjusted
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self.mean = self.total = self.residual = 0.0

    def update(self, preds: Tensor, target: Tensor) -> None:
        n = target.numel()
        variance, mean = (float(value) for value in torch.var_mean(target, correction=0))
        self._add(n, mean, n * variance, float(((preds - target) ** 2).sum()))

    def merge(self, other: "R2") -> None:
        """Take in what another one has been shown."""
        if other.count:
            self._add(other.count, other.mean, other.total, other.residual)

    def _add(self, n: int, mean: float, total: float, residual: float) -> None:
        # after Chan, Golub and LeVeque, see moments.py
        difference, both = mean - self.mean, self.count + n
        self.total += total + difference**2 * self.count * n / both
        self.mean += difference * n / both
        self.count = both
        self.residual += residual

    def compute(self) -> float:
        if not self.total > 0:
            return math.nan
        r2 = 1 - self.residual / self.total
        freedom = self.count - self.adjusted - 1
        return r2 if not self.adjusted else 1 - (1 - r2) * (self.count - 1) / freedom if freedom > 0 else math.nan


class StructuralSimilarity:
    """The mean structural similarity of patches, in 3D or 2D, with a Gaussian window.

    As ``torchmetrics.image.StructuralSimilarityIndexMeasure``, after Wang et al., IEEE Transactions on Image Processing
    13 (2004). The window is applied axis by axis: in one piece, in 3D and in double precision, it takes gigabytes.

    Args:
        data_range: of the labels, from the smallest to the largest value they can have.
        sigma: of the window, in voxels; one number, or one for each axis (Z, Y, X).
        k1, k2: constants of the formula.
    """

    def __init__(self, data_range: float, sigma: float | list[float] = 1.5, k1: float = 0.01, k2: float = 0.03) -> None:
        if data_range <= 0:
            raise ValueError("data_range must be above 0")
        if any(value <= 0 for value in (sigma if isinstance(sigma, list) else [sigma])):
            raise ValueError("sigma must be above 0")
        self.data_range = data_range
        self.sigma = sigma
        self.k1 = k1
        self.k2 = k2
        self.reset()

    def reset(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        windows = self._windows(target)
        x, y = preds.double(), target.double()
        means = [_blurred(values, windows) for values in (x, y, x * x, y * y, x * y)]
        mean_x, mean_y = means[0], means[1]
        variance_x = (means[2] - mean_x * mean_x).clamp(min=0)
        variance_y = (means[3] - mean_y * mean_y).clamp(min=0)
        covariance = means[4] - mean_x * mean_y
        c1, c2 = ((k * self.data_range) ** 2 for k in (self.k1, self.k2))
        similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        similarity /= (mean_x * mean_x + mean_y * mean_y + c1) * (variance_x + variance_y + c2)
        self.sum += float(similarity.flatten(1).mean(1).sum())
        self.count += len(target)

    def merge(self, other: "StructuralSimilarity") -> None:
        """Take in what another one has been shown."""
        self.sum += other.sum
        self.count += other.count

    def compute(self) -> float:
        return self.sum / self.count if self.count else math.nan

    def _windows(self, target: Tensor) -> list[Tensor]:
        axes = target.dim() - 2
        sigma = self.sigma if isinstance(self.sigma, list) else [self.sigma] * axes
        if len(sigma) != axes:
            raise ValueError(f"sigma has {len(sigma)} entries, the patches have {axes} axes")
        radii = [int(3.5 * value + 0.5) for value in sigma]
        for name, size, radius in zip("ZYX"[-axes:], target.shape[2:], radii, strict=True):
            if size <= radius:
                thinner = [min(value, max(0.15, (n - 1) / 7)) for value, n in zip(sigma, target.shape[2:], strict=True)]
                written = ", ".join(f"{math.floor(value * 20) / 20:g}" for value in thinner)
                raise ValueError(
                    f"{size} voxels in {name} are not more than half a window of {2 * radius + 1}; write a thinner "
                    f"one, sigma: [{written}]"
                )
        return [_gaussian(value, radius, target) for value, radius in zip(sigma, radii, strict=True)]


def _gaussian(sigma: float, radius: int, like: Tensor) -> Tensor:
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64, device=like.device)
    window = torch.exp(-((distance / sigma) ** 2) / 2)
    return window / window.sum()


def _blurred(values: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """A window's mean around each voxel; the border is mirrored."""
    convolve = functional.conv3d if values.dim() == 5 else functional.conv2d
    for axis, window in enumerate(windows, start=2):
        radius = len(window) // 2
        padding = [0, 0] * (values.dim() - 1 - axis) + [radius, radius]
        padding += [0, 0] * (values.dim() - 2 - len(padding) // 2)
        shape = [1, 1, *(len(window) if other == axis else 1 for other in range(2, values.dim()))]
        values = convolve(functional.pad(values, padding, mode="reflect"), window.reshape(shape))
    return values

"""The volumes of a prediction, blended: patch by patch through the networks, layer by layer into the file."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p3d_regression import group
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.fix import advise
from p3d_regression.model.contract import mapping
from p3d_regression.model.precision import FULL, autocast, check_device, in_float32, slow_reason
from p3d_regression.model.unet import inside as inside_wrapper
from p3d_regression.prediction import attributes, ensemble, sharing
from p3d_regression.prediction.blending import Array, Place, Window, first_needed, uncovered
from p3d_regression.prediction.files import Output, check_resumable, discard, is_complete, output_path, writing
from p3d_regression.prediction.hdf5_output import Hdf5Output
from p3d_regression.prediction.orientations import orientations_of
from p3d_regression.prediction.progress import Progress
from p3d_regression.prediction.reading import read_as_needed
from p3d_regression.prediction.settings import Settings, settings_of
from p3d_regression.prediction.spec import BLEND, PRECISION, SPREAD, Options, obstacle
from p3d_regression.prediction.units import Counts, ends_of, inside
from p3d_regression.upstream import datasets, introspection
from p3d_regression.upstream.introspection import device_name
from p3d_regression.upstream.log import console, say
from p3d_regression.volumes.geometry import spacing_of
from p3d_regression.volumes.opening import opened

#: What a predictor and a dataset must have, so that patches can be blended.
_ATTRIBUTES = ("model", "output_dir", "out_channels", "device", "output_dataset", "prediction_channel")
_OF_DATASET = ("file_path", "raw_internal_path", "raw_slices", "volume_shape", "halo_shape")


class Prediction:
    """The predictions of a command, one volume after the other, with the networks that are loaded once.

    Args:
        predictor: of pytorch-3dunet.
        config: of the prediction; empty where it is not known.
        options: what the config says with the keys of this project.

    Raises:
        ConfigError: they contradict the rest of the config, or the members of an ensemble do not fit each other.
        UnsupportedUpstreamError: pytorch-3dunet is built differently.
    """

    def __init__(self, predictor: Any, config: Mapping[str, Any], options: Options) -> None:
        _check_has(predictor, _ATTRIBUTES)
        if found := obstacle(vars(predictor)):
            raise found
        self.predictor, self.config, self.options = predictor, config, options
        _check_outputs(config, options)
        self.members = ensemble.members_of(config, options.ensemble)
        own = predictor.model
        networks = list(ensemble.networks_of(self.members, config, own)) if options.ensemble else [own]
        self.networks = [network.eval() for network in networks]
        is_model_2d = introspection.module_of("pytorch3dunet.unet3d.model").is_model_2d
        self.is_2d = [is_model_2d(network) for network in self.networks]
        self.contract = self.members[0].contract if self.members else None
        self.share = sharing.share()
        #: whether what is there has to be part of this prediction
        self.resumes = options.resume or self.share.is_job
        self.inputs = sorted(datasets.files(mapping(config.get("loaders")), "test"))
        self._use_precision()
        if self.share.count > 1 and not self.resumes and group.restarts() == 0:
            sharing.first_alone(self._clear)
        self.progress = Progress(config, self.share)

    def _clear(self) -> None:
        """Delete what is left of other predictions, before several processes begin."""
        for path in self.inputs:
            output = output_path(Path(path), self.predictor.output_dir, self.options.output)
            with writing(output):
                discard(output)

    def _use_precision(self) -> None:
        name, device = self.options.precision, device_name(self.predictor.device)
        check_device(name, device, PRECISION)
        if name == FULL:
            return
        if reason := slow_reason(name, device, PRECISION):
            console().warning(reason)
        for network in self.networks:
            last = inside_wrapper(network).final_conv
            last.forward = in_float32(last.forward, device)

    def predict(self, loader: Any) -> bool:
        """Predict the volume of a loader, or this process's share of it. The file appears when it is complete.

        Returns:
            Whether this process has completed the file, or found it complete where no other one writes it.

        Raises:
            ConfigError: patches leave gaps, the output cannot be written, or what is there is another prediction.
            UnsupportedUpstreamError: pytorch-3dunet is built differently.
        """
        group.quieten()
        dataset, predictor = loader.dataset, self.predictor
        _check_has(dataset, _OF_DATASET)
        places: list[Place] = [tuple(place[-3:]) for place in dataset.raw_slices]
        shape = tuple(dataset.volume_shape)
        if gap := uncovered(places, shape):
            key = "loaders.test.slice_builder.stride_shape"
            raise ConfigError(
                key, f"the patches leave a gap along {gap}.", advise("write strides no larger than the patch")
            )
        source = Path(dataset.file_path)
        channels = 1 if predictor.prediction_channel is not None else predictor.out_channels
        names = [predictor.output_dataset, *([SPREAD] if self.options.has_spread else [])]
        settings = settings_of(self.config, source, [member.path for member in self.members])
        output = self._output(source, dict.fromkeys(names, channels), shape, settings)
        if not output.is_shared:
            output.recover()
        if self.resumes:
            check_resumable(settings, output.path, predictor.output_dataset, is_job=self.share.is_job)
        # by another process of this prediction, perhaps
        if (self.resumes or output.is_shared) and is_complete(settings, output.path, predictor.output_dataset):
            return self._skip(output, len(places))
        read_as_needed(dataset)
        combined = self._combined(dataset, places)
        start, self._seconds, self._patches, self._not_finite = time.perf_counter(), 0.0, 0, 0
        try:
            if not output.begin(places, dict(self._attributes(names, output, dataset)), resume=self.resumes):
                return self._skip(output, len(places))
            ends = ends_of(places)
            for number, box in output.boxes.items():
                self._predict_box(output, number, box, ends, combined, loader)
            completed = output.complete()
        except BaseException:
            output.say_kept()
            raise
        if completed or self._not_finite:
            # the lines about a file come from the process that has finished it
            group.speak()
        if self._not_finite:
            console().warning(
                f"{output.path}: {self._not_finite} values are NaN or infinite; is the raw volume finite?"
            )
        spent = time.perf_counter() - start
        how = f"blended ({self.options.blend})" if self.options.averages else "predicted"
        say(
            f"{output.path}: {self._patches} patches {how} in {spent:.1f} s, {self._seconds / spent:.0%} of it in the "
            "network"
        )
        if completed and output.is_shared:
            say(f"{output.path} is complete")
        return completed

    def _skip(self, output: Output, patches: int) -> bool:
        say(f"{output.path} is complete")
        self.progress.skip(patches)
        return not output.is_shared

    def _output(self, source: Path, datasets: dict[str, int], shape: tuple[int, ...], settings: Settings) -> Output:
        path = output_path(source, self.predictor.output_dir, self.options.output)
        if self.options.output == "zarr":
            from p3d_regression.prediction.zarr_output import ZarrOutput

            # the first part of each volume is that of another process: volumes may have one part only
            number = self.inputs.index(str(source)) if str(source) in self.inputs else 0
            return ZarrOutput(path, datasets, shape, self.options.compression, settings, self.share, number)
        return Hdf5Output(path, datasets, shape, self.options.compression, settings)

    def _predict_box(
        self,
        output: Output,
        number: int,
        box: Place,
        ends: Counts,
        combined: ensemble.Combined,
        loader: Any,
    ) -> None:
        """Predict what is not finished of a part of a volume."""
        chosen, seen = inside(ends, box)
        shape = tuple(part.stop - part.start for part in box)
        planes, names = output.planes, list(output.datasets)
        finished = min(output.finished(number) * planes, shape[0])
        # all patches of a batch, as they were computed before: numbers of another batch differ in their last bit
        batch = loader.batch_size or 1
        first = first_needed(seen, finished) // batch * batch if finished < shape[0] else len(seen)
        with output.writer(number) as write:

            def leave(layer: int, total: Array, weight: Array) -> None:
                write(layer, lambda: self._values(total, weight, names))

            channels = sum(output.datasets.values())
            done = -(-finished // planes)
            window = Window(channels, seen, shape, self.options.blend, leave, planes, finished=done, skipped=first)
            self.progress.start(Path(loader.dataset.file_path).name, len(seen), first)
            for seconds, patches in self._predicted(combined, loader, chosen[first:]):
                self._seconds += seconds
                for patch in patches:
                    window.add(patch)
                self._patches += len(patches)
                self.progress.advance(len(patches))

    def _combined(self, dataset: Any, places: list[Place]) -> ensemble.Combined:
        place = places[0]
        patch = [part.stop - part.start + 2 * halo for part, halo in zip(place, dataset.halo_shape, strict=True)]
        with opened(dataset.file_path) as file:
            spacing = spacing_of(file[dataset.raw_internal_path].attrs)
        orientations = orientations_of(self.options.tta, patch, spacing)
        return ensemble.Combined(self.networks, orientations, ensemble.variances(self.contract), self.is_2d)

    def _predicted(
        self, combined: ensemble.Combined, loader: Any, numbers: Sequence[int]
    ) -> Iterator[tuple[float, Array]]:
        """For each batch of some patches the seconds of the networks, and its patches without halo.

        Their shape is (N, C, D, H, W); after the channels of the prediction come those of its variance.
        """
        import torch

        inside = [slice(h, -h if h else None) for h in loader.dataset.halo_shape]
        chosen = self.predictor.prediction_channel
        device = device_name(self.predictor.device)
        with torch.no_grad(), autocast(self.options.precision, device):
            for raw, _ in _only(loader, numbers):
                begin = time.perf_counter()
                found = combined(raw.to(self.predictor.device, non_blocking=True))
                parts = [part[..., inside[0], inside[1], inside[2]] for part in found if part is not None]
                parts = parts if chosen is None else [part[:, chosen : chosen + 1] for part in parts]
                patches = torch.cat(parts, dim=1).cpu().numpy()
                yield time.perf_counter() - begin, patches

    def _values(self, total: Array, weight: Array, names: list[str]) -> dict[str, Array]:
        """The blended planes of each dataset."""
        total /= weight
        self._not_finite += int(np.count_nonzero(~np.isfinite(total)))
        parts = np.split(total, len(names))
        return {name: np.sqrt(part) if name == SPREAD else part for name, part in zip(names, parts, strict=True)}

    def _attributes(self, names: list[str], output: Output, dataset: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        common = attributes.of_prediction(self.predictor, dataset, self.options, self.contract, output.settings)
        for name in names:
            yield name, attributes.of_spread(common) if name == SPREAD else common


def _check_outputs(config: Mapping[str, Any], options: Options) -> None:
    """Refuse two inputs with one output, before the first is predicted."""
    loaders = mapping(config.get("loaders"))
    inputs: dict[Path, str] = {}
    for path in datasets.files(loaders, "test"):
        output = output_path(Path(path), loaders.get("output_dir"), options.output)
        if output in inputs:
            message = f"{inputs[output]} and {path} have one output, {output}."
            advice = advise("rename the files, or predict them with a config of their own")
            raise ConfigError("loaders.test.file_paths", message, advice)
        inputs[output] = path


def _check_has(thing: Any, names: tuple[str, ...]) -> None:
    lacking = [name for name in names if not hasattr(thing, name)]
    if lacking:
        raise UnsupportedUpstreamError(f"{BLEND}: this pytorch3dunet predicts in another way (no {lacking[0]}).")


def _only(loader: Any, chosen: Sequence[int]) -> Any:
    """The batches of a loader, of some patches."""
    if len(chosen) == len(loader.dataset):
        return loader
    from torch.utils.data import DataLoader, Subset

    rest = Subset(loader.dataset, chosen)
    return DataLoader(rest, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn)

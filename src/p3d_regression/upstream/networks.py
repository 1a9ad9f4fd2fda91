"""Networks of pytorch-3dunet without memory for their weights, to see what a ``model`` section stands for.

Its layers are on torch's meta device, and its input is a batch of no samples: whatever a version of pytorch-3dunet or
torch says against a section or a patch, it says here, before anything is computed. (torch's own operations on the meta
device would import a compiler and a computer algebra system, which takes seconds.)
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from p3d_regression._patching import original_of
from p3d_regression.upstream.introspection import UnknownUpstreamError, module_of, quiet

_MODEL = "pytorch3dunet.unet3d.model"

#: Channels and groups of a small network, at most.
_MOST_TRIED = 64

#: Levels of a network beyond which nothing is built: each has twice the channels of the one before.
MOST_LEVELS = 16


def on_meta_device(model_config: Mapping[str, Any]) -> Any:
    """The network that upstream builds of a ``model`` section, on torch's meta device.

    No random number is drawn, and no memory is taken. The keys of this project are to be left out.

    Raises:
        UnknownUpstreamError: this version builds networks in another way.
        Exception: whatever upstream says against the section.
    """
    import torch

    create = original_of(getattr(module_of(_MODEL), "get_model", None))
    if create is None or list(inspect.signature(create).parameters) != ["model_config"]:
        raise UnknownUpstreamError("pytorch3dunet builds networks in another way")
    levels = model_config.get("num_levels")
    if isinstance(levels, int) and levels > MOST_LEVELS:
        raise ValueError(f"a network of {levels} levels")
    with quiet(), torch.device("meta"):
        return create(dict(model_config))


def is_blind(model_config: Mapping[str, Any]) -> bool:
    """Whether a network gives the same output for a patch that is twice as bright.

    Tried on a small network with the same layers, of random weights.

    Args:
        model_config: a ``model`` section without the keys of this project.
    """
    import torch

    create = original_of(getattr(module_of(_MODEL), "get_model", None))
    groups, channels = model_config.get("num_groups", 8), model_config.get("in_channels", 1)
    if not all(isinstance(n, int) and 0 < n <= _MOST_TRIED for n in (groups, channels)):
        return False
    small = {key: model_config[key] for key in ("name", "layer_order", "num_groups") if key in model_config}
    small |= {"in_channels": channels, "out_channels": 1, "f_maps": [groups, 2 * groups], "is_segmentation": False}
    is_2d = "2D" in str(model_config.get("name"))
    try:
        with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = create(small).eval()
            raw = 10 + torch.randn(1, channels, *((16, 16) if is_2d else (4, 16, 16)))
            once, twice = network(raw), network(2 * raw)
    except Exception:
        return False  # another rule reports it
    return bool((once - twice).abs().max() < 0.01 * once.std())


def output_shape(network: Any, shape: Sequence[int], *, training: bool) -> tuple[int, ...]:
    """Shape (C, D, H, W) of the output of a network on the meta device for a sample of such a shape, one in a batch.

    A 2D network gets its planes as the trainer and the predictors of pytorch-3dunet feed them.

    Raises:
        Exception: whatever torch says against an input of this shape.
    """
    import torch

    # until 1.5 or so 2D networks took volumes of one plane
    is_2d = getattr(module_of(_MODEL), "is_model_2d", lambda _: False)(network)
    patch = torch.empty(0, *shape)
    with torch.no_grad(), _only_shapes():
        output = network.train(training)(torch.squeeze(patch, dim=-3) if is_2d else patch)
    return tuple(torch.unsqueeze(output, dim=-3).shape if is_2d else output.shape)[1:]


def _only_shapes() -> Any:
    """A mode in which layers with weights tell the shape of their output, and do not look at these."""
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    norms = (functional.group_norm, functional.batch_norm, functional.instance_norm)
    convolutions: dict[Any, bool] = {functional.conv2d: False, functional.conv3d: False}
    convolutions |= {functional.conv_transpose2d: True, functional.conv_transpose3d: True}

    class OnlyShapes(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is functional.linear:
                return _linear(*args, **(kwargs or {}))
            if func in norms:
                return _normalised(func.__name__, *args, **(kwargs or {}))
            if func in convolutions:
                return _convolved(*args, transposed=convolutions[func], **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    return OnlyShapes()


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _normalised(kind: str, x: Any, *args: Any, **more: Any) -> Any:
    """As torch's normalisations, for the shapes alone: one value has no spread."""
    values = math.prod(x.shape[2:])  # of one sample, in one channel
    if kind == "group_norm":
        if not isinstance(args[0], int):
            raise TypeError(f"num_groups must be a whole number, not {args[0]!r}")
        values *= x.shape[1] // args[0]
    # batch_norm(..., training) and instance_norm(..., use_input_stats) may have statistics of their own
    elif not more.get("training", more.get("use_input_stats", args[5] if len(args) > 5 else True)):
        return x
    if values == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    return x


def _convolved(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    *more: Any,
    transposed: bool,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """As torch's convolutions, for the shapes alone."""
    if more:
        # (output_padding, groups, dilation) and (dilation, groups)
        names = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
        given = dict(zip(names, more, strict=False))
        output_padding, groups = given.get("output_padding", output_padding), given.get("groups", groups)
        dilation = given.get("dilation", dilation)
    dims = weight.dim() - 2
    if x.dim() != weight.dim():
        raise RuntimeError(f"expected {weight.dim()}D input to a {dims}D convolution, got {tuple(x.shape)}")
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels:
        raise RuntimeError(f"expected input with {channels} channels, got {tuple(x.shape)}")
    if padding == "same":
        return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    per_axis = [(v,) * dims if isinstance(v, int) else tuple(v) for v in (stride, padding, output_padding, dilation)]
    spatial = []
    for n, k, s, p, o, d in zip(x.shape[2:], weight.shape[2:], *per_axis, strict=True):
        out = (n - 1) * s - 2 * p + d * (k - 1) + o + 1 if transposed else (n + 2 * p - d * (k - 1) - 1) // s + 1
        if out < 1:
            raise RuntimeError(f"a kernel of {tuple(weight.shape[2:])} is larger than its input {tuple(x.shape)}")
        spatial.append(out)
    return x.new_empty(x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *spatial)


def memory_of_training(model_config: Mapping[str, Any], shape: Sequence[int]) -> tuple[int, int]:
    """What a training step of a network keeps in memory, measured with a small patch.

    Args:
        model_config: a ``model`` section without the keys of this project.
        shape: of the patch, (D, H, W).

    Returns:
        Bytes that are kept for the gradient of the patch, and the number of weights.

    Raises:
        Exception: whatever upstream or torch says against the section or the patch.
    """
    import torch

    create = original_of(module_of(_MODEL).get_model)
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with quiet(), torch.random.fork_rng(devices=[]):
        network = create(dict(model_config)).train()
        weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        raw = torch.zeros(
            1, int(model_config["in_channels"]), *(shape[1:] if "2D" in str(model_config["name"]) else shape)
        )
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # the result holds what is kept until it is counted
            output = network(raw)
        size = sum(n for address, n in kept.items() if address not in weights)
        del output
    return size, sum(parameter.numel() for parameter in network.parameters())

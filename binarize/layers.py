"""Binary layers: each is the torch layer it replaces, with the same parameters, run on two-valued tensors.

    x ─┬─ threshold ─ input_binarizer ─ pad ─ conv with binary weight ─ scale ─ bias ─ norm ─ (+) ─ activation
       └─────────────────────────────────── shortcut ──────────────────────────────────────────┘

Every part but the weight binarizer may be missing. The weight keeps its name and stays real-valued
("latent"): it is binarized anew in each forward pass. Zero padding happens after binarization, so a padded 0
lies outside the two values; `pad_value` -1 or +1 pads inside them instead.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.binarizers.sign import FilterLevels, Pure
from binarize.binarizers.statistics import channel_mean, per_channel
from binarize.binary_product import binary_product
from binarize.errors import UsageError
from binarize.gradient_bound import bound_gradient
from binarize.kernels.geometry import Geometry, kernel_geometry
from binarize.kernels.tracing import as_one_node
from binarize.pointwise import is_pointwise, pointwise_backward

__all__ = [
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryConv3d",
    "BinaryConvTranspose1d",
    "BinaryConvTranspose2d",
    "BinaryConvTranspose3d",
    "BinaryLayer",
    "BinaryLinear",
    "Threshold",
    "binary_class",
    "is_binary",
    "run_parts",
]

# Children of a binary layer, in the order in which they act.
PARTS = ("threshold", "input_binarizer", "weight_binarizer", "scale", "norm", "shortcut", "activation")

Self = TypeVar("Self", bound="BinaryLayer")


class Threshold(Pure):
    """x - tau, with tau learned per channel; starts at 0.

    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    """

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.tau = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set tau to the mean of each channel of x."""
        self.tau.copy_(channel_mean(x, self.channel_dim))

    def forward(self, x: Tensor) -> Tensor:
        return x - per_channel(self.tau, x, self.channel_dim)

    def extra_repr(self) -> str:
        return f"{self.tau.numel()}, channel_dim={self.channel_dim}"


class BinaryLayer(nn.Module):
    """What all binary layers share; made from a float layer by `from_float`.

    `shortcut_inside` and `activation_inside` say whether this layer runs these parts itself. Where they are
    False, the rewritten forward of the module around it calls `layer.shortcut(x)` and `layer.activation(y)`.
    """

    weight_binarizer: nn.Module
    input_binarizer: nn.Module | None
    threshold: nn.Module | None
    scale: nn.Module | None
    norm: nn.Module | None
    shortcut: nn.Module | None
    activation: nn.Module | None
    pad_value: float
    shortcut_inside: bool
    activation_inside: bool
    # See `packed_product.use_packed_forward`; None is what the environment says.
    packed_forward: str | None = None

    @classmethod
    def from_float(
        cls: type[Self],
        layer: nn.Module,
        *,
        weight_binarizer: nn.Module,
        input_binarizer: nn.Module | None = None,
        threshold: nn.Module | None = None,
        scale: nn.Module | None = None,
        norm: nn.Module | None = None,
        shortcut: nn.Module | None = None,
        activation: nn.Module | None = None,
        pad_value: float = 0.0,
    ) -> Self:
        """A binary layer on the parameters of `layer`: the same Parameter objects, attributes, hooks, flags.

        With a norm, the bias moves into the norm's bias. Parts take the weight's device and dtype and the
        layer's training flag. `pad_value` counts where a layer pads with zeros; linear and transposed layers
        do not.
        """
        expected = binary_class(layer)
        if expected is not cls:
            found, wanted = type(layer).__name__, "none" if expected is None else expected.__name__
            raise UsageError(f"{cls.__name__}.from_float: the binary class of {found} is {wanted}")
        new: Any = cls.__new__(cls)
        # The hook dictionaries themselves are carried over, so that the user's handles still remove their
        # hooks.
        new.__dict__.update(layer.__dict__)
        for own in ("_parameters", "_buffers", "_modules"):
            new.__dict__[own] = dict(layer.__dict__[own])
        # A float layer may have attributes by these names (the `scale` of timm's ScaledStdConv2d).
        for part_name in PARTS:
            if part_name in new.__dict__:
                new.__dict__[f"own_{part_name}"] = new.__dict__.pop(part_name)
        parts = (threshold, input_binarizer, weight_binarizer, scale, norm, shortcut, activation)
        for part_name, part in zip(PARTS, parts):
            new.register_module(part_name, part)
            if part is not None:
                part.to(device=new.weight.device, dtype=new.weight.dtype).train(layer.training)
        start = getattr(scale, "start_from_weight", None)
        if start is not None:
            start(new.real_weight(), getattr(weight_binarizer, "axis", 0))
        new.pad_value = float(pad_value)
        if getattr(layer, "padding_mode", None) == "zeros":
            new._reversed_padding_repeated_twice = _sides(layer)
        new.shortcut_inside = new.activation_inside = True
        new._move_bias_into_norm()
        return cast(Self, new)

    def _move_bias_into_norm(self) -> None:
        target = getattr(self.norm, "bias", None)
        if self.bias is None or target is None:
            return
        with torch.no_grad():
            target.copy_(self.bias)
        target.requires_grad_(self.bias.requires_grad)
        self.register_parameter("bias", None)

    def binarized_input(self, x: Tensor) -> Tensor:
        """What the convolution reads: two-valued, or x itself for a layer with binary weights only."""
        if self.threshold is not None:
            x = self.threshold(x)
        return x if self.input_binarizer is None else self.input_binarizer(x)

    def real_weight(self) -> Tensor:
        """The real-valued weight that is binarized: the latent weight, or what the float layer makes of it."""
        return cast(Tensor, self.weight)

    def binarized_weight(
        self, weight: Tensor | None = None, levels: FilterLevels | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(two-valued weight, scale per output channel to be applied afterwards, or None), or some rows of them.

        `levels` is what the binarizer has told of them already.
        """
        weight = self.real_weight() if weight is None else weight
        binarizer: Any = self.weight_binarizer
        split = getattr(binarizer, "split", None)
        if split is None:
            return binarizer(weight), None
        values, scale = split(weight) if levels is None else binarizer.split_as(weight, levels)
        return values, self.scale_of(scale)

    def scale_of(self, scale: Tensor | None) -> Tensor | None:
        """A scale per filter as it multiplies the output."""
        return None if scale is None else self._per_channel(scale)

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        return self._finish(x, *binary_product(self, x, None)) if node is None else node

    def _finish(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        """The layer's output from its input, the product and the weight's scale."""
        if scale is not None:
            y = y * scale.to(y.dtype)
        if self.scale is not None:
            y = self.scale(y)
        scale_map = getattr(self.input_binarizer, "scale_map", None)
        if scale_map is not None:
            y = y * scale_map(x, self)
        if self.bias is not None:
            y = y + self._per_channel(cast(Tensor, self.bias)).to(y.dtype)
        return bound_gradient(run_parts(self, x, y))

    def operand(self, x: Tensor) -> Tensor:
        """The binary input, padded where the convolution itself cannot pad like that."""
        return self.binarized_input(x)

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        """The convolution or matrix product of an operand and a binary weight, or rows of it."""
        raise NotImplementedError

    def multiply_backward(
        self,
        g: Tensor,
        a: Tensor,
        values: Tensor,
        needs: tuple[bool, bool],
        size: list[int] | None,
        out: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of `multiply` at the operand and at the binary weight, as far as `needs` asks for them.

        Linear layers, the only ones whose weights are sliced, add the first to `out[0]` and write the second to
        `out[1]`.
        """
        geometry = self._geometry(a, size)
        if is_pointwise(g, a, values, geometry):
            found = pointwise_backward(g, a, values, needs)
            if found is not None:
                return found
        g_a, g_values, _ = torch.ops.aten.convolution_backward(
            g, a.to(g.dtype), values.to(g.dtype), None, *geometry, [*needs, False]
        )
        return g_a, g_values

    def is_batch(self, x: Tensor) -> bool:
        """Whether x has a batch axis, which torch's convolutions can do without."""
        return x.dim() == cast(Tensor, self.weight).dim()

    def geometry_on(self, x: Tensor) -> Geometry | None:
        """What the kernels have to know of this layer for such an input; None where they cannot compute it."""
        return None

    def as_image(self, x: Tensor) -> Tensor:
        """The input as (N, C, H, W)."""
        return x

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        """The output from one of (N, O, H', W')."""
        return y

    def _geometry(self, a: Tensor, size: list[int] | None) -> tuple[Any, ...]:
        """(stride, padding, dilation, transposed, output padding, groups) of the convolution."""
        raise NotImplementedError

    def _per_channel(self, scale: Tensor) -> Tensor:
        """One number per output channel, as it multiplies the output; a single number stays one."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.pad_value == 0 else f"{text}, pad_value={self.pad_value:g}"


def _sides(layer: nn.Module) -> list[int]:
    """[before, after] of the last axis first, of zeros. torch notes it only when a layer is made, and people change it."""
    conv = cast(Any, layer)
    if conv.padding == "valid":
        return [0] * (2 * len(conv.kernel_size))
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [int(side) for side in reversed(conv.padding) for _ in range(2)]


class _BinaryConv(BinaryLayer):
    """(N, I, ...) with weight (O, I / groups, ...) -> (N, O, ...)."""

    def operand(self, x: Tensor) -> Tensor:
        a, conv = self.binarized_input(x), cast(Any, self)
        if self._pads_itself():
            return a
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        # Other modes take no value.
        value = self.pad_value if mode == "constant" else None
        return F.pad(a, conv._reversed_padding_repeated_twice, mode=mode, value=value)

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        stride, padding, dilation, _, _, groups = self._geometry(a, size)
        function: Any = (F.conv1d, F.conv2d, F.conv3d)[values.dim() - 3]
        return function(a, values, None, stride, padding, dilation, groups)

    def geometry_on(self, x: Tensor) -> Geometry | None:
        conv, axes = cast(Any, self), cast(Tensor, self.weight).dim() - 2
        if type(self).operand is not _BinaryConv.operand or axes > 2 or not self.is_batch(x):
            return None
        if conv.padding_mode != "zeros" or self.pad_value not in (-1, 0, 1):
            return None
        first = [1] * (2 - axes)
        # [before, after] of the last axis first.
        sides = [*conv._reversed_padding_repeated_twice, 0, 0]
        return kernel_geometry(
            (conv.in_channels, conv.out_channels),
            (*first, *conv.kernel_size),
            (*first, *conv.stride),
            (sides[2], sides[3], sides[0], sides[1]),
            (*first, *conv.dilation),
            conv.groups,
            int(self.pad_value),
        )

    def as_image(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2) if x.dim() == 3 else x

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        return y.squeeze(2) if x.dim() == 3 else y

    def _pads_itself(self) -> bool:
        """Whether the convolution pads: with zeros, as much before as after each axis."""
        conv = cast(Any, self)
        # [before, after] of the last axis first.
        sides = conv._reversed_padding_repeated_twice
        return conv.padding_mode == "zeros" and self.pad_value == 0 and sides[::2] == sides[1::2]

    def _geometry(self, a: Tensor, size: list[int] | None) -> tuple[Any, ...]:
        conv = cast(Any, self)
        padding = (
            conv._reversed_padding_repeated_twice[::-2]
            if self._pads_itself()
            else [0] * len(conv.kernel_size)
        )
        return conv.stride, padding, conv.dilation, False, [0] * len(padding), conv.groups

    def _per_channel(self, scale: Tensor) -> Tensor:
        return scale.reshape(-1, *[1] * (cast(Tensor, self.weight).dim() - 2))


class BinaryConv1d(_BinaryConv, nn.Conv1d):
    """`nn.Conv1d` on binary weights and, with an input binarizer, binary inputs."""


class BinaryConv2d(_BinaryConv, nn.Conv2d):
    """`nn.Conv2d` on binary weights and, with an input binarizer, binary inputs."""


class BinaryConv3d(_BinaryConv, nn.Conv3d):
    """`nn.Conv3d` on binary weights and, with an input binarizer, binary inputs."""


class _BinaryConvTranspose(BinaryLayer):
    """(N, I, ...) with weight (I, O / groups, ...) -> (N, O, ...)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        node = as_one_node(self, x, output_size)
        return self._finish(x, *binary_product(self, x, output_size)) if node is None else node

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        stride, padding, dilation, _, extra, groups = self._geometry(a, size)
        function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[values.dim() - 3]
        return function(a, values, None, stride, padding, extra, groups, dilation)

    def _geometry(self, a: Tensor, size: list[int] | None) -> tuple[Any, ...]:
        conv = cast(Any, self)
        n = len(conv.kernel_size)
        extra = conv._output_padding(a, size, conv.stride, conv.padding, conv.kernel_size, n, conv.dilation)
        return conv.stride, conv.padding, conv.dilation, True, extra, conv.groups

    def _per_channel(self, scale: Tensor) -> Tensor:
        # Weight (I, O / groups, ...): a number per index of axis 1 is shared by all groups. A bias has all O.
        groups, out_channels = cast(Any, self).groups, cast(Any, self).out_channels
        if scale.numel() not in (1, out_channels):
            scale = scale.reshape(-1).repeat(groups)
        return scale.reshape(-1, *[1] * (cast(Tensor, self.weight).dim() - 2))


class BinaryConvTranspose1d(_BinaryConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` on binary weights and, with an input binarizer, binary inputs."""


class BinaryConvTranspose2d(_BinaryConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` on binary weights and, with an input binarizer, binary inputs."""


class BinaryConvTranspose3d(_BinaryConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` on binary weights and, with an input binarizer, binary inputs."""


class BinaryLinear(BinaryLayer, nn.Linear):
    """`nn.Linear` on binary weights and, with an input binarizer, binary inputs: (..., I) -> (..., O)."""

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        return F.linear(a, values)

    def multiply_backward(
        self,
        g: Tensor,
        a: Tensor,
        values: Tensor,
        needs: tuple[bool, bool],
        size: list[int] | None,
        out: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, Tensor | None]:
        sum_a, place = out
        flat_g, flat_a = g.reshape(-1, g.shape[-1]), a.reshape(-1, a.shape[-1]).to(g.dtype)
        g_a = g_values = None
        if needs[0] and sum_a is not None:
            g_a = sum_a
            g_a.view(-1, g_a.shape[-1]).addmm_(flat_g, values.to(g.dtype))
        elif needs[0]:
            g_a = g @ values.to(g.dtype)
        if needs[1]:
            g_values = torch.mm(flat_g.t(), flat_a, out=place)
        return g_a, g_values

    def is_batch(self, x: Tensor) -> bool:
        return True

    def geometry_on(self, x: Tensor) -> Geometry | None:
        linear = cast(Any, self)
        return kernel_geometry((linear.in_features, linear.out_features)) if x.dim() else None

    def as_image(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1], 1, 1)

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        return y.reshape(*x.shape[:-1], -1)

    def _per_channel(self, scale: Tensor) -> Tensor:
        return scale.reshape(-1)


BINARY_CLASSES: dict[type[nn.Module], type[BinaryLayer]] = {
    nn.Conv1d: BinaryConv1d,
    nn.Conv2d: BinaryConv2d,
    nn.Conv3d: BinaryConv3d,
    nn.ConvTranspose1d: BinaryConvTranspose1d,
    nn.ConvTranspose2d: BinaryConvTranspose2d,
    nn.ConvTranspose3d: BinaryConvTranspose3d,
    nn.Linear: BinaryLinear,
}


def run_parts(layer: Any, x: Tensor, y: Tensor) -> Tensor:
    """What follows the product `y` of a binary layer on `x`, trained, frozen or packed: the parts that it runs itself."""
    if layer.norm is not None:
        y = layer.norm(y)
    if layer.shortcut is not None and layer.shortcut_inside:
        y = y + layer.shortcut(x)
    if layer.activation is not None and layer.activation_inside:
        y = layer.activation(y)
    return y


def binary_class(layer: nn.Module) -> type[BinaryLayer] | None:
    """The binary class that can take the place of this layer, None where there is none.

    None for a subclass that computes in its own way (`forward` or `_conv_forward` overridden), for a layer
    whose weight is not its own parameter (parametrized, weight_norm, not yet initialised), for one that is
    binary already.
    """
    if is_binary(layer) or not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return None
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return None
    for base, binary in BINARY_CLASSES.items():
        if isinstance(layer, base):
            methods = [name for name in ("forward", "_conv_forward") if hasattr(base, name)]
            if all(getattr(type(layer), name) is getattr(base, name) for name in methods):
                return binary
    return _foreign_class(layer)


def _foreign_class(layer: nn.Module) -> type[BinaryLayer] | None:
    from binarize.foreign_layers import foreign_class  # a subclass of ours: it cannot come first

    return foreign_class(layer)


def is_binary(module: nn.Module) -> bool:
    """Whether the module is one of our binary layers."""
    return isinstance(module, BinaryLayer)

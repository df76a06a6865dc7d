"""Binary layers: each is the torch layer it replaces, with the same parameters, run on two-valued tensors.

    x ─┬─ threshold ─ input_binarizer ─ pad ─ conv with binary weight ─ scale ─ bias ─ norm ─ (+) ─ activation
       └─────────────────────────────────── shortcut ──────────────────────────────────────────┘

Every part but the weight binarizer may be missing. The weight keeps its name and stays real-valued
("latent"): it is binarized anew in each forward pass. Zero padding happens after binarization, so a padded 0
lies outside the two values; `pad_value` -1 or +1 pads inside them instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import FilterLevels, Pure
from binarize.binarizers.statistics import channel_mean, per_channel
from binarize.computed_weights import class_before, computed_weight, computes_weight, with_property
from binarize.errors import UsageError
from binarize.kernels.geometry import Geometry
from binarize.kernels.tracing import as_one_node
from binarize.layers.gradient_bound import bound_gradient
from binarize.layers.pointwise import is_pointwise, pointwise_backward
from binarize.layers.product import binary_product
from binarize.plain_forward import Plain, plain_forward

__all__ = ["BinaryLayer", "Kind", "Threshold", "is_binary", "run_parts"]


# Children of a binary layer, in the order in which they act.
PARTS = ("threshold", "input_binarizer", "weight_binarizer", "scale", "norm", "shortcut", "activation")

Kind = Literal["conv", "conv_transpose", "linear"]
# What makes a layer's product out of its input and its real weight.
_PRODUCT = (
    "forward",
    "_finish",
    "binarized_input",
    "binarized_weight",
    "scale_of",
    "operand",
    "multiply",
    "_per_channel",
)

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
    `activation_first`: its own activation comes before its own shortcut.
    """

    weight: Tensor
    bias: Tensor | None
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
    activation_first: bool = False
    # Whether another layer has the same weight: what is fitted to one of them would be wrong for the other.
    shares_weight: bool = False
    # See `classes.use_packed_forward`; None is what the environment says.
    packed_forward: str | None = None
    # The float class whose place this one takes; None where it takes that of `others` alone.
    replaces: ClassVar[type[nn.Module] | None] = None
    # (library, exact class) of layers with a forward of their own that this class computes too.
    others: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    # What its product is: rules, costs and the packed form go by it. A class with a product of its own (one of
    # `_PRODUCT` overridden) says it again, where it is still that; else it stays unpacked, by name.
    kind: ClassVar[Kind | None] = None

    @classmethod
    def accepts(cls, layer: nn.Module) -> bool:
        """Whether this class can take the place of that layer.

        Of a subclass with a `forward` of its own where that only pads or casts its input. Not of a layer whose weight
        is neither its own parameter (not yet initialised) nor computed in a known way, of one that is binary already.
        """
        own = isinstance(layer._parameters.get("weight"), nn.Parameter)
        if is_binary(layer) or not (own or computes_weight(layer)):
            return False
        if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
            return False
        kind, base = class_before(layer), cls.replaces
        if (kind.__module__.partition(".")[0], kind.__name__) in cls.others:
            return True
        if base is None or not isinstance(layer, base):
            return False
        return cls.fits(_plain(layer, base))

    @classmethod
    def fits(cls, plain: Plain | None) -> bool:
        """Whether this class computes what a layer with a forward of its own was found to compute."""
        return plain is not None and plain.sides is not None

    @classmethod
    def channels_of(cls, layer: nn.Module) -> tuple[int, int]:
        """(input, output) channels of a float layer that this class accepts."""
        made: Any = layer
        if cls.kind == "linear":
            return made.in_features, made.out_features
        return made.in_channels, made.out_channels

    @classmethod
    def product_kind(cls) -> Kind | None:
        """`kind`; None where a class makes its product in its own way and does not say of which kind it still is."""
        said_by = next((i for i, base in enumerate(cls.__mro__) if "kind" in vars(base)), 0)
        own = any(name in vars(base) for base in cls.__mro__[:said_by] for name in _PRODUCT)
        return None if own else cls.kind

    @property
    def pads_by_size(self) -> bool:
        """Whether it pads as much as keeps ceil(size / stride) positions, by the size of its input."""
        return False

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

        Raises: UsageError, where this class does not accept the layer.
        """
        if not cls.accepts(layer):
            wanted = (
                cls.replaces.__name__
                if cls.replaces is not None
                else " or ".join(name for _, name in cls.others)
            )
            raise UsageError(
                f"{cls.__name__}.from_float takes {wanted} as torch computes it, not {type(layer).__name__}"
            )
        new: Any = cls.__new__(with_property(cls) if "weight" in _parametrized(layer) else cls)
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
        new._take_padding(layer)
        new.shortcut_inside = new.activation_inside = True
        new._move_bias_into_norm()
        return cast(Self, new)

    def _take_padding(self, layer: nn.Module) -> None:
        """Pad as the float layer does, in its forward if that is its own."""
        new, base = cast(Any, self), type(self).replaces
        new.__dict__.pop("forward", None)
        own = base is not None and not _is_torchs(layer, base)
        plain = plain_forward(layer) if own else None
        if plain is not None and plain.sides:
            new._reversed_padding_repeated_twice = list(plain.sides)
            new.padding_mode = "zeros" if plain.mode == "constant" else plain.mode
        elif getattr(layer, "padding_mode", None) == "zeros":
            new._reversed_padding_repeated_twice = _sides(layer)

    def _move_bias_into_norm(self) -> None:
        target = getattr(self.norm, "bias", None)
        if self.bias is None or target is None:
            return
        with torch.no_grad():
            target.copy_(self.bias)
        target.requires_grad_(self.bias.requires_grad)
        self.register_parameter("bias", None)

    def binarized_input(self, x: Tensor) -> Tensor:
        """What the convolution reads: two-valued, or x itself for a layer with binary weights only.

        Shapes: (N, C, ...) or (..., C) -> the same.
        """
        if self.threshold is not None:
            x = self.threshold(x)
        return x if self.input_binarizer is None else self.input_binarizer(x)

    def real_weight(self) -> Tensor:
        """The real-valued weight that is binarized: the latent weight, or what the float layer makes of it.

        Shapes: (O, ...), of transposed convolutions (I, O / groups, ...).
        """
        made = computed_weight(self)
        return self.weight if made is None else made

    def binarized_weight(
        self, weight: Tensor | None = None, levels: FilterLevels | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(two-valued weight, scale per output channel to be applied afterwards, or None), or some rows of them.

        `levels` is what the binarizer has told of them already.

        Shapes: that of the weight, (O, 1, ...).
        """
        weight = self.real_weight() if weight is None else weight
        binarizer: Any = self.weight_binarizer
        split = getattr(binarizer, "split", None)
        if split is None:
            return binarizer(weight), None
        values, scale = split(weight) if levels is None else binarizer.split_as(weight, levels)
        return values, self.scale_of(scale)

    def scale_of(self, scale: Tensor | None) -> Tensor | None:
        """A scale per filter as it multiplies the output.

        Shapes: (O, 1, ...) -> (O, 1, 1) of a 2d convolution, (O,) of a linear layer.
        """
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
            y = y + self._per_channel(self.bias).to(y.dtype)
        return bound_gradient(run_parts(self, x, y))

    def operand(self, x: Tensor) -> Tensor:
        """The binary input, padded where the convolution itself cannot pad like that.

        Shapes: (N, C, ...) or (..., C) -> the same, larger by its padding.
        """
        return self.binarized_input(x)

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        """The convolution or matrix product of an operand and a binary weight, or rows of it.

        Shapes: a (N, C, ...) or (..., C), values that of the weight -> (N, O, ...) or (..., O).
        """
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
        raise NotImplementedError

    def filters(self, weight: Tensor) -> Tensor:
        """A weight of this layer with one row a filter: (O, inputs of a filter)."""
        return weight.flatten(1)

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


def _plain(layer: nn.Module, base: type[nn.Module]) -> Plain | None:
    """What a layer of torch's class computes, or of a class of somebody's own that is based on it."""
    return Plain() if _is_torchs(layer, base) else plain_forward(layer)


def _is_torchs(layer: nn.Module, base: type[nn.Module]) -> bool:
    """Whether a layer computes as torch's class does, since its own class overrides nothing of that."""
    kind = class_before(layer)
    methods = [name for name in ("forward", "_conv_forward") if hasattr(base, name)]
    return all(getattr(kind, name) is getattr(base, name) for name in methods) and "forward" not in vars(
        layer
    )


def _parametrized(layer: nn.Module) -> Iterable[str]:
    """Names of the tensors that the layer's parametrizations make."""
    return cast("Iterable[str]", layer._modules.get("parametrizations") or ())


def _sides(layer: nn.Module) -> list[int]:
    """[before, after] of the last axis first, of zeros. torch notes it only when a layer is made, and people change it."""
    conv: Any = layer
    if conv.padding == "valid":
        return [0] * (2 * len(conv.kernel_size))
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [int(side) for side in reversed(conv.padding) for _ in range(2)]


def run_parts(layer: Any, x: Tensor, y: Tensor) -> Tensor:
    """What follows the product `y` of a binary layer on `x`, trained, frozen or packed: the parts that it runs itself.

    Shapes: x (N, C, ...) or (..., C), y (N, O, ...) or (..., O) -> like y.
    """
    if layer.norm is not None:
        y = layer.norm(y)
    acts = layer.activation is not None and layer.activation_inside
    if acts and layer.activation_first:
        y = layer.activation(y)
    if layer.shortcut is not None and layer.shortcut_inside:
        y = y + layer.shortcut(x)
    if acts and not layer.activation_first:
        y = layer.activation(y)
    return y


def is_binary(module: nn.Module) -> bool:
    """Whether the module is one of our binary layers."""
    return isinstance(module, BinaryLayer)

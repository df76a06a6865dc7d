"""MACs, FLOPs, BOPs, OPs and bytes of a plan: before, as trained, as int8, and packed to one bit a weight.

Conventions, the same everywhere in this project:

    MAC   one multiply and one add, for one sample
    FLOPs = MACs of the layers computed in float             (never 2 * MACs)
    BOPs  = MACs of two-valued inputs with two-valued weights, times the number of input bit planes
    OPs   = FLOPs + BOPs / 64                                (Bi-Real Net, https://arxiv.org/abs/1808.00278)

A layer of which only the weights or only the inputs are two-valued multiplies nothing, but adds in float: its
MACs stay in FLOPs and are labelled `float_adds`. Norms, activations, adds and pooling are not counted.

Sizes are bytes of parameters, 4 a float, buffers apart:

    float    the source layer
    latent   the layer as it is trained: float weights and all that the conversion added
    int8     one byte a binary weight, everything else float
    packed   one bit a binary weight, everything else float; the bit stream is one per filter:

             filter 0 | in/groups * kh * kw bits | up to 7 bits of padding |
             filter 1 | ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from binarize.planning.plan import Decision
from binarize.schemes.scheme import Scheme

__all__ = ["LayerCost", "Totals", "layer_cost", "totals"]

FLOAT_BYTES = 4
BOPS_PER_OP = 64


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs before and after its decision."""

    # Weight and bias elements of the source layer; of these, the weights that become two-valued.
    params: int
    binary_weights: int
    # Floats that the conversion adds and trains, and floats that packing stores for the weights' scales.
    extra_params: int
    scale_values: int
    # MACs of the source layer; of these, two-valued times two-valued, and two-valued times float.
    macs: int
    binary_macs: int
    float_adds: int
    # After conversion. FLOPs include `float_adds` and the 1x1 convolution of a projection shortcut.
    flops: int
    bops: int
    float_bytes: int
    latent_bytes: int
    packed_bytes: int
    int8_bytes: int

    @property
    def ops(self) -> float:
        """FLOPs + BOPs / 64 after conversion."""
        return self.flops + self.bops / BOPS_PER_OP


@dataclass(frozen=True)
class Totals:
    """Sums over a model: its layers, and what stands outside them (`other_params`: norms, embeddings)."""

    layers: int
    # Binarized layers, and those among them that read float inputs.
    binary_layers: int
    weight_only_layers: int
    params: int
    other_params: int
    other_buffers: int
    binary_weights: int
    extra_params: int
    scale_values: int
    # `macs` is also the FLOPs of the source model.
    macs: int
    binary_macs: int
    float_adds: int
    flops: int
    bops: int
    ops: float
    float_bytes: int
    latent_bytes: int
    packed_bytes: int
    int8_bytes: int
    # Float bytes over packed bytes; 1 for a model without parameters.
    compression: float
    # Share of the source's MACs that become BOPs, between 0 and 1.
    binary_share: float


def layer_cost(decision: Decision, scheme: Scheme | None = None) -> LayerCost:
    """The cost of one layer, binarized by `scheme`: without one, both its weights and what the decision says are binary.

    Example: a 3x3 convolution of 64 to 64 channels on 56x56 pixels has 115,605,504 MACs; binary, it costs as
    many BOPs, and 64 filters * 72 bytes.
    """
    layer = decision.layer
    float_weights = not decision.binary or (scheme is not None and scheme.weight is None)
    float_inputs = (
        not decision.binary or decision.weights_only or (scheme is not None and scheme.input is None)
    )
    both_binary = not float_weights and not float_inputs
    binary_weights = 0 if float_weights else layer.weights
    scales = 0 if float_weights else decision.scale_values
    # Everything that stays float in the packed and in the int8 form.
    rest = FLOAT_BYTES * (layer.params - binary_weights + decision.extra_params + scales)
    return LayerCost(
        params=layer.params,
        binary_weights=binary_weights,
        extra_params=decision.extra_params,
        scale_values=scales,
        macs=layer.macs,
        binary_macs=layer.macs if both_binary else 0,
        float_adds=layer.macs if float_weights != float_inputs else 0,
        flops=(0 if both_binary else layer.macs) + _projection_macs(decision),
        bops=layer.macs * decision.bitplanes if both_binary else 0,
        float_bytes=FLOAT_BYTES * layer.params,
        latent_bytes=FLOAT_BYTES * (layer.params + decision.extra_params),
        packed_bytes=_bit_stream(binary_weights, layer.out_channels) + rest,
        int8_bytes=binary_weights + rest,
    )


def totals(
    decisions: Iterable[Decision],
    other_params: int = 0,
    other_buffers: int = 0,
    schemes: Mapping[str, Scheme] | None = None,
) -> Totals:
    """The sums over all decisions; `schemes` holds those that the decisions name.

    `other_params` are the source's parameters outside the listed layers. They stay float in every form.
    """
    decisions = tuple(decisions)
    costs = [layer_cost(decision, (schemes or {}).get(decision.scheme or "")) for decision in decisions]
    outside = FLOAT_BYTES * other_params
    macs, binary_macs = sum(cost.macs for cost in costs), sum(cost.binary_macs for cost in costs)
    flops, bops = sum(cost.flops for cost in costs), sum(cost.bops for cost in costs)
    float_bytes = sum(cost.float_bytes for cost in costs) + outside
    packed_bytes = sum(cost.packed_bytes for cost in costs) + outside
    return Totals(
        layers=len(decisions),
        binary_layers=sum(decision.binary for decision in decisions),
        weight_only_layers=sum(decision.weights_only for decision in decisions if decision.binary),
        params=sum(cost.params for cost in costs) + other_params,
        other_params=other_params,
        other_buffers=other_buffers,
        binary_weights=sum(cost.binary_weights for cost in costs),
        extra_params=sum(cost.extra_params for cost in costs),
        scale_values=sum(cost.scale_values for cost in costs),
        macs=macs,
        binary_macs=binary_macs,
        float_adds=sum(cost.float_adds for cost in costs),
        flops=flops,
        bops=bops,
        ops=flops + bops / BOPS_PER_OP,
        float_bytes=float_bytes,
        latent_bytes=sum(cost.latent_bytes for cost in costs) + outside,
        packed_bytes=packed_bytes,
        int8_bytes=sum(cost.int8_bytes for cost in costs) + outside,
        compression=float_bytes / packed_bytes if packed_bytes else 1.0,
        binary_share=binary_macs / macs if macs else 0.0,
    )


def _bit_stream(weights: int, filters: int) -> int:
    """Bytes of the bits, each filter rounded up to whole bytes; one stream if the weight has no filters."""
    if filters < 1 or weights % filters:
        filters = 1
    return filters * (-(-(weights // filters) // 8))


def _projection_macs(decision: Decision) -> int:
    """MACs of the float 1x1 convolution that an added shortcut needs to change its channels."""
    layer = decision.layer
    if "conv1x1" not in decision.shortcut or not layer.out_channels:
        return 0
    positions = prod(layer.out_shape[1:]) // layer.out_channels
    return layer.in_channels * layer.out_channels * positions

"""What the parameters of a model tell about the values in front of a layer, before any image is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from binarize.analysis.flow import Flow
from binarize.layers.shortcuts import ShortcutSpec
from binarize.planning.activations import EXCHANGES, ActivationChange
from binarize.planning.decision import UNKNOWN_START
from binarize.planning.positions import Move
from binarize.planning.record.origin import UNKNOWN, Join, Origin
from binarize.schemes.part import Part

__all__ = [
    "KNOWN_ACTIVATIONS",
    "Origins",
    "ThresholdChoice",
    "choose_threshold",
    "max_window",
    "tells",
    "unknown_threshold",
]


# Activations whose moments are known.
KNOWN_ACTIVATIONS = frozenset(
    {
        "", "relu", "relu6", "silu", "gelu", "hardswish", "mish", "elu", "sigmoid", "hardsigmoid", "leakyrelu",
    }
)  # fmt: skip
# A sigmoid gate at the start of training.
_GATE_AT_START = 0.5
# A sum of more terms is not followed: plans should stay readable. ResNet-152 has 36 blocks in a row.
_MOST_TERMS = 64
_MOST_CARRIED = 16


class Origins:
    """The origins of the values of one recording.

    `norms`      site -> path of the norm that its layer will have inside; may be filled layer by layer
    `shortcuts`  node -> (site of the layer whose real-valued input will be added behind it, in what form)
    `moves`      activations that work on a value before something is added to it
    """

    def __init__(
        self,
        flow: Flow,
        changed: Mapping[int, ActivationChange],
        norms: Mapping[int, str],
        shortcuts: Mapping[int, tuple[int, ShortcutSpec]],
        moves: Mapping[int, Move] | None = None,
    ) -> None:
        self.flow, self.changed, self.norms, self.shortcuts = flow, changed, norms, shortcuts
        self.moves = moves or {}
        self._known: dict[int, Origin | None] = {}

    def in_front(self, site: int) -> Origin | None:
        """The origin of a layer's input; None where nothing tells it. Layers are asked about in execution order."""
        # In order, so that no chain of adds is followed deeper than to the one before.
        for i in range(len(self._known), site):
            self.behind(i)
        inputs = self.flow.data_inputs[site]
        return self.behind(inputs[0]) if inputs else None

    def behind(self, i: int) -> Origin | None:
        """The origin of what a node yields; None where nothing tells it."""
        if i not in self._known:
            # Should the value ever depend on itself, that is not known.
            self._known[i] = None
            self._known[i] = self._followed(i)
        return self._known[i]

    def _followed(self, i: int) -> Origin | None:
        flow, activation, window, factor, flattened = self.flow, "", 1, 1.0, False
        while True:
            kind = flow.kinds[i]
            window *= max_window(flow, i)
            if kind == "gate":
                factor *= _GATE_AT_START
            acts = kind in ("activation", "norm_act") and i not in self.moves
            if acts and not activation and not self._turns_signed(i):
                activation = flow.activation_name(i)
                if activation not in KNOWN_ACTIVATIONS:
                    return None
            if i in self.shortcuts or kind in ("norm", "norm_act", "site"):
                leaf = self._leaf(i)
                if leaf is None:
                    return None
                leaf = self._bent(leaf, i, -1)
                carried = self._carried(*self.shortcuts[i]) if i in self.shortcuts else None
                # What a shortcut of ours adds may be too much to follow; the norm alone tells most of it.
                if carried is None or carried.size > _MOST_CARRIED:
                    found: Origin | None = leaf
                else:
                    found = _joined("add", [leaf, carried])
                return found and replace(found, activation=activation, window=window, factor=factor)
            if kind in ("add", "concat"):
                op: Join = "add" if kind == "add" else "concat"
                found = _joined(op, [self._operand(i, j) for j in flow.data_inputs[i]])
                return found and replace(found, activation=activation, window=window, factor=factor)
            if kind not in ("identity", "pool", "activation", "gate") or not flow.data_inputs[i]:
                return None
            if kind == "identity":
                before, after = flow.shape(flow.data_inputs[i][0]), flow.shape(i)
                # Where channels are cut apart, or flattened in another order than theirs, nobody follows them.
                flattened = flattened or len(after) < len(before)
                if math.prod(before) != math.prod(after) or (flattened and flow.op(i) in EXCHANGES):
                    return None
            # A gate's other operand is the small one, one number a channel.
            operands = flow.data_inputs[i]
            i = max(operands, key=lambda j: math.prod(flow.shape(j))) if kind == "gate" else operands[0]

    def _operand(self, add: int, i: int) -> Origin | None:
        """The origin of what an add or a concatenation reads."""
        origin = self.behind(i)
        return origin and self._bent(origin, i, add)

    def _bent(self, origin: Origin, i: int, add: int) -> Origin:
        """The origin behind the activation that moved to this value, for that add."""
        move = next((m for m in self.moves.values() if (m.behind, m.add) == (i, add)), None)
        if move is None or self._turns_signed(move.node):
            return origin
        name = self.flow.activation_name(move.node)
        if not origin.activation and origin.factor == 1:
            return replace(origin, activation=name)
        return Origin(terms=(origin,), op="add", activation=name)

    def _turns_signed(self, i: int) -> bool:
        return i in self.changed and not self.changed[i].nonnegative

    def _carried(self, site: int, spec: ShortcutSpec) -> Origin | None:
        """The origin of what a shortcut adds: of a projection only that its norm is new."""
        if spec.conv:
            return Origin(terms=(), op="unit")
        origin = self.in_front(site)
        if origin is not None and spec.repeat > 1:
            origin = Origin(terms=(origin,), op="repeat", times=spec.repeat)
        if origin is not None and spec.mean > 1:
            origin = Origin(terms=(origin,), op="mean", times=spec.mean)
        return origin

    def _leaf(self, i: int) -> Origin | None:
        if i in self.norms:
            return Origin(self.norms[i])
        node, module = self.flow.nodes[i], self.flow.module(i)
        return Origin(str(node.target)) if module is not None and tells(module) else None


def tells(module: nn.Module) -> bool:
    """Whether a norm or layer tells the moments of its output channel by channel."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return not getattr(module, "transposed", False)
    if weight is None and bias is None:
        return getattr(module, "num_features", getattr(module, "num_channels", None)) is not None
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return False
    return weight.shape == bias.shape and bias.dim() == 1


def max_window(flow: Flow, i: int) -> int:
    """How many values one value behind a max pooling is chosen from; 1 for anything else."""
    op = flow.op(i).lower().replace("_", "")
    if not op.startswith("maxpool"):
        return 1
    module, node = flow.module(i), flow.nodes[i]
    size = getattr(module, "kernel_size", None) if module is not None else (node.args[1:2] or (1,))[0]
    sizes = size if isinstance(size, (list, tuple)) else [size] * (len(flow.shape(i)) - 2)
    return math.prod(tuple(int(n) for n in sizes if isinstance(n, int)))


def _joined(op: Join, terms: Sequence[Origin | None]) -> Origin | None:
    known = tuple(term for term in terms if term is not None)
    if not known or len(known) < len(terms) or sum(term.size for term in known) > _MOST_TERMS:
        return None
    return Origin(terms=known, op=op)


# The largest of nine values (3x3 pooling) is positive in 99.8 % of all cases; of four, in 94 %.
_ONE_SIDED_WINDOW = 9


@dataclass(frozen=True)
class ThresholdChoice:
    """Where the sign of a layer's input changes at the start."""

    # What the parameters in front tell, to start from.
    origin: Origin
    # Whether the input binarizer holds it itself (RSign's per channel, AdaBin's centre).
    own: bool
    words: str


def choose_threshold(
    origins: Origins, site: int, input_part: Part | None, one_sided: bool
) -> ThresholdChoice | None:
    """A threshold per channel where the input never or hardly ever changes sign.

    Values that only max pooling pushed to one side need none of their own where the input binarizer has a centre that
    moves (AdaBin's beta): it starts there.
    """
    if not (one_sided or _pooled_away(origins.flow, site)):
        return None
    origin = origins.in_front(site)
    per_channel, per_layer = _own_thresholds(input_part)
    scope = "per layer" if per_layer and not one_sided and not per_channel else "per channel"
    start = _words(origin) if origin is not None else UNKNOWN_START
    own = per_channel or (per_layer and not one_sided)
    return ThresholdChoice(origin or UNKNOWN, own, f"{scope}, {start}")


def unknown_threshold(input_part: Part | None) -> ThresholdChoice:
    """A threshold per channel for an input of which nothing is known."""
    return ThresholdChoice(UNKNOWN, _own_thresholds(input_part)[0], f"per channel, {UNKNOWN_START}")


def _own_thresholds(input_part: Part | None) -> tuple[bool, bool]:
    """Whether the input binarizer holds thresholds itself: (per channel, per layer)."""
    if input_part is None:
        return False, False
    channels = 7
    module = input_part.build(channels=channels, channel_dim=1)
    sizes = [p.numel() for p in module.parameters()]
    movable = hasattr(module, "calibrate")
    return movable and any(size % channels == 0 for size in sizes), movable


def _words(origin: Origin) -> str:
    joined = {"add": " and what is added to it", "concat": " and what stands beside it"}
    values = origin.activation or "the values"
    return f"mean of {values} behind {origin.first_path}{joined.get(origin.op or '', '')}"


def _pooled_away(flow: Flow, site: int) -> bool:
    """Whether max pooling chooses from so many values that nearly all of what is left is positive."""
    i, window = site, 1
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        window *= max_window(flow, i)
        if flow.kinds[i] not in ("identity", "pool"):
            break
    return window >= _ONE_SIDED_WINDOW

"""Where real values go around binary layers: own shortcuts where there are none, Bi-Real's rewiring of residual blocks.

own      end + shortcut(x)                       end: the layer's output behind its norm, x: its real-valued input
in place norm(layer(x)) + shortcut(x)            the same inside the layer, where no graph can be edited
rewired  y_1 = end_1 + S(u),  y_i = end_i + x_i  in a residual block S(u) + f_k(...f_1(u)), one shortcut a layer; the
                                                 outer add then takes x_k in place of S(u), which is spent already
Source: Liu et al., Bi-Real Net, ECCV 2018, https://arxiv.org/abs/1808.00278, figure 3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.analysis.layer import Layer
from binarize.analysis.residual import Block
from binarize.layers.shortcuts import ShortcutSpec, plan_shortcut
from binarize.planning.activations import Choice, channel_dim

__all__ = ["ShortcutChange", "change_shortcuts", "end_of", "in_place"]


@dataclass(frozen=True)
class ShortcutChange:
    """What becomes of one layer's shortcut. Nodes are positions in the flow."""

    layer: str
    # own: `spec` inside the layer or around its norm; value: the value of a node is added; none: `why`.
    action: Literal["own", "value", "none"]
    why: str
    spec: ShortcutSpec | None = None
    # The add goes behind this node; for an own shortcut without a norm of the float model it is the layer itself.
    end: int = -1
    value: int = -1
    # The outer add whose operand `value_before` gives way to `value` (last layer of a rewired block).
    merge: int = -1
    replaced: int = -1
    # Inside the layer, behind a norm of its own, although the float model has one behind the layer.
    in_place: bool = False
    # The value is one of the block before.
    across: bool = False

    @property
    def kind(self) -> str:
        """The word in the report."""
        if self.action == "none":
            return "none"
        return self.spec.kind if self.spec is not None else "block"


def change_shortcuts(
    analysis: Analysis, choices: Mapping[str, Choice], closed: Collection[str] = ()
) -> dict[str, ShortcutChange]:
    """One entry per binarized layer. `closed` layers cannot reach the block before theirs."""
    changes: dict[str, ShortcutChange] = {}
    for layer in analysis.layers:
        if layer.name not in choices:
            continue
        mode = choices[layer.name].scheme.shortcut
        if layer.name not in changes:
            if mode in ("every", "residual") and layer.skip == "enclosing":
                changes.update(_rewired(analysis, layer, choices))
            changes.setdefault(layer.name, _alone(analysis, layer, choices[layer.name], mode))
    return {**changes, **_narrow_streams(analysis, choices, changes, closed)}


def _narrow_streams(
    analysis: Analysis,
    choices: Mapping[str, Choice],
    changes: Mapping[str, ShortcutChange],
    closed: Collection[str],
) -> dict[str, ShortcutChange]:
    """Bi-Real's bottlenecks: the first convolution adds the narrow value of the block before, where that has its shape.

    Around the second goes a shortcut of its own, around the third the block's.
    """
    flow, before, found = analysis.flow, -1, {}
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    blocks = {id(block): block for block in flow.block_of.values() if block.kind == "add" and block.span == 3}
    for block in sorted(blocks.values(), key=lambda block: block.merge):
        chain = [site for site in block.inner if site not in flow.gates]
        if len(chain) != 3 or any(names[site] not in changes for site in chain):
            before = -1
            continue
        first, middle, last = chain
        name, end = names[first], end_of(flow, first)
        wanted = choices[name].scheme.shortcut == "every" and changes[name].action == "none"
        if wanted and name not in closed and before >= 0 and end not in (None, first):
            assert end is not None
            if flow.shape(before) == flow.shape(end) and changes[names[middle]].action == "own":
                found[name] = ShortcutChange(name, "value", "", ShortcutSpec(), end, before, across=True)
        before = flow.data_inputs[last][0]
    return found


def in_place(analysis: Analysis, change: ShortcutChange, choice: Choice, why: str) -> ShortcutChange:
    """What is left of a shortcut where `why` forbids to edit the graph: the layer adds its own input to its own norm.

    The outer add stays, so the last layer of a block gets none: its block would count its input twice.
    """
    layer = next(layer for layer in analysis.layers if layer.name == change.layer)
    if change.merge >= 0:
        return ShortcutChange(change.layer, "none", f"{why}; the block's own add stays")
    own = change.spec if change.action == "own" else None
    spec = own or _planned(layer, 1, choice)
    if isinstance(spec, str):
        return ShortcutChange(change.layer, "none", f"{why}; {spec}")
    site = analysis.nodes[change.layer][0]
    return ShortcutChange(change.layer, "own", f"in place: {why}", spec, site, in_place=True)


def end_of(flow: Flow, site: int) -> int | None:
    """The norm that alone reads a layer's output, looking through dropout and reshapes; the layer where there is none.

    None where pooling stands in between: a shortcut behind it would have to pool as well.
    """
    i, pooled = site, False
    while len(flow.users[i]) == 1:
        i = flow.users[i][0]
        if flow.kinds[i] in ("norm", "norm_act"):
            return None if pooled else i
        if flow.kinds[i] == "pool":
            pooled = True
        elif flow.kinds[i] != "identity":
            break
    return site


def _planned(layer: Layer, channel_dim: int, choice: Choice) -> ShortcutSpec | str:
    scheme = choice.scheme
    return plan_shortcut(
        layer.in_shape, layer.out_shape, layer.stride, channel_dim, scheme.projection, scheme.shortcut_scale
    )


def _alone(analysis: Analysis, layer: Layer, choice: Choice, mode: str) -> ShortcutChange:
    """A shortcut around one layer, or the reason why not."""

    def none(why: str) -> ShortcutChange:
        return ShortcutChange(layer.name, "none", why)

    flow, sites = analysis.flow, analysis.nodes[layer.name]
    if mode == "never":
        return none("not asked for")
    if not choice.signed and choice.scheme.input is None:
        return none("its input stays real-valued")
    if any(site in flow.projections for site in sites):
        return none("it stands on a shortcut itself")
    if layer.gate:
        return none("it computes a gate")
    if layer.skip == "own":
        return none("it has one of its own")
    if mode == "residual" and layer.skip != "enclosing":
        return none("it stands in no residual block")
    if layer.skip == "enclosing" and (mode == "missing" or max(layer.kernel or (1,)) == 1):
        return none(f"the block's shortcut goes around {layer.span} layers")
    if layer.skip == "concat" and mode == "missing":
        return none("a concatenation carries its input on")
    if layer.kind == "conv_transpose":
        return none("a transposed convolution has no parameter-free shortcut")
    site = sites[0]
    dim = channel_dim(flow, site) if layer.kind == "linear" else 1
    if layer.kind == "linear":
        dim = 1 if len(layer.in_shape) <= 2 else -1
    specs = [
        _planned(
            replace(layer, in_shape=flow.shape(flow.data_inputs[i][0]), out_shape=flow.shape(i)), dim, choice
        )
        for i in sites
    ]
    spec = next((one for one in specs if isinstance(one, str)), specs[0])
    if isinstance(spec, str):
        return none(spec)
    if any(one != spec for one in specs):
        return none("its calls change the shape in different ways")
    end = end_of(flow, site)
    if end is None:
        return none("its norm stands behind a pooling")
    if flow.shape(end) != flow.shape(site):
        return none("its norm works on another shape")
    if end != site and len(sites) > 1:
        return none(f"it is called {len(sites)} times and its norm stands outside")
    return ShortcutChange(layer.name, "own", "", spec, end)


def _rewired(analysis: Analysis, layer: Layer, choices: Mapping[str, Choice]) -> dict[str, ShortcutChange]:
    """The changes for all layers of the block around `layer`, empty where the block cannot be rewired."""
    flow = analysis.flow
    block = flow.block_of[analysis.nodes[layer.name][0]]
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    chain = [site for site in block.inner if site not in flow.gates]
    if len(chain) != block.span or len({names[site] for site in chain}) != len(chain):
        return {}
    if any(names[site] not in choices or not choices[names[site]].signed for site in chain):
        return {}
    ends = [end_of(flow, site) for site in chain]
    wanted = flow.shape(block.bypass)
    if any(end is None or flow.shape(end) != wanted for end in ends):
        return {}
    values = [block.bypass, *(_of_shape(flow, flow.data_inputs[site][0], wanted) for site in chain[1:])]
    if any(value is None for value in values):
        return {}
    if not _is_behind(flow, block, chain, ends):
        return {}
    changes = {}
    # The block's own value goes on: no module stands on its way that could hold a factor.
    identity = ShortcutSpec()
    for position, (site, end, value) in enumerate(zip(chain, ends, values)):
        assert end is not None and value is not None
        first, last = position == 0, position == len(chain) - 1
        spec = None if first and block.projected else identity
        if last:
            changes[names[site]] = ShortcutChange(
                names[site], "value", "", spec, -1, value, block.merge, block.bypass
            )
        else:
            changes[names[site]] = ShortcutChange(names[site], "value", "", spec, end, value)
    return changes


def _of_shape(flow: Flow, value: int, wanted: tuple[int, ...]) -> int | None:
    """The value in front of a layer before it was padded: what it is added to has the layer's output shape."""
    while flow.shape(value) != wanted:
        if "pad" not in flow.op(value).lower() or not flow.data_inputs[value]:
            return None
        value = flow.data_inputs[value][0]
    return value


def _is_behind(flow: Flow, block: Block, chain: list[int], ends: list[int | None]) -> bool:
    """Whether the block is a plain chain: each layer reads what the one before made, the branch ends behind the last."""
    for end, following in zip(ends, chain[1:]):
        if end is None or not flow.ancestors[following] >> end & 1:
            return False
    last = ends[-1]
    return last is not None and (last == block.branch or bool(flow.ancestors[block.branch] >> last & 1))

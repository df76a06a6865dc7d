"""What is put in front of a layer that stays float: pooling for a strided projection, BatchNorm for a classifier.

pool       x ── avgpool ── 1x1 convolution of stride 1 ── norm ── (+)        a block's shortcut that changes the size
head_norm  feature map ── global pooling ── BatchNorm1d ── linear ── logits

Sources: He et al., Bag of Tricks, CVPR 2019, https://arxiv.org/abs/1812.01187 (section 4.2, ResNet-D), and the networks of
Bi-Real Net, ReActNet and AdaBin for the first; those of IR-Net, IE-Net and AdaBin for the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from binarize.analysis.analyse import Analysis
from binarize.analysis.flow import Flow
from binarize.analysis.layer import Layer
from binarize.planning.activations import ActivationChange, Choice
from binarize.planning.decision import Decision
from binarize.planning.record.edit import free_name
from binarize.planning.record.edit_kinds import Precede
from binarize.rules.rule_set import RuleSet

__all__ = ["Front", "binary_projections", "find_fronts", "norm_in_front", "with_front"]


@dataclass(frozen=True)
class Front:
    """What is put in front of one float layer. The site is a position in the flow."""

    layer: str
    site: int
    # Stride of the average pooling per spatial axis; the layer's own becomes 1. Empty where nothing is pooled.
    pool: tuple[int, ...] = ()
    # Channels of the BatchNorm1d; 0 where there is none.
    norm: int = 0

    def edit(self, container: str, owner: object, node: str) -> Precede:
        """The edit in the graph of a container, the module `owner`, in which the layer's call is `node`."""
        name = free_name(owner, "head_norm" if self.norm else "pool")
        module = f"{container}.{name}" if container else name
        return Precede(container, self.layer, node, module, self.pool, self.norm)

    @property
    def words(self) -> str:
        """The module, for the report."""
        if self.norm:
            return "BatchNorm1d in front"
        same = len(set(self.pool)) == 1
        return "avgpool" + "x".join(map(str, self.pool[:1] if same else self.pool)) + " in front"


def binary_projections(
    analysis: Analysis, rules: RuleSet, kept: dict[str, Decision], choices: dict[str, Choice]
) -> dict[str, Choice]:
    """The choices with the projections whose blocks want them binary; those leave `kept`.

    Only where the rule that keeps one speaks of projections: what another rule keeps, such as a name, stays.
    """
    found = dict(choices)
    for layer in analysis.layers:
        block = _block_choice(analysis, layer, choices)
        if layer.name not in kept or block is None or block.scheme.downsample != "binary":
            continue
        rule = rules.decide(layer)
        if kept[layer.name].guard is None and rule is not None and rule.match.get("downsample"):
            del kept[layer.name]
            found[layer.name] = block
    return {layer.name: found[layer.name] for layer in analysis.layers if layer.name in found}


def find_fronts(
    analysis: Analysis,
    kept: Mapping[str, Decision],
    choices: Mapping[str, Choice],
    activations: Mapping[int, ActivationChange],
) -> dict[str, Front]:
    """What goes in front of which float layer, by name."""
    found = {}
    for layer in analysis.layers:
        sites = analysis.nodes.get(layer.name, [])
        if layer.name not in kept or layer.obstacle is not None or len(sites) != 1:
            continue
        block = _block_choice(analysis, layer, choices)
        if block is not None and block.scheme.downsample == "pool" and _may_pool(layer):
            found[layer.name] = Front(layer.name, sites[0], pool=layer.stride)
        elif _wants_norm(analysis, layer, sites[0], choices, activations):
            found[layer.name] = Front(layer.name, sites[0], norm=layer.in_channels)
    return found


def with_front(decision: Decision, front: Front | None) -> Decision:
    """The decision to keep a layer, with what is put in front of it."""
    if front is None:
        return decision
    if front.norm:
        return replace(decision, norm=f"added {front.words}", extra_params=2 * front.norm)
    return replace(decision, shortcut=front.words)


def norm_in_front(flow: Flow, site: int, activations: Mapping[int, ActivationChange]) -> bool:
    """Whether a norm makes a layer's input, looking through pooling, reshapes and activations that go away."""
    i = site
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        gone = i in activations and activations[i].part is None
        if flow.kinds[i] == "norm" or (flow.kinds[i] == "norm_act" and gone):
            return True
        if flow.kinds[i] not in ("identity", "pool") and not gone:
            return False
    return False


def _block_choice(analysis: Analysis, layer: Layer, choices: Mapping[str, Choice]) -> Choice | None:
    """The choice of the first binary layer of the block on whose shortcut a 1x1 convolution stands."""
    if not layer.downsample or layer.kind != "conv" or set(layer.kernel) != {1}:
        return None
    flow, site = analysis.flow, analysis.nodes[layer.name][0]
    names = {site: name for name, sites in analysis.nodes.items() for site in sites}
    for block in flow.blocks:
        on_bypass = flow.ancestors[block.bypass] >> site & 1 and flow.descendants[block.source] >> site & 1
        if block.kind == "add" and block.projected and on_bypass and site not in block.inner:
            inner = [names[i] for i in block.inner if names[i] in choices and choices[names[i]].signed]
            if inner:
                return choices[inner[0]]
    return None


def _may_pool(layer: Layer) -> bool:
    """Whether a strided 1x1 convolution may read averages in place of single values."""
    unpadded = layer.padding in ("valid", "same") or not any(n for n in layer.padding if isinstance(n, int))
    return any(step > 1 for step in layer.stride) and unpadded and len(layer.stride) in (1, 2, 3)


def _reads_pooled_channels(flow: Flow, layer: Layer, site: int) -> bool:
    """Whether a linear layer reads one number a channel of a feature map, and not its positions."""
    i = site
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        if len(flow.shape(i)) > 2:
            pooled = len(layer.in_shape) == 2 and flow.shape(i)[1] == layer.in_channels
            if pooled or flow.kinds[i] not in ("identity", "pool"):
                return pooled
        elif flow.kinds[i] not in ("identity", "pool"):
            return False
    return False


def _wants_norm(
    analysis: Analysis,
    layer: Layer,
    site: int,
    choices: Mapping[str, Choice],
    activations: Mapping[int, ActivationChange],
) -> bool:
    """Whether a BatchNorm is missing in front of a classifier: by the last binary layer that its input comes from."""
    flow = analysis.flow
    if layer.position != "last" or layer.kind != "linear" or not _reads_pooled_channels(flow, layer, site):
        return False
    before = [name for name in choices if any(flow.ancestors[site] >> i & 1 for i in analysis.nodes[name])]
    return (
        bool(before)
        and choices[before[-1]].scheme.head_norm == "missing"
        and not norm_in_front(flow, site, activations)
    )

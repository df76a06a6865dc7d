"""Residual blocks and gates of a recorded graph: what goes around which layers, and what only scales another tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from binarize.analysis.operations import Operations

__all__ = ["Block", "block_of_each_site", "find_blocks", "gate_sites", "projection_sites"]

# A residual block's bypass may hold these, and at most one site (the projection).
_CLEAN = frozenset({"identity", "norm", "norm_act", "activation", "pool", "scale", "gate"})
# What repeats a tensor's numbers, and what gives as many as it is given.
_SPREADING = frozenset({"expand", "expand_as", "repeat", "tile", "broadcast_to", "repeat_interleave"})
_ELEMENTWISE = frozenset({"identity", "activation", "scale", "gate", "add", "norm"})
# Beyond this many layers an add or a concatenation joins branches of a network (FPN, U-Net): no shortcut around a layer.
_LONGEST_BLOCK = 8


@dataclass(frozen=True)
class Block:
    """A residual block: `source` reaches `merge` through layers (`branch`) and around them (`bypass`)."""

    source: int
    merge: int
    branch: int
    bypass: int
    kind: Literal["add", "concat"]
    projected: bool
    inner: tuple[int, ...]
    # Sites on the longest chain through the branch.
    span: int


def find_blocks(flow: Operations) -> list[Block]:
    """Every residual block, found from its merge backwards."""
    found = []
    for merge, kind in enumerate(flow.kinds):
        if kind not in ("add", "concat"):
            continue
        operands = list(dict.fromkeys(flow.data_inputs[merge]))
        # A concatenation of many (DenseNet) holds one new operand; only its branch can be the block.
        branches = operands if kind == "add" or len(operands) <= 3 else [max(operands)]
        for bypass in operands:
            reach = _bypass_reach(flow, bypass)
            for branch in branches:
                block = None if branch == bypass else _block(flow, merge, branch, bypass, reach)
                if block is not None and block.span <= _LONGEST_BLOCK:
                    found.append(block)
    return found


def _bypass_reach(flow: Operations, bypass: int) -> dict[int, int]:
    """Nodes that reach `bypass` through clean operations and at most one site -> how many sites that takes."""
    crossed = {bypass: 0}
    stack = [bypass]
    while stack:
        i = stack.pop()
        if flow.kinds[i] == "site":
            count = crossed[i] + 1
            if count > 1:
                continue
        elif flow.kinds[i] in _CLEAN:
            count = crossed[i]
        else:
            continue  # other merges are left alone: a block stays local
        for j in flow.data_inputs[i][: 1 if flow.kinds[i] == "gate" else None]:
            if j not in crossed or crossed[j] > count:
                crossed[j] = count
                stack.append(j)
    return crossed


def _block(flow: Operations, merge: int, branch: int, bypass: int, reach: dict[int, int]) -> Block | None:
    before_branch = flow.ancestors[branch] | 1 << branch
    common = [(count, -i) for i, count in reach.items() if before_branch >> i & 1]
    if not common:
        return None
    count, source = min(common)
    source = -source
    inner = tuple(s for s in flow.sites if before_branch >> s & 1 and flow.descendants[source] >> s & 1)
    if not inner or (count and flow.kinds[merge] == "concat"):
        return None
    span = _longest_chain(flow, inner)
    if count and span <= 1:
        return None  # two parallel layers: neither goes around the other
    kind: Literal["add", "concat"] = "add" if flow.kinds[merge] == "add" else "concat"
    return Block(source, merge, branch, bypass, kind, bool(count), inner, span)


def _longest_chain(flow: Operations, sites: tuple[int, ...]) -> int:
    depth: dict[int, int] = {}
    for s in sites:
        depth[s] = 1 + max((depth[t] for t in depth if flow.ancestors[s] >> t & 1), default=0)
    return max(depth.values())


def block_of_each_site(blocks: Iterable[Block]) -> dict[int, Block]:
    """The smallest block around each site: an add if there is one, else a concatenation."""
    best: dict[int, Block] = {}
    for block in sorted(blocks, key=lambda b: (b.kind != "add", b.span, len(b.inner))):
        for site in block.inner:
            best.setdefault(site, block)
    return best


def projection_sites(flow: Operations, blocks: Iterable[Block]) -> set[int]:
    """Sites on the bypass of a residual add: the downsample convolutions."""
    found = set()
    for block in blocks:
        if block.kind == "add" and block.projected:
            on_bypass = flow.ancestors[block.bypass] | 1 << block.bypass
            found |= {
                s for s in flow.sites if on_bypass >> s & 1 and flow.descendants[block.source] >> s & 1
            } - set(block.inner)
    return found


def gate_sites(flow: Operations) -> set[int]:
    """Sites of a squeeze-and-excitation branch, whose values only multiply another tensor, or mix a layer's filters."""
    found = set()
    for gate, kind in enumerate(flow.kinds):
        operands = flow.data_inputs[gate]
        if kind == "site":
            # Of a functional layer: the second is its weight.
            mixes = flow.op(gate).startswith(("conv", "linear")) and flow.functional_weights(gate)
            for operand in operands[1:] if mixes else ():
                found |= _branch_sites(flow, operand)
        if kind != "gate" or len(operands) < 2:
            continue
        spread: dict[int, bool] = {}
        for operand in operands:
            if _numbers(flow, operand) < _numbers(flow, gate) or _is_spread(flow, operand, spread):
                found |= _branch_sites(flow, operand)
    return found


def _numbers(flow: Operations, i: int) -> int:
    return math.prod(flow.shape(i))


def _is_spread(flow: Operations, i: int, known: dict[int, bool]) -> bool:
    """Whether a tensor repeats fewer numbers over its places (`expand_as`), or is made of such tensors alone."""
    if i not in known:
        known[i] = False
        inputs = flow.data_inputs[i]
        fewer = [_numbers(flow, j) < _numbers(flow, i) for j in inputs]
        if flow.op(i).strip("_") in _SPREADING:
            known[i] = any(fewer[:1]) or any(_is_spread(flow, j, known) for j in inputs[:1])
        elif flow.kinds[i] in _ELEMENTWISE:
            known[i] = bool(inputs) and all(
                less or _is_spread(flow, j, known) for j, less in zip(inputs, fewer)
            )
    return known[i]


def _branch_sites(flow: Operations, end: int) -> set[int]:
    """Sites whose every use leads to `end`, walking backwards."""
    sites, inside, stack = set(), {end}, [end]
    while stack:
        i = stack.pop()
        if any(user not in inside for user in flow.users[i]) and i != end:
            continue
        inside.add(i)
        if flow.kinds[i] == "site":
            sites.add(i)
        stack += [j for j in flow.data_inputs[i] if all(u in inside for u in flow.users[j])]
    return sites

"""Questions about a recorded graph: what comes first and last, what stands inside a residual block, which values occur."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

from binarize.analysis.calls import LOWNEG, NONNEG
from binarize.analysis.operations import Operations
from binarize.analysis.residual import Block, block_of_each_site, find_blocks, gate_sites, projection_sites

__all__ = ["Flow"]

# Values behind these have both signs, whatever stands in front.
_CENTRED = frozenset({"placeholder", "get_attr", "output", "site", "norm", "norm_act", "activation"})

# What yields values of its first argument, or of either factor, at places or in shares that the other one says.
_MOVING = frozenset(
    {"matmul", "mm", "bmm", "grid_sample", "grid_sampler", "getitem", "gather", "index_select"}
)


class Flow(Operations):
    """Data flow of one recording."""

    # --- first and last

    @cached_property
    def first_sites(self) -> set[int]:
        """Per input: the sites it reaches without crossing a site, less those that have another such site before them.

        These too count where they read the input itself, which values of the network moved or scaled (behind a
        spatial transformer or a gate).
        """
        found = {s for s in self.sites if self.data_inputs[s] and self._raw[self.data_inputs[s][0]]}
        for i, node in enumerate(self.nodes):
            if node.op == "placeholder":
                near = self._nearest_sites([i], self.users)
                mask = sum(1 << s for s in near)
                found |= {s for s in near if not self.ancestors[s] & mask}
        return found

    @cached_property
    def _raw(self) -> list[bool]:
        """Of each node, whether it yields values of an input, no layer's: moved, scaled or combined with each other."""
        raw: list[bool] = []
        for i, kind in enumerate(self.kinds):
            read = [raw[j] for j in self.data_inputs[i]]
            if self._moves(i):
                raw.append(
                    any(read) if kind == "gate" or "mm" in self.op(i) or "mul" in self.op(i) else read[0]
                )
            else:
                raw.append(kind == "placeholder" or (kind != "site" and bool(read) and all(read)))
        return raw

    def _moves(self, i: int) -> bool:
        """Whether a node puts values of one tensor to other places, or scales them, by those of another."""
        return len(self.data_inputs[i]) > 1 and (self.kinds[i] == "gate" or self.op(i).strip("_") in _MOVING)

    @cached_property
    def last_sites(self) -> set[int]:
        """Per output tensor: the sites that reach it without crossing a site, less those with another one behind them."""
        found: set[int] = set()
        for i in self.inputs[-1]:
            near = {i} if self.kinds[i] == "site" else self._nearest_sites([i], self.inputs)
            mask = sum(1 << s for s in near)
            found |= {s for s in near if not self.descendants[s] & mask}
        if found | self.first_sites >= set(self.sites):
            # A model that yields every feature map that it makes (a discriminator, for a loss on them): heads are those
            # that lead to none.
            mask = sum(1 << s for s in found)
            return {s for s in found if not self.descendants[s] & mask}
        return found

    def _nearest_sites(self, start: list[int], edges: list[list[int]]) -> set[int]:
        seen, stack, sites = set(start), list(start), set()
        while stack:
            for j in edges[stack.pop()]:
                if j not in seen:
                    seen.add(j)
                    if self.kinds[j] == "site":
                        sites.add(j)
                    else:
                        stack.append(j)
        return sites

    # --- residual blocks

    @cached_property
    def blocks(self) -> list[Block]:
        """Every residual block, found from its merge backwards."""
        return find_blocks(self)

    @cached_property
    def block_of(self) -> dict[int, Block]:
        """The smallest block around each site: an add if there is one, else a concatenation."""
        return block_of_each_site(self.blocks)

    @cached_property
    def projections(self) -> set[int]:
        """Sites on the bypass of a residual add: the downsample convolutions."""
        return projection_sites(self, self.blocks)

    @cached_property
    def gates(self) -> set[int]:
        """Sites whose values only multiply another tensor, or say where the values of an input go."""
        found = gate_sites(self)
        for i in range(len(self.nodes)):
            if self.kinds[i] != "gate" and self._moves(i) and self._raw[i]:
                for operand in self.data_inputs[i]:
                    if not self._raw[operand]:
                        found |= self._nearest_sites([operand], self.inputs)
        return found

    # --- value ranges

    def signs(
        self, replaced: Callable[[int], bool] = lambda i: False
    ) -> list[Literal["nonneg", "lowneg", "any"]]:
        """What values each node can take, given that the activations for which `replaced` holds yield any sign."""
        result: list[Literal["nonneg", "lowneg", "any"]] = []
        for i, kind in enumerate(self.kinds):
            inputs = {result[j] for j in self.data_inputs[i]}
            name = self.activation_name(i) if kind in ("activation", "norm_act") else ""
            if name and not replaced(i):
                result.append("nonneg" if name in NONNEG else "lowneg" if name in LOWNEG else "any")
            elif kind in ("identity", "pool") and len(inputs) == 1:
                result.append(next(iter(inputs)))
            elif kind in ("add", "gate", "concat") and inputs == {"nonneg"}:
                result.append("nonneg")
            elif kind in ("concat", "gate") and inputs and inputs <= {"nonneg", "lowneg"}:
                result.append("lowneg")
            elif kind not in _CENTRED and not name and inputs and inputs <= {"nonneg", "lowneg"}:
                # What it does is not known: that it makes negative numbers of others is the exception.
                result.append("lowneg")
            else:
                result.append("nonneg" if self._ends_nonnegative(i) else "any")
        return result

    def _ends_nonnegative(self, i: int) -> bool:
        """Whether a module that is one operation here ends in an activation without negative values."""
        inside = self.nodes[i].meta.get("inside", ())
        return bool(inside) and str(inside[-1]).rstrip("_") in NONNEG

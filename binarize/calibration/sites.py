"""Which values of a float model and of its binary counterpart are compared.

A site is a layer with the norm that directly follows it. Both models hold it under the same path. Its value is

    y = norm(layer(x))            where nothing is added
    y = norm(layer(x)) + other    where an add reads the norm's output first: a residual, or a new shortcut

always in front of the nonlinearity, since that may have moved or changed. The two models are compared at y; only
where the float model adds nothing is a shortcut's sum compared with the float model's norm itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from binarize.layers.layer import BinaryLayer

__all__ = ["NORMS", "Goal", "Site", "Target", "Targets", "activation_of", "without_activation"]

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
)
# Share of the error of a float model's residual that a layer of binary inputs is to make good. Measured: all of it, by a
# layer that hardly sees it, costs such networks up to seven points; layers of real inputs make all of it good.
_REPAIR = 0.5


@dataclass(eq=False)
class Site:
    """One call of a layer and of the norm behind it."""

    # Path of the layer; of the norm where no layer stands directly in front of it.
    name: str
    layer: nn.Module | None
    norm: nn.Module | None
    # What the layer reads, and what the norm reads.
    x: Tensor | None
    z: Tensor | None
    # The output of the norm, or of the layer without one.
    out: Tensor

    @property
    def binary(self) -> bool:
        """Whether the layer is binary."""
        return isinstance(self.layer, BinaryLayer)

    def value_for(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """(what the norm reads, the site's value) where the layer reads `x`.

        Shapes: x as the layer takes it -> (N, O, ...) or (..., O) each.
        """
        assert self.layer is not None
        if self.norm is None:
            value: Tensor = self.layer(x)
            return None, value
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self.norm.register_forward_hook(lambda norm, args, output: seen.append((args[0], output)))
        try:
            found = self.layer(x)
            # A binary layer may run the norm itself.
            if self.layer._modules.get("norm") is not self.norm:
                self.norm(found)
        finally:
            handle.remove()
        return seen[0]

    def run_norm(self) -> None:
        """Write the value anew, in place, where only the norm has changed."""
        assert self.norm is not None and self.z is not None
        self.out.copy_(self.norm.forward(self.z))

    def run_layer(self) -> None:
        """Write the value anew, in place, where the layer has changed."""
        assert self.x is not None
        self.z, value = self.value_for(self.x)
        self.out.copy_(value)


@dataclass
class Target:
    """What the float model has at a site."""

    out: Tensor
    # The sum, where the float model adds something.
    total: Tensor | None = None
    # Whether a ReLU reads it.
    relu: bool = False


# By the site's name; of its first call.
Targets = dict[str, Target]


@dataclass(frozen=True)
class Goal:
    """What the value of a site is to come nearest to."""

    # The sum with `other`, and the part of it that is the site's own.
    total: Tensor
    own: Tensor
    # What is added to the site's value, where anything is.
    other: Tensor | None
    # Whether a ReLU reads the sum.
    relu: bool

    @classmethod
    def of(cls, site: Site, target: Target, other: Tensor | None) -> Goal:
        """The float model's sum where it adds something too, else its norm alone."""
        if other is None:
            return cls(target.out, target.out, None, target.relu)
        if target.total is None:
            return cls(target.out, target.out - other, other, target.relu)
        own = target.total - other
        layer = site.layer
        if isinstance(layer, BinaryLayer) and layer.input_binarizer is not None:
            own = target.out + _REPAIR * (own - target.out)
            return cls(own + other, own, other, target.relu)
        return cls(target.total, own, other, target.relu)


def activation_of(norm: nn.Module | None) -> nn.Module | None:
    """The activation that a norm holds (timm's BatchNormAct2d), None where that is no change."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) and not isinstance(act, nn.Identity) else None


@contextmanager
def without_activation(norm: nn.Module | None) -> Iterator[None]:
    """The norm alone, whatever it holds."""
    act = activation_of(norm)
    if norm is not None and act is not None:
        norm.act = nn.Identity()
    try:
        yield
    finally:
        if norm is not None and act is not None:
            norm.act = act

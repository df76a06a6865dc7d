"""The sites of a model, found while it runs.

No graph is needed: layers and norms are followed by hooks, adds and activations by a TorchFunctionMode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from binarize.calibration.sites import NORMS, Site, Target, Targets, activation_of, without_activation
from binarize.layers.classes import FLOAT_CLASSES
from binarize.layers.layer import BinaryLayer

__all__ = ["SiteFollower", "call_counts", "record_targets"]

LAYERS = FLOAT_CLASSES

_ADDS = ("add", "add_", "__add__", "__iadd__", "__radd__")
_RELUS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_")
# They ask something about a tensor and use no value of it.
_QUESTIONS = ("__get__", "size", "dim", "stride", "numel", "is_contiguous", "is_floating_point", "__len__")


class SiteFollower(TorchFunctionMode):
    """Tells of every site of a model, at the moment in which its value is first read.

    `reached(sites, other)` is called before that reading, with all sites that are read at once: `other` is what is about to
    be added to the last of them, or None. It may change every `site.out` in place. `passed(site, total, reader)` is called
    when the sum is read in turn, by the function of that name.
    """

    def __init__(
        self,
        model: nn.Module,
        reached: Callable[[list[Site], Tensor | None], None],
        passed: Callable[[Site, Tensor, str], None],
    ) -> None:
        super().__init__()
        self.model, self.reached, self.passed = model, reached, passed
        self._handles: list[Any] = []
        # Held here by the identity of their output, so that no other tensor can take that identity.
        self._pending: dict[int, Site] = {}
        self._totals: dict[int, tuple[Site, Tensor]] = {}
        self._inside: dict[nn.Module, tuple[str, nn.Module]] = {}
        self._reading: dict[nn.Module, Tensor] = {}
        self._normed: dict[nn.Module, Site] = {}
        # While a site is settled, its layer may run many times: those runs are nobody's sites.
        self._busy = False

    def __enter__(self) -> SiteFollower:
        parts = _parts_of_layers(self.model)
        for name, module in self.model.named_modules():
            if module in parts:
                continue
            if isinstance(module, LAYERS):
                own = getattr(module, "norm", None) if isinstance(module, BinaryLayer) else None
                if own is not None:
                    self._inside[own] = (name, module)
                    self._handles.append(module.register_forward_pre_hook(self._before_layer))
                else:
                    self._handles.append(module.register_forward_hook(self._after_layer(name)))
            elif isinstance(module, NORMS):
                self._handles.append(module.register_forward_pre_hook(self._before_norm(name)))
                self._handles.append(module.register_forward_hook(self._after_norm))
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        for memory in (self._pending, self._totals, self._reading, self._normed):
            memory.clear()

    def site_of(self, value: Tensor) -> Site | None:
        """The site whose value or sum this tensor is, as long as nothing has read it."""
        if id(value) in self._totals:
            return self._totals[id(value)][0]
        return self._pending.get(id(value))

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(function, "__name__", "")
        kwargs = kwargs or {}
        if name in _QUESTIONS or not (self._pending or self._totals):
            return function(*args, **kwargs)
        read = [value for value in pytree.tree_leaves((args, dict(kwargs))) if isinstance(value, Tensor)]
        for value in read:
            if id(value) in self._totals:
                site, total = self._totals.pop(id(value))
                self.passed(site, total, name)
        sites = [self._pending.pop(id(value)) for value in read if id(value) in self._pending]
        if not sites:
            return function(*args, **kwargs)
        # Of two sites that are added, the one that stands in the other's shortcut is settled first.
        sites.sort(key=lambda site: site.binary)
        other = _other_operand(name, args, sites[-1].out)
        self._busy = True
        try:
            self.reached(sites, other)
        finally:
            self._busy = False
        if other is None:
            for site in sites:
                self.passed(site, site.out, name)
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        self._totals[id(result)] = (sites[-1], result)
        return result

    def _before_layer(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not self._busy:
            self._reading[module] = args[0]

    def _after_layer(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not self._busy:
                self._pending[id(output)] = Site(name, module, None, args[0], None, output)

        return hook

    def _before_norm(self, name: str) -> Any:
        def hook(norm: nn.Module, args: tuple[Any, ...]) -> None:
            z = args[0]
            if self._busy:
                return
            if norm in self._inside:
                path, layer = self._inside[norm]
                self._normed[norm] = Site(path, layer, norm, self._reading.pop(layer), z, z)
                return
            before = self._pending.pop(id(z), None)
            if before is not None:
                self._normed[norm] = Site(before.name, before.layer, norm, before.x, z, z)
            else:
                self._normed[norm] = Site(name, None, norm, None, z, z)

        return hook

    def _after_norm(self, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if not self._busy:
            site = self._normed.pop(norm)
            site.out = output
            self._pending[id(output)] = site


def _parts_of_layers(model: nn.Module) -> set[nn.Module]:
    """What binary layers hold in front of the sign and in their shortcuts: no counterpart of anything float."""
    found: set[nn.Module] = set()
    for layer in model.modules():
        if isinstance(layer, BinaryLayer):
            for part in (layer.threshold, layer.shortcut):
                found.update(part.modules() if part is not None else ())
    return found


def _other_operand(name: str, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
    """What is added to `out` by this call, where that is a tensor of the same shape."""
    if name not in _ADDS or len(args) < 2:
        return None
    other = args[1] if args[0] is out else args[0]
    return other if isinstance(other, Tensor) and other is not out and other.shape == out.shape else None


def record_targets(model: nn.Module, run: Callable[[], Any]) -> tuple[Targets, Any]:
    """(the values of all sites of the float model, its output); `run` calls it."""
    targets: Targets = {}
    current: dict[str, Site] = {}

    def reached(sites: list[Site], other: Tensor | None) -> None:
        # The sum is that of every site in it: which of them is the last one depends on what is binary in the other model.
        total = None if other is None else sites[-1].out + other
        for site in sites:
            keep(site, total)

    def keep(site: Site, total: Tensor | None) -> None:
        if site.name not in targets:
            act = activation_of(site.norm)
            if act is not None:
                assert site.norm is not None and site.z is not None
                with without_activation(site.norm):
                    out = site.norm.forward(site.z)
                targets[site.name] = Target(out, relu=isinstance(act, (nn.ReLU, nn.ReLU6)))
                return
            # A copy: an in-place activation may overwrite it.
            out = site.out.clone()
            targets[site.name] = Target(out, total)
            current[site.name] = site

    def passed(site: Site, total: Tensor, reader: str) -> None:
        if current.get(site.name) is site:
            targets[site.name].relu = reader in _RELUS

    with SiteFollower(model, reached, passed):
        output = run()
    return targets, output


def call_counts(model: nn.Module, run: Callable[[], Any]) -> Counter[nn.Module]:
    """How often each layer and norm runs in one forward pass."""
    counts: Counter[nn.Module] = Counter()
    handles = [
        module.register_forward_pre_hook(lambda m, args: counts.update([m]))
        for module in model.modules()
        if isinstance(module, (*LAYERS, *NORMS))
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return counts

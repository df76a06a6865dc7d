"""One forward pass in which every layer is settled at the moment it runs, so that the next one sees what it will see.

1. the float model runs: its values at all sites are kept
2. the binary model runs on the same images. Before a binary layer: threshold and levels of its input. At each site
   behind the first binary layer: signs of the filters (where asked for), statistics of the norm, scale and shift;
   then steps of Adam (where asked for). The pass goes on with the new values
3. the classifier is refitted to the float model's output where it reads the binary features
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import Maxout
from binarize.binarizers.reactnet import RPReLU
from binarize.binarizers.xnorpp import ChannelScale
from binarize.calibration import closed_form
from binarize.calibration.closed_form import Fit
from binarize.calibration.progress import Progress
from binarize.calibration.signs import search_signs
from binarize.calibration.sites import (
    NORMS,
    Site,
    SiteFollower,
    Target,
    Targets,
    activation_of,
    call_counts,
    without_activation,
)
from binarize.calibration.steps import Steps, reconstruct, site_output, trained_parameters
from binarize.calibration.thresholds import set_input
from binarize.layers.layer import BinaryLayer

__all__ = ["Settled", "settle"]

Tick = Callable[[str, int, int], None]


# Measured: thresholds halfway between the mean and the best split beat both.
_SPLIT = 0.5
# Share of the error of a float model's residual that a layer of binary inputs is to make good. Measured: all of it, by a
# layer that hardly sees it, costs such networks up to seven points; layers of real inputs make all of it good.
_REPAIR = 0.5
# What may stand where the float model has a ReLU.
NONLINEARITIES = (Maxout, RPReLU, nn.PReLU)


def as_relu(module: nn.Module) -> None:
    """Set one of `NONLINEARITIES` so that it computes max(x, 0)."""
    values = {"pos": 1.0, "neg": 0.0, "gamma": 0.0, "zeta": 0.0, "slope": 0.0, "weight": 0.0}
    for name, parameter in module.named_parameters(recurse=False):
        parameter.data.fill_(values[name])


@dataclass
class Settled:
    """What was set, by the names of layers."""

    inputs: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    fitted: list[str] = field(default_factory=list)
    # Layer -> signs changed by the search; of how many.
    flipped: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Layer -> error over the float output's variance: (closed form, after the steps).
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)


def settle(
    model: nn.Module,
    run: Callable[[], Any],
    targets: Targets,
    *,
    fit: Fit = "least-squares",
    signs: bool = False,
    steps: Steps | None = None,
    classifiers: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    tick: Tick = lambda name, done, of: None,
    progress: Progress | None = None,
) -> Settled:
    """Settle the model in evaluation mode, in place; `run` calls it on the images that `targets` were recorded on.

    `classifiers` are the float linear layers to refit, with the float model's output of each.
    """
    pass_ = _Pass(model, targets, fit, signs, steps, call_counts(model, run), seed, tick, progress)
    handles = [
        module.register_forward_pre_hook(pass_.before(name))
        for name, module in model.named_modules()
        if isinstance(module, BinaryLayer)
    ]
    for name, wanted in (classifiers or {}).items():
        handles.append(model.get_submodule(name).register_forward_pre_hook(pass_.classifier(name, wanted)))
    for module in model.modules():
        if isinstance(module, BinaryLayer) and module.shortcut is not None:
            handles += [
                part.register_forward_hook(pass_.scaled)
                for part in module.shortcut.modules()
                if isinstance(part, ChannelScale)
            ]
    follower = SiteFollower(model, pass_.reached, lambda site, total, reader: None)
    for module in model.modules():
        if isinstance(module, NONLINEARITIES):
            handles.append(module.register_forward_pre_hook(pass_.nonlinearity(follower)))
    try:
        with follower:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return pass_.settled


class _Pass:
    """The state of one pass."""

    def __init__(
        self,
        model: nn.Module,
        targets: Targets,
        fit: Fit,
        signs: bool,
        steps: Steps | None,
        counts: Mapping[nn.Module, int],
        seed: int,
        tick: Tick,
        progress: Progress | None,
    ) -> None:
        self.targets, self.fit, self.signs, self.steps = targets, fit, signs, steps
        self.counts, self.tick = counts, tick
        self.progress = progress or Progress()
        self.names = {module: name for name, module in model.named_modules()}
        self.layers = sum(isinstance(module, BinaryLayer) for module in counts)
        self.generator = torch.Generator().manual_seed(seed)
        self.started = False
        self._done = 0
        self.settled = Settled()
        self._seen: set[nn.Module] = set()
        # The newest shortcut with a factor: (its factor, what that multiplies, the product).
        self._shortcut: tuple[ChannelScale, Tensor, Tensor] | None = None

    def before(self, name: str) -> Any:
        """The hook that sets a binary layer's input."""

        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(layer, BinaryLayer)
            self.started = True
            # Called again with other values: the first call decides.
            if layer in self._seen:
                return
            self._seen.add(layer)
            norm = layer.threshold
            if norm is not None and _keeps_statistics(norm):
                closed_form.normalized(norm, args[0])
                self.settled.norms.append(self.names[norm])
            if set_input(layer, args[0], _SPLIT):
                self.settled.inputs.append(name)

        return hook

    def classifier(self, name: str, wanted: Tensor) -> Any:
        """The hook that refits a float linear layer."""

        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if self.started and self.counts[layer] == 1:
                h = args[0]
                if h.shape[:-1] == wanted.shape[:-1] and closed_form.fit_classifier(
                    cast(nn.Linear, layer), h, wanted
                ):
                    self.settled.fitted.append(name)

        return hook

    def scaled(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """The hook that remembers a shortcut until its sum is settled."""
        self._shortcut = (cast(ChannelScale, module), args[0], output)

    def nonlinearity(self, follower: SiteFollower) -> Any:
        """The hook that lets a nonlinearity begin as the ReLU that it stands for."""

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            site = follower.site_of(args[0])
            target = None if site is None else self.targets.get(site.name)
            if target is not None and target.relu and module not in self._seen:
                self._seen.add(module)
                as_relu(module)

        return hook

    def reached(self, sites: list[Site], other: Tensor | None) -> None:
        """Settle sites that are read at once, `other` added to the last of them."""
        for site in sites[:-1]:
            self._reached(site, None)
        self._reached(sites[-1], other)

    def _reached(self, site: Site, other: Tensor | None) -> None:
        """Settle one site; its output changes in place."""
        if not self.started:
            return
        parts = [part for part in (site.layer, site.norm) if part is not None]
        # One map cannot serve the several places of a shared module: only its statistics are taken, in its first call.
        alone = all(self.counts[part] == 1 for part in parts)
        target = self.targets.get(site.name)
        known = target is not None and target.out.shape == site.out.shape
        if site.norm is not None and site.norm not in self._seen:
            self._seen.add(site.norm)
            if alone:
                # The statistics of a shared norm are those of all its calls, and taken at the end.
                self.settled.norms.append(self.names[site.norm])
            if not (alone and known and _has_affine(site.norm)):
                assert site.z is not None
                closed_form.normalized(site.norm, site.z) if _keeps_statistics(site.norm) else None
                site.out.copy_(_run(site.norm, site.z))
        if not (alone and known):
            return
        assert target is not None
        self._fit(site, target, other)

    def _fit(self, site: Site, target: Target, other: Tensor | None) -> None:
        if activation_of(site.norm) is not None:
            # What is added behind the activation is no part of what is compared in front of it.
            with without_activation(site.norm):
                self._fit(site, target, None)
            assert site.norm is not None and site.z is not None
            site.out.copy_(_run(site.norm, site.z))
            return
        layer, norm = site.layer, site.norm
        total = target.total if other is not None and target.total is not None else target.out
        wanted = total if other is None else total - other
        if other is not None and target.total is not None and _has_binary_input(layer):
            wanted = target.out + _REPAIR * (wanted - target.out)
            total = wanted + other
        if self.signs and isinstance(layer, BinaryLayer) and site.x is not None:
            flipped = search_signs(layer, site.x, wanted)
            if flipped is not None:
                self.settled.flipped[site.name] = (flipped, cast(Tensor, layer.weight).numel())
                site.z, site.out = _again(site, site.out)
        if norm is not None and _has_affine(norm):
            assert site.z is not None
            if other is None or not self._fit_both(norm, site.z, other, total):
                closed_form.fit_norm(norm, site.z, wanted, self.fit)
        elif layer is not None and not closed_form.fit_layer(layer, site.out, wanted, self.fit):
            return
        self.settled.fitted.append(site.name)
        if isinstance(layer, BinaryLayer) and site.x is not None:
            self._done += 1
            self.tick(site.name, self._done, self.layers)
            if self.steps is not None:
                self.settled.errors[site.name] = self._trained(site, total, other, target.relu, self.steps)
            site.z, _ = _again(site, site.out)
        elif norm is not None:
            assert site.z is not None
            site.out.copy_(_run(norm, site.z))
        elif layer is not None and site.x is not None:
            site.out.copy_(_run(layer, site.x))
        if norm is not None and self.steps is not None and _keeps_statistics(norm):
            _renew(norm, site)

    def _trained(
        self, site: Site, total: Tensor, other: Tensor | None, relu: bool, steps: Steps
    ) -> tuple[float, float]:
        """The errors before and after the steps; what an interrupted calibration has trained is not trained again."""
        return self.progress.layer(
            site.name,
            trained_parameters(site),
            self.generator,
            lambda: reconstruct(site, total, other, relu, steps, self.generator),
        )

    def _fit_both(self, norm: nn.Module, z: Tensor, other: Tensor, total: Tensor) -> bool:
        """Fit the norm and the factor of the shortcut that is about to be added, where it has one; whether it has."""
        if self._shortcut is None or self.fit != "least-squares":
            return False
        shortcut, v, carried = self._shortcut
        if carried is not other:
            return False
        closed_form.fit_with_shortcut(norm, z, shortcut, v, total)
        other.copy_(_run(shortcut, v))
        return True


def _again(site: Site, out: Tensor) -> tuple[Tensor | None, Tensor]:
    """(what the norm reads, the output written into `out`) of a layer that has changed."""
    assert site.x is not None
    seen: list[Tensor] = []
    handle = None
    if site.norm is not None:
        handle = site.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        out.copy_(site_output(site, site.x))
    finally:
        if handle is not None:
            handle.remove()
    return (seen[0] if seen else None), out


def _run(module: nn.Module, x: Tensor | None) -> Tensor:
    assert x is not None
    return cast(Tensor, module.forward(x))


def _renew(norm: nn.Module, site: Site) -> None:
    """Take the statistics of what the norm reads now, changing scale and shift so that its output stays the same."""
    bn = cast(nn.modules.batchnorm._BatchNorm, norm)
    assert site.z is not None and bn.running_mean is not None and bn.running_var is not None
    mean, deviation = bn.running_mean.clone(), (bn.running_var + bn.eps).sqrt()
    closed_form.normalized(norm, site.z)
    if not _has_affine(norm):
        return
    scale = bn.weight.detach() * (bn.running_var + bn.eps).sqrt() / deviation
    shift = bn.bias.detach() + bn.weight.detach() * (bn.running_mean - mean) / deviation
    closed_form.set_affine(norm, scale, shift)


def _has_binary_input(layer: nn.Module | None) -> bool:
    return isinstance(layer, BinaryLayer) and layer.input_binarizer is not None


def _has_affine(norm: nn.Module) -> bool:
    return isinstance(norm, NORMS) and norm.weight is not None and norm.bias is not None


def _keeps_statistics(norm: nn.Module) -> bool:
    return isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None

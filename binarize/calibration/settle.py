"""One forward pass in which every layer is settled at the moment it runs, so that the next one sees what it will see.

The float model has run before: its values at all sites are the `targets`. While the binary model runs on the same images,

    where                            measured                      written
    before a nonlinearity            -                             where it stands for a ReLU: it computes that
    before a binary layer            its input                     threshold and levels; the norm in front of the sign
    at a site behind one, when its   what the norm reads           the norm's running statistics
    value is first read              the value, what is added      signs of the filters (where asked for), scale and
                                     to it, the float value        shift; then steps of Adam (where asked for)
    before a float linear layer      its input                     the layer, fitted to the float model's output

A site is settled only where the float model has a value of the same shape, and where its layer and norm run once: one map
cannot serve several places. Its value is then written anew in place, so that the pass goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from binarize.binarizers.nonlinearity import STARTS_AS_RELU, start_as_relu
from binarize.binarizers.xnorpp import ChannelScale
from binarize.calibration import closed_form
from binarize.calibration.follow import SiteFollower, call_counts
from binarize.calibration.norms import renew_statistics
from binarize.calibration.progress import Watch
from binarize.calibration.result import Settled
from binarize.calibration.signs import search_signs
from binarize.calibration.sites import Goal, Site, Targets, activation_of, without_activation
from binarize.calibration.steps import Fitting, Steps, reconstruct, trained_parameters
from binarize.calibration.thresholds import set_input
from binarize.layers.layer import BinaryLayer

__all__ = ["settle"]

# Measured: thresholds halfway between the mean and the best split beat both.
_SPLIT = 0.5


def settle(
    model: nn.Module,
    run: Callable[[], Any],
    targets: Targets,
    how: Fitting,
    classifiers: Mapping[str, Tensor],
    watch: Watch,
) -> Settled:
    """Settle the model in evaluation mode, in place; `run` calls it on the images that `targets` were recorded on.

    `classifiers` are the float linear layers to refit, with the float model's output of each.
    """
    settling = _Settling(model, targets, call_counts(model, run), how, watch)
    with settling.following(model, classifiers):
        run()
    return settling.settled


class _Settling:
    """What is known in the middle of the pass. Every method that ends in `_hook` is one of torch's."""

    def __init__(
        self, model: nn.Module, targets: Targets, counts: Mapping[nn.Module, int], how: Fitting, watch: Watch
    ) -> None:
        self.targets, self.counts, self.how, self.watch = targets, counts, how, watch
        self.names = {module: name for name, module in model.named_modules()}
        self.layers = sum(isinstance(module, BinaryLayer) for module in counts)
        self.generator = torch.Generator().manual_seed(how.seed)
        self.follower = SiteFollower(model, self.reached, lambda site, total, reader: None)
        self.settled = Settled()
        # Whether a binary layer has run.
        self.started = False
        # Binary layers that were settled.
        self.done = 0
        # What is set in its first call alone: binary layers, norms, nonlinearities.
        self.seen: set[nn.Module] = set()
        # The newest shortcut with a factor: (its factor, what that multiplies, the product).
        self.shortcut: tuple[ChannelScale, Tensor, Tensor] | None = None

    @contextmanager
    def following(self, model: nn.Module, classifiers: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, every forward pass of the model settles it."""
        with ExitStack() as stack:
            for handle in self._hooks(model, classifiers):
                stack.callback(handle.remove)
            stack.enter_context(self.follower)
            yield

    def _hooks(self, model: nn.Module, classifiers: Mapping[str, Tensor]) -> list[RemovableHandle]:
        handles = []
        for module in model.modules():
            if isinstance(module, BinaryLayer):
                handles.append(module.register_forward_pre_hook(self.layer_hook))
                scales = module.shortcut.modules() if module.shortcut is not None else ()
                handles += [
                    part.register_forward_hook(self.scaled_hook)
                    for part in scales
                    if isinstance(part, ChannelScale)
                ]
            elif isinstance(module, STARTS_AS_RELU):
                handles.append(module.register_forward_pre_hook(self.nonlinearity_hook))
        for name, wanted in classifiers.items():
            hook = self.classifier_hook(name, wanted)
            handles.append(model.get_submodule(name).register_forward_pre_hook(hook))
        return handles

    def is_new(self, module: nn.Module) -> bool:
        """Whether this is its first call. Called again with other values, the first call has decided."""
        new = module not in self.seen
        self.seen.add(module)
        return new

    def layer_hook(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Set what stands in front of a binary layer's sign."""
        assert isinstance(layer, BinaryLayer)
        self.started = True
        if self.is_new(layer):
            norm = layer.threshold
            if norm is not None and closed_form.keeps_statistics(norm):
                closed_form.take_statistics(norm, args[0])
                self.settled.norms.append(self.names[norm])
            if set_input(layer, args[0], _SPLIT):
                self.settled.inputs.append(self.names[layer])

    def classifier_hook(self, name: str, wanted: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """The hook that refits a float linear layer."""

        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            h = args[0]
            fits = self.started and self.counts[layer] == 1 and h.shape[:-1] == wanted.shape[:-1]
            if fits and closed_form.fit_classifier(cast(nn.Linear, layer), h, wanted):
                self.settled.fitted.append(name)

        return hook

    def scaled_hook(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Remember a shortcut until its sum is settled."""
        self.shortcut = (cast(ChannelScale, module), args[0], output)

    def nonlinearity_hook(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Let a nonlinearity begin as the ReLU that it stands for."""
        site = self.follower.site_of(args[0])
        target = None if site is None else self.targets.get(site.name)
        if target is not None and target.relu and self.is_new(module):
            start_as_relu(module)

    def reached(self, sites: list[Site], other: Tensor | None) -> None:
        """Settle sites that are read at once, `other` added to the last of them."""
        if self.started:
            for site in sites[:-1]:
                self.site(site, None)
            self.site(sites[-1], other)

    def site(self, site: Site, other: Tensor | None) -> None:
        """Settle one site that `other` is about to be added to."""
        alone = all(self.counts[part] == 1 for part in (site.layer, site.norm) if part is not None)
        target = self.targets.get(site.name)
        known = target is not None and target.out.shape == site.out.shape
        norm, fits = site.norm, alone and known
        if norm is not None and self.is_new(norm):
            if alone:
                # The statistics of a shared norm are those of all its calls, and taken at the end.
                self.settled.norms.append(self.names[norm])
            if not (fits and closed_form.has_affine(norm)):  # what is fitted takes them itself
                assert site.z is not None
                closed_form.take_statistics(norm, site.z)
                site.run_norm()
        if not fits:
            return
        assert target is not None
        if activation_of(norm) is None:
            self.fit(site, Goal.of(site, target, other))
            return
        # What is added behind the activation is no part of what is compared in front of it.
        with without_activation(norm):
            self.fit(site, Goal.of(site, target, None))
        site.run_norm()

    def fit(self, site: Site, goal: Goal) -> None:
        """Signs, then scale and shift, then steps; the site's value is that of the new parameters."""
        layer, norm, steps = site.layer, site.norm, self.how.steps
        if self.how.signs and isinstance(layer, BinaryLayer):
            self.search_signs(layer, site, goal)
        if not self.fit_scale(site, goal):
            return
        self.settled.fitted.append(site.name)
        if isinstance(layer, BinaryLayer):
            self.done += 1
            self.watch.tick(site.name, self.done, self.layers)
            if steps is not None:
                self.settled.errors[site.name] = self.train(site, goal, steps)
        if layer is None or (norm is not None and closed_form.has_affine(norm) and not site.binary):
            site.run_norm()
        else:
            site.run_layer()
        if norm is not None and steps is not None and closed_form.keeps_statistics(norm):
            assert site.z is not None
            renew_statistics(norm, site.z)

    def search_signs(self, layer: BinaryLayer, site: Site, goal: Goal) -> None:
        """Let the filters have the signs that come nearest to the goal."""
        assert site.x is not None
        flipped = search_signs(layer, site.x, goal.own)
        if flipped is not None:
            self.settled.flipped[site.name] = flipped, layer.weight.numel()
            site.run_layer()

    def fit_scale(self, site: Site, goal: Goal) -> bool:
        """Fit scale and shift: the norm's, with the factor of the shortcut that is added; else the layer's own.

        Whether there was anything to fit, or a norm alone whose statistics are all that it has.
        """
        layer, norm = site.layer, site.norm
        if norm is None or not closed_form.has_affine(norm):
            return layer is None or closed_form.fit_layer(layer, site.out, goal.own, self.how.fit)
        assert site.z is not None
        if self.shortcut is not None and self.shortcut[2] is goal.other and self.how.fit == "least-squares":
            shortcut, v, carried = self.shortcut
            closed_form.fit_with_shortcut(norm, site.z, shortcut, v, goal.total)
            carried.copy_(shortcut.forward(v))
        else:
            closed_form.fit_norm(norm, site.z, goal.own, self.how.fit)
        return True

    def train(self, site: Site, goal: Goal, steps: Steps) -> tuple[float, float]:
        """The errors before and after the steps; what an interrupted calibration has trained is not trained again."""
        return self.watch.progress.layer(
            site.name,
            trained_parameters(site),
            self.generator,
            lambda: reconstruct(site, goal, steps, self.generator),
        )

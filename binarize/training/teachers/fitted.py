"""A binary model fitted to its float model on unlabelled images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.calibration.follow import record_targets
from binarize.calibration.norms import reestimate
from binarize.calibration.progress import Watch
from binarize.calibration.result import Calibration
from binarize.calibration.settle import settle
from binarize.calibration.sites import Targets
from binarize.calibration.steps import Fitting, Steps, reconstruct_jointly
from binarize.conversion.checked.checks import same_top1
from binarize.conversion.conversion import conversion_of
from binarize.conversion.float_names import float_names
from binarize.errors import UsageError
from binarize.inputs.arguments import Images, call
from binarize.inputs.batches import count, spread_images
from binarize.layers.layer import BinaryLayer
from binarize.training.teachers.distances import tree_distance

__all__ = ["check_fits", "fit_to", "is_comparable"]

# What the float model's values at all layers may take, in bytes: so many images are settled on.
_MEMORY = 2 << 30


def check_fits(model: nn.Module, reference: nn.Module, words: str) -> None:
    """Raises: UsageError, where no binary layer has a counterpart, so that nothing could be fitted."""
    moved = float_names(model)
    theirs = {moved.get(name, name): value.shape for name, value in reference.state_dict().items()}
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)]
    if layers and not any(theirs.get(f"{name}.weight") == layer.weight.shape for name, layer in layers):
        name, layer = layers[0]
        weight = layer.weight
        there = theirs.get(f"{name}.weight")
        raise UsageError(
            f"{words} is not the float model of this one: none of its layers fits, "
            f"{name} has a weight {tuple(weight.shape)}, and there "
            f"{'is none of that name' if there is None else f'it is {tuple(there)}'}"
        )


def fit_to(
    model: nn.Module,
    reference: nn.Module,
    batches: list[Images],
    how: Fitting,
    joint_steps: int,
    watch: Watch,
) -> Calibration:
    """Fit a model, in evaluation mode, to its float model layer by layer, then all layers together; in place."""
    own = next((p.device for p in reference.parameters()), torch.device("cpu"))
    reference.to(next(model.parameters()).device)
    try:
        with torch.no_grad():
            images = spread_images(batches, _affordable(reference, batches))
            targets, output = record_targets(reference, lambda: call(reference, images))
            classifiers = _classifiers(model, targets)
            settled = settle(model, lambda: call(model, images), targets, how, classifiers, watch)
            del targets
            others = reestimate(model, batches, leave=settled.norms)
        distances = None
        if joint_steps:
            every = spread_images(batches, sum(count(one) for one in batches))
            generator = torch.Generator().manual_seed(how.seed)
            apart = _distance(model, reference)
            distances = reconstruct_jointly(model, every, apart, Steps(joint_steps), generator, watch)
        with torch.no_grad():
            agreement = same_top1(output, call(model, images))
    finally:
        reference.to(own)
    return Calibration(
        images=sum(count(batch) for batch in batches),
        layers=tuple(settled.inputs),
        norms=(*settled.norms, *others),
        settled_on=count(images),
        fitted=tuple(dict.fromkeys(settled.fitted)),
        fit=how.fit,
        flipped=settled.flipped,
        steps=0 if how.steps is None else how.steps.count,
        errors=settled.errors,
        joint_steps=joint_steps,
        distance=distances,
        agreement=None if agreement is None else agreement.same_top1,
    )


def _distance(model: nn.Module, reference: nn.Module) -> Callable[[Images], Tensor]:
    """How far the model's outputs are from the float model's on a batch."""

    def apart(batch: Images) -> Tensor:
        with torch.no_grad():
            wanted = call(reference, batch)
        return tree_distance(call(model, batch), wanted)

    return apart


def _affordable(reference: nn.Module, batches: list[Images]) -> int:
    """How many images the float model's values of can be held."""
    few = spread_images(batches, 2)
    with torch.no_grad():
        targets, _ = record_targets(reference, lambda: call(reference, few))
    held = [t for target in targets.values() for t in (target.out, target.total) if t is not None]
    each = sum(t.numel() * t.element_size() for t in held) / count(few)
    return max(1, int(_MEMORY / max(each, 1)))


def _classifiers(model: nn.Module, targets: Targets) -> dict[str, Tensor]:
    """The float linear layers that stand last, with what the float model gives there."""
    conversion = conversion_of(model)
    if conversion is None:
        return {}
    last = [d.layer.name for d in conversion.plan.decisions if d.layer.position == "last"]
    found = {}
    for name in last:
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and not isinstance(module, BinaryLayer) and name in targets:
            found[name] = targets[name].out
    return found


def is_comparable(reference: nn.Module, images: Images) -> bool:
    """Whether the float model's output holds numbers that a distance can be taken of."""
    with torch.no_grad():
        leaves = pytree.tree_leaves(call(reference, images))
    return any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves)

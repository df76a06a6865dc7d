"""The laws of a conversion, as questions about one model: each gives "ok" or what is wrong.

The tests and the benchmarks hold models of their own against the same laws.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import binarize
from binarize.layers.layer import BinaryLayer
from binarize.modules.copies import copy_model
from binarize.modules.hooks import silenced_hooks
from binarize.passes.rewrite import rewrite
from binarize.planning.plan import Decision, Plan
from binarize.report.live import MAX_CONSTANT_CHANNELS, MAX_SHARE_PLUS, MIN_SHARE_PLUS

__all__ = [
    "Arguments",
    "alive",
    "bit_equal",
    "compare_gradients",
    "fingerprint",
    "first_step",
    "gradients",
    "keeps_all",
    "outputs",
    "reported",
    "same_outputs",
    "same_shapes",
    "saved",
]

# Positional and keyword arguments of one forward call.
Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


def outputs(model: nn.Module, arguments: Arguments, *, seed: int = 0) -> list[Tensor]:
    """The tensors that a forward in the model's present mode yields, in order; without gradients where not asked for."""
    torch.manual_seed(seed)
    args, kwargs = copy.deepcopy(arguments)
    return list(_tensors(model(*args, **kwargs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        yield from _tensors(vars(value))


def fingerprint(model: nn.Module) -> str:
    """Of every bit of the parameters and buffers, and of each module's mode."""
    digest = hashlib.blake2b()
    for path, module in model.named_modules():
        digest.update(f"{path} {module.training} {sorted(vars(module))}".encode())
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                digest.update(f"{name} {tensor.requires_grad}".encode())
                digest.update(_bits(tensor).numpy())
    return digest.hexdigest()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def bit_equal(expected: Iterable[Tensor], found: Iterable[Tensor]) -> bool:
    """Same shapes, types and bits; NaN equals itself."""
    pairs = list(zip(expected, found, strict=True))
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b)) for a, b in pairs
    )


@torch.no_grad()
def same_outputs(model: nn.Module, other: nn.Module, arguments: Arguments) -> str:
    """Bit-equal in the modes that both are in."""
    expected, found = outputs(model, arguments), outputs(other, arguments)
    if len(expected) != len(found):
        return f"{len(expected)} tensors became {len(found)}"
    return "ok" if bit_equal(expected, found) else "another output"


@torch.no_grad()
def same_shapes(model: nn.Module, bnn: nn.Module, arguments: Arguments, *, sizes: bool = True) -> str:
    """The outputs have the float model's shapes; without `sizes` (detectors find what they find) its axes and types."""
    theirs, ours = outputs(model.eval(), arguments), outputs(bnn.eval(), arguments)
    told = [[(tuple(t.shape) if sizes else t.dim(), t.dtype) for t in tensors] for tensors in (theirs, ours)]
    if told[0] != told[1]:
        return f"{told[0]} became {told[1]}"
    lost = [
        i for i, (a, b) in enumerate(zip(theirs, ours)) if bool(a.isfinite().all()) > bool(b.isfinite().all())
    ]
    return f"output {lost[0]} is not finite" if lost else "ok"


def keeps_all(model: nn.Module, plan: Plan, evaluation: Arguments, training: Arguments) -> str:
    """Opening every container that the plan edits, and editing nothing, changes no bit in either mode."""
    kept = replace(
        plan,
        decisions=tuple(Decision(d.layer, "keep", "kept") for d in plan.decisions),
        edits=tuple(edit for edit in plan.edits if edit.op == "open"),
    )
    opened, plain = copy_model(model), copy_model(model)
    rewrite(opened, kept)
    for mode, arguments in ((False, evaluation), (True, training)):
        told = same_outputs(plain.train(mode), opened.train(mode), arguments)
        if told != "ok":
            return f"{told} in {'training' if mode else 'evaluation'} mode"
    # What training mode wrote down: BatchNorm's statistics.
    same = bit_equal(plain.state_dict().values(), opened.state_dict().values())
    return "ok" if same else "other buffers after training mode"


# --- no convolution and no linear layer without a row

_WEIGHTED = frozenset(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)) | {"linear", "bilinear"}
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)


class _Weights(TorchFunctionMode):
    """The parameters that act as weights of convolutions and linear maps, by autograd's own record of where from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # A tied parameter has several names.
        self.names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self.names.setdefault(id(parameter), []).append(name)
        # Each use of a weight: the parameters that it may have been made from.
        self.uses: set[frozenset[str]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        name = getattr(func, "__name__", "")
        weight = None
        if name in _WEIGHTED:
            weight = args[1] if len(args) > 1 else keywords.get("weight")
        elif name == "addmm":
            weight = args[2] if len(args) > 2 else keywords.get("mat2")
        if isinstance(weight, Tensor):
            sources = frozenset(n for p in _made_from(weight) for n in self.names.get(id(p), ()))
            if sources:
                self.uses.add(sources)
        return func(*args, **keywords)


def _made_from(weight: Tensor) -> list[Tensor]:
    """The parameters that autograd finds nearest behind a tensor (and two steps further)."""
    if weight.grad_fn is None:
        return [weight]
    found: list[Tensor] = []
    layer, seen, left = [weight.grad_fn], set(), 30
    while layer and left:
        found += [node.variable for node in layer if hasattr(node, "variable")]
        left = min(left, 3) - 1 if found else left - 1
        seen.update(layer)
        layer = [n for node in layer for n, _ in node.next_functions if n is not None and n not in seen]
    return found


def reported(model: nn.Module, plan: Plan, evaluation: Arguments, training: Arguments | None) -> str:
    """Every weight that a convolution or linear map applies, and every such module, stands in a row of the plan."""
    rows = {decision.layer.name for decision in plan.decisions}
    plain = copy_model(model).requires_grad_(True)
    watched = _Weights(plain)
    modes = [(False, evaluation)] + ([(True, training)] if training is not None else [])
    for mode, arguments in modes:
        with silenced_hooks(plain), torch.enable_grad(), watched:
            outputs(plain.train(mode), arguments)
    uses = {*watched.uses}
    uses |= {frozenset([path]) for path, module in plain.named_modules() if isinstance(module, _LAYERS)}
    silent = sorted(
        " or ".join(sorted(names)) for names in uses if not any(_stands_in(n, rows) for n in names)
    )
    return f"unreported: {len(silent)}: {', '.join(silent[:3])}" if silent else "ok"


def _stands_in(name: str, rows: set[str]) -> bool:
    """Whether a parameter or module, or what it is part of, or a part of it, has a row."""
    parts = name.split(".")
    around = {".".join(parts[:k]) for k in range(len(parts) + 1)}
    return bool(around & rows) or any(row.startswith(f"{name}.") for row in rows)


# --- alive


@torch.no_grad()
def alive(bnn: nn.Module, arguments: Arguments) -> str:
    """Each layer is warned of whose input is nearly all of one sign, or whose channels hardly change theirs."""
    layers = {name: module for name, module in bnn.named_modules() if isinstance(module, BinaryLayer)}
    upper: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def watch(name: str, axis: int) -> Callable[..., None]:
        def hook(part: Any, args: Any, signs: Any) -> None:
            # Its two values are any pair; where there is only one, its sign tells which.
            plus = (signs > signs.float().mean()) if signs.unique().numel() > 1 else signs > 0
            channels = plus.movedim(axis if plus.dim() > 1 else 0, 0).flatten(1)
            upper[name] = upper.get(name, 0) + channels.sum(1)
            count[name] = count.get(name, 0) + channels.shape[1]

        return hook

    handles = [
        layer.input_binarizer.register_forward_hook(watch(name, -1 if isinstance(layer, nn.Linear) else 1))
        for name, layer in layers.items()
        if isinstance(layer.input_binarizer, nn.Module)
    ]
    try:
        outputs(bnn.eval(), arguments)
    finally:
        for handle in handles:
            handle.remove()
    report: Any = bnn.report
    warned = {row.name for row in report.rows if row.warnings}
    for name, ones in upper.items():
        share = ones.sum().item() / (count[name] * len(ones))
        constant = ((ones == 0) | (ones == count[name])).double().mean().item()
        legal = MIN_SHARE_PLUS < share < MAX_SHARE_PLUS and constant <= MAX_CONSTANT_CHANNELS
        if not legal and name not in warned and name not in " ".join(report.warnings):
            return f"no word about {name}: {share:.3f} is +1, {constant:.3f} of the channels constant"
    return "ok"


# Of the largest gradient: below it one is what rounding left of a 0, as at a number added to all inputs of a softmax.
ROUNDING = 1e-9


def gradients(model: nn.Module, bnn: nn.Module, arguments: Arguments) -> str:
    """The first step's gradients are finite, and none is zero that was not in the float model."""
    return compare_gradients(first_step(model, arguments), first_step(bnn, arguments))


def compare_gradients(theirs: Mapping[str, float | None], ours: Mapping[str, float | None]) -> str:
    """`gradients`, from the sizes of both models' gradients."""
    broken = [key for key, size in ours.items() if size is not None and not math.isfinite(size)]
    if broken:
        return f"{broken[0]} not finite"
    sizes = [size for size in theirs.values() if size is not None]
    lively = {key for key, size in theirs.items() if size is not None and size > ROUNDING * max(sizes)}
    dead = [key for key in lively & ours.keys() if not ours[key]]
    return f"{len(dead)} zero: {sorted(dead)[0]}" if dead else "ok"


def first_step(model: nn.Module, arguments: Arguments) -> dict[str, float | None]:
    """The largest number in each parameter's gradient. None of the gradients is kept, so that giants fit."""
    model = copy_model(model, model.parameters()).train()
    sizes: dict[Tensor, float] = {}

    def note(parameter: Tensor) -> None:
        g, parameter.grad = parameter.grad, None
        assert g is not None
        sizes[parameter] = float(g.abs().max()) if g.numel() else 0.0

    hooks = [p.register_post_accumulate_grad_hook(note) for p in model.parameters() if p.requires_grad]
    try:
        with silenced_hooks(model), torch.enable_grad():
            values = [value for value in outputs(model, arguments) if value.requires_grad]
            total = sum(
                (value * torch.linspace(-1, 1, value.numel()).view(value.shape)).sum() for value in values
            )
            assert isinstance(total, Tensor)
            total.backward()
    finally:
        for hook in hooks:
            hook.remove()
    assert sizes, "no gradient arrived anywhere"
    return {key: sizes.get(p) for key, p in model.named_parameters()}


def saved(bnn: nn.Module, arguments: Arguments, folder: Path, model: nn.Module | None = None) -> str:
    """Saving and loading gives the same tensors and outputs; `model` where the folder alone cannot rebuild it."""
    binarize.save(bnn, folder / "model")
    loaded = binarize.load(folder / "model", model=model)
    if not bit_equal(bnn.state_dict().values(), loaded.state_dict().values()):
        return "other tensors"
    return same_outputs(bnn.eval(), loaded.eval(), arguments)

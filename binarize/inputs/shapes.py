"""A model's input when nobody gave it: inferred from its configuration or its first layer, and tried."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from binarize.errors import way
from binarize.inputs.arguments import Arguments, TensorKind
from binarize.inputs.huggingface import from_config
from binarize.modules.copies import shadow, without_data

__all__ = ["asked_for", "example_input", "infer"]

# Sides tried in this order: ImageNet first, then what flattened heads of smaller data sets accept.
SIDES = (224, 299, 256, 128, 112, 96, 64, 48, 40, 32, 28, 16, 8)
LENGTHS = (16000, 1024, 256, 128)
VIDEO_SIDES, VIDEO_FRAMES = (112, 64, 32), 16
# Of a sequence of tokens or of vectors.
TOKENS = 16
# What a generator starts from, and what an upsampling network continues with.
LATENT_SIDES = (1, 4, 8, 16)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# How often a forward that looks at values is tried with real tensors.
MOST_REAL_TRIALS = 3
# Of one tensor; a file may say that a layer takes in any number of features.
MOST_ELEMENTS = 1 << 28


def infer(module: nn.Module) -> Arguments | None:
    """The first arguments that the forward accepts, from its configuration or from what the first layer takes; else None."""
    try:
        skeleton = without_data(module).eval()
    except Exception:  # the user's own __deepcopy__ or __setstate__ may raise anything
        return None
    for part in skeleton.modules():
        for table in HOOKS:  # the user's hooks must not see this trial
            getattr(part, table).clear()
    undecided: list[Arguments] = []
    found: Arguments | None = None
    for arguments in filter(_is_sensible, _candidates(module)):
        accepted = _accepts(skeleton, arguments)
        if accepted:
            found = arguments
            break
        if accepted is None:
            undecided.append(arguments)
    if undecided and not any(parameter.is_meta for parameter in module.parameters()):
        copy = shadow(module, meta=False).eval()
        trials = islice(undecided, MOST_REAL_TRIALS)
        return next((item for item in trials if _accepts(copy, item)), found)
    return found


def example_input(
    shape: tuple[int, ...], module: nn.Module, *, inputs: int = 1, seed: int = 0
) -> tuple[Tensor, ...]:
    """Seeded normal noise in the module's dtype on its device: good for shapes, useless for calibration."""
    return Arguments((TensorKind(shape),) * inputs).make(module, seed=seed)[0]


def asked_for(module: nn.Module) -> str:
    """How to give an input whose shape is unknown."""
    names = _required(module)
    if names is None or len(names) == 1:
        text = "give its shape with the batch, as in --input-shape 1,3,224,224 (ids=1,16:int64 for whole numbers by keyword)"
        return text + way("", "; in Python example_input=x")
    shapes = " ".join("--input-shape 1,16" for _ in names)
    text = f"its forward takes {', '.join(names)}: give a shape for each in this order, as in {shapes}"
    return text + way("", f"; in Python example_input=({', '.join(names)})")


def _candidates(module: nn.Module) -> Iterator[Arguments]:
    yield from from_config(module)
    names = _required(module)
    count = 1 if names is None else len(names)
    for kind in _first_layer(module):
        if count:
            yield Arguments((kind,) * count)


def _is_sensible(arguments: Arguments) -> bool:
    """Whether each tensor has a size that one may make to try it."""
    shapes = [kind.shape for kind in arguments.kinds]
    return all(min(shape, default=0) >= 0 and math.prod(shape) <= MOST_ELEMENTS for shape in shapes)


def _required(module: nn.Module) -> list[str] | None:
    """The names of the arguments that a call must give; None where the forward does not say."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in positional and p.default is p.empty]
    # HF models have a default for everything; the first one is the input.
    return names or [p.name for p in parameters if p.kind in positional][:1]


def _first_layer(module: nn.Module) -> Iterator[TensorKind]:
    """What the first layer that tells takes in."""
    for layer in module.modules():
        # Read from its attributes: a layer from a damaged file may lack them.
        held = vars(layer)
        kinds = list(_taken_by(layer, held))
        if kinds:
            if kinds[0].high is not None:  # positions are embedded too, and a longer sequence finds none
                lengths = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
                shortest = min([TOKENS, *lengths])
                kinds = [replace(kind, shape=(1, shortest)) for kind in kinds]
            yield from kinds
            return


def _taken_by(layer: nn.Module, held: dict[str, object]) -> Iterator[TensorKind]:
    channels, features = held.get("in_channels"), held.get("in_features")
    width = held.get("embed_dim") if isinstance(layer, nn.MultiheadAttention) else held.get("input_size")
    tokens = held.get("num_embeddings")
    if isinstance(layer, nn.ConvTranspose2d) and isinstance(channels, int):
        yield from (TensorKind((1, channels, side, side)) for side in LATENT_SIDES)
    elif isinstance(layer, nn.Conv2d) and isinstance(channels, int):
        yield from (TensorKind((1, channels, side, side)) for side in SIDES)
    elif isinstance(layer, nn.Conv3d) and isinstance(channels, int):
        yield from (TensorKind((1, channels, VIDEO_FRAMES, side, side)) for side in VIDEO_SIDES)
    elif isinstance(layer, nn.Conv1d) and isinstance(channels, int):
        yield from (TensorKind((1, channels, length)) for length in LENGTHS)
    elif isinstance(layer, (nn.MultiheadAttention, nn.RNNBase)) and isinstance(width, int):
        yield TensorKind((1, TOKENS, width))
    elif isinstance(layer, nn.Linear) and isinstance(features, int):
        yield TensorKind((1, features))
        yield TensorKind((1, TOKENS, features))
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and isinstance(tokens, int):
        yield TensorKind((1, TOKENS), "int64", 0, tokens - 1)


def _accepts(copy: nn.Module, arguments: Arguments) -> bool | None:
    """Whether the forward takes them; None where it cannot be told without data."""
    meta = any(parameter.is_meta for parameter in copy.parameters())
    try:
        args, kwargs = arguments.make(copy)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
            copy(*args, **kwargs)
    except NotImplementedError:
        return None if meta else False
    except Exception as error:  # the user's own forward may raise anything
        return None if meta and "meta" in str(error).lower() else False
    return True

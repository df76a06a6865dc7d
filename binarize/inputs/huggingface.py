"""What a model of the transformers library takes, by its configuration. The library itself is not imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from binarize.inputs.arguments import Arguments, TensorKind

__all__ = ["from_config"]

BASE = "transformers.modeling_utils.PreTrainedModel"
TOKENS = 16
IMAGE_SIDE, CHANNELS = 224, 3
SAMPLES = 16000  # a second of sound
FRAMES, MEL_BINS = 128, 80


def from_config(module: nn.Module) -> Iterator[Arguments]:
    """Keyword arguments, those that say most first; nothing for a model that is none of that library's."""
    if not any(f"{cls.__module__}.{cls.__qualname__}" == BASE for cls in type(module).__mro__):
        return
    taken = inspect.signature(module.forward).parameters
    kinds = {name: kind for name, kind in _kinds(module).items() if name in taken}
    mains = [name for name in (_main(module),) if name in kinds]
    if kinds:
        yield Arguments((), kinds)
    for left_out in ("attention_mask", "decoder_input_ids"):
        if left_out in kinds and len(kinds) > 1:
            yield Arguments((), {name: kind for name, kind in kinds.items() if name != left_out})
    if mains and len(kinds) > 1:
        yield Arguments((), {name: kinds[name] for name in mains})
    dummy = getattr(module, "dummy_inputs", None)
    if isinstance(dummy, Mapping) and all(isinstance(value, Tensor) for value in dummy.values()):
        described = Arguments.of((), dict(dummy), torch.float32)
        if described is not None:
            yield described


def _main(module: nn.Module) -> str:
    return str(getattr(module, "main_input_name", "input_ids"))


def _kinds(module: nn.Module) -> dict[str, TensorKind]:
    """Every input that the configuration tells of."""
    config = getattr(module, "config", None)
    text = getattr(config, "text_config", None) or config
    vision = getattr(config, "vision_config", None) or config
    main = _main(module)
    both = vision is not config and text is not config
    found: dict[str, TensorKind] = {}
    vocabulary = getattr(text, "vocab_size", None)
    if (main == "input_ids" or both) and isinstance(vocabulary, int):
        length = min(TOKENS, _number(text, "max_position_embeddings", TOKENS))
        found["input_ids"] = TensorKind((1, length), "int64", 0, vocabulary - 1)
        found["attention_mask"] = TensorKind((1, length), "int64", 1, 1)
    if main == "pixel_values" or both:
        found["pixel_values"] = TensorKind(_image(vision))
    if main == "input_values":
        found["input_values"] = TensorKind((1, SAMPLES))
    if main == "input_features":
        positions = _number(config, "max_source_positions", FRAMES // 2)
        found["input_features"] = TensorKind((1, _number(config, "num_mel_bins", MEL_BINS), 2 * positions))
    if getattr(config, "is_encoder_decoder", False) and isinstance(vocabulary, int):
        found["decoder_input_ids"] = TensorKind((1, TOKENS), "int64", 0, vocabulary - 1)
    return found


def _image(config: object) -> tuple[int, ...]:
    size = getattr(config, "image_size", None)
    sides = (size, size) if isinstance(size, int) else tuple(size)[-2:] if size else (IMAGE_SIDE, IMAGE_SIDE)
    channels = _number(config, "num_channels", CHANNELS)
    frames = getattr(config, "num_frames", None)
    return (1, frames, channels, *sides) if isinstance(frames, int) else (1, channels, *sides)


def _number(config: object, name: str, default: int) -> int:
    found = getattr(config, name, None)
    return found if isinstance(found, int) and found > 0 else default

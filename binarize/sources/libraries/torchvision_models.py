"""Models of torchvision by name.

Some segmentation and detection builders download a backbone even with `weights=None`; they are called with
`weights_backbone=None` as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from binarize.errors import SourceError, UsageError
from binarize.sources.calls import Call
from binarize.sources.libraries.built import Built, downloaded, made, replace_head
from binarize.sources.libraries.known import ANY_WEIGHTS, longest_prefix, unknown
from binarize.sources.libraries.on_disk import require_torchvision

__all__ = ["torchvision_model"]


# Square input sizes of torchvision classifiers that are not 224.
TORCHVISION_SIZES = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
# Without this the two builders warn that their default will change; the value is today's default.
TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": True},
    "inception_v3": {"init_weights": True},
}


def torchvision_model(call: Call, tag: str | None, num_classes: int | None, meta: bool, fetch: bool) -> Built:
    """The model that a call names, with the weights of a tag. Raises: SourceError, UsageError."""
    from torchvision import models

    name = call.name
    if name.startswith("quantized_"):
        plain = name.removeprefix("quantized_")
        raise SourceError(f"torchvision:{name} is already quantized; its float model is torchvision:{plain}")
    if name not in models.list_models():
        raise SourceError(unknown("torchvision", name))
    builder = models.get_model_builder(name)
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        arguments["weights_backbone"] = None
    if tag is not None:
        return _torchvision_pretrained(
            name, builder, arguments | dict(call.keywords), tag, num_classes, fetch
        )
    arguments |= TORCHVISION_ARGUMENTS.get(name, {}) | dict(call.keywords)
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    module = made(lambda: builder(*call.args, **arguments), meta)
    return Built(module, _torchvision_shape(builder), None, _torchvision_inputs(builder))


def _torchvision_pretrained(
    name: str,
    builder: Callable[..., nn.Module],
    arguments: dict[str, Any],
    tag: str,
    num_classes: int | None,
    fetch: bool,
) -> Built:
    from torchvision import models

    tags = models.get_model_weights(name)
    wanted = "DEFAULT" if tag.lower() in ANY_WEIGHTS else tag
    if wanted not in tags.__members__:
        known = ", ".join(member.name for member in tags) or "none"
        raise UsageError(f"torchvision:{name} has no weights {tag!r}; known: {known}")
    entry = tags[wanted]
    if not fetch:
        require_torchvision(f"torchvision:{name}", entry.url)
    module = downloaded(f"torchvision:{name}", lambda: builder(**(arguments | {"weights": entry})))
    if num_classes is not None:
        replace_head(module, builder(**(arguments | {"num_classes": num_classes})))
    shape = _torchvision_shape(builder)
    crop = getattr(entry.transforms, "keywords", {}).get("crop_size")
    if crop is not None:
        shape = (*shape[:-2], *(crop if isinstance(crop, Sequence) else (crop, crop)))
    return Built(module, shape, entry.name, _torchvision_inputs(builder), reproducible=False)


def _torchvision_shape(builder: Callable[..., nn.Module]) -> tuple[int, ...]:
    size = TORCHVISION_SIZES.get(builder.__name__, 224)
    return longest_prefix(builder.__module__) or (1, 3, size, size)


def _torchvision_inputs(builder: Callable[..., nn.Module]) -> int:
    return 2 if builder.__module__.startswith("torchvision.models.optical_flow") else 1

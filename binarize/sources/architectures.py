"""Named builders: `torchvision:NAME` and `timm:NAME`, off the network unless weights are asked for.

Some torchvision segmentation and detection builders download a backbone even with `weights=None`; they are
called with `weights_backbone=None` as well.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from binarize.errors import SourceError, UsageError

__all__ = ["LIBRARIES", "Built", "build", "known_names", "split"]

LIBRARIES = ("torchvision", "timm", "hf-hub", "local-dir")
NO_WEIGHTS = ("", "none", "random")
ANY_WEIGHTS = ("default", "pretrained")

# Square input sizes of torchvision classifiers that are not 224.
TORCHVISION_SIZES = {"inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
TORCHVISION_SHAPES = {
    "torchvision.models.video": (1, 3, 16, 224, 224),
    "torchvision.models.video.resnet": (1, 3, 16, 112, 112),
    "torchvision.models.detection": (1, 3, 320, 320),
    "torchvision.models.detection.ssd": (1, 3, 300, 300),
    "torchvision.models.optical_flow": (1, 3, 128, 128),
}
# Without this the two builders warn that their default will change; the value is today's default.
TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": True},
    "inception_v3": {"init_weights": True},
}


@dataclass(frozen=True)
class Built:
    """A module made by a named builder, with what is known of its input.

    `reproducible` says that `build(spec)` alone gives the same structure again, offline.
    """

    module: nn.Module
    input_shape: tuple[int, ...] | None
    weights: str | None
    inputs: int = 1
    reproducible: bool = True


def split(spec: str) -> tuple[str, str] | None:
    """`("timm", "resnet18")` for `"timm:resnet18"`; None for anything that names no library."""
    library, colon, name = spec.partition(":")
    return (library, name) if colon and library in LIBRARIES else None


def known_names(library: str) -> list[str]:
    """Every architecture a library can build, without the quantized ones."""
    if library == "torchvision":
        from torchvision import models

        return [name for name in models.list_models() if not name.startswith("quantized_")]
    import timm

    return timm.list_models()


def build(
    spec: str, *, weights: str | None = None, num_classes: int | None = None, meta: bool = False
) -> Built:
    """The module that a `library:name` builds; random unless `weights` names a tag to download.

    `meta` builds it without parameter data (and is ignored when weights are asked for).

    Raises: SourceError for an unknown name, UsageError for an unknown tag or number of classes.
    """
    parts = split(spec)
    if parts is None:
        raise SourceError(f"{spec}: expected one of {', '.join(f'{library}:NAME' for library in LIBRARIES)}")
    library, name = parts
    if not name:
        raise SourceError(f"{spec} names no model: expected for example {library}:resnet18")
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}: expected at least 1")
    tag = None if weights is None or weights.lower() in NO_WEIGHTS else weights
    if library == "torchvision":
        return _torchvision(name, tag, num_classes, meta)
    return _timm(library, name, tag, num_classes, meta)


def _torchvision(name: str, tag: str | None, num_classes: int | None, meta: bool) -> Built:
    from torchvision import models

    if name.startswith("quantized_"):
        plain = name.removeprefix("quantized_")
        raise SourceError(f"torchvision:{name} is already quantized; its float model is torchvision:{plain}")
    try:
        builder = models.get_model_builder(name)
    except ValueError:
        raise SourceError(_unknown("torchvision", name)) from None
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        arguments["weights_backbone"] = None
    if tag is None:
        arguments |= TORCHVISION_ARGUMENTS.get(name, {})
        if num_classes is not None:
            arguments["num_classes"] = num_classes
        module = _on_meta(lambda: builder(**arguments)) if meta else builder(**arguments)
        return Built(module, _torchvision_shape(builder), None, _torchvision_inputs(builder))
    return _torchvision_pretrained(name, builder, arguments, tag, num_classes)


def _torchvision_pretrained(
    name: str,
    builder: Callable[..., nn.Module],
    arguments: dict[str, Any],
    tag: str,
    num_classes: int | None,
) -> Built:
    from torchvision import models

    tags = models.get_model_weights(name)
    wanted = "DEFAULT" if tag.lower() in ANY_WEIGHTS else tag
    if wanted not in tags.__members__:
        known = ", ".join(member.name for member in tags) or "none"
        raise UsageError(f"torchvision:{name} has no weights {tag!r}; known: {known}")
    entry = tags[wanted]
    module = _downloaded(f"torchvision:{name}", lambda: builder(**(arguments | {"weights": entry})))
    if num_classes is not None:
        _replace_head(module, builder(**(arguments | {"num_classes": num_classes})))
    shape = _torchvision_shape(builder)
    crop = getattr(entry.transforms, "keywords", {}).get("crop_size")
    if crop is not None:
        shape = (*shape[:-2], *(crop if isinstance(crop, Sequence) else (crop, crop)))
    return Built(module, shape, entry.name, _torchvision_inputs(builder), reproducible=False)


def _replace_head(module: nn.Module, fresh: nn.Module) -> None:
    """Takes over from `fresh` the layers whose parameters have another shape: those that give the classes."""
    wanted = {key: value.shape for key, value in fresh.named_parameters()}
    owners = {
        key.rpartition(".")[0]
        for key, value in module.named_parameters()
        if key in wanted and wanted[key] != value.shape
    }
    for owner in sorted(owners):
        module.set_submodule(owner, fresh.get_submodule(owner))


def _torchvision_shape(builder: Callable[..., nn.Module]) -> tuple[int, ...]:
    path = builder.__module__
    while path:
        if path in TORCHVISION_SHAPES:
            return TORCHVISION_SHAPES[path]
        path = path.rpartition(".")[0]
    size = TORCHVISION_SIZES.get(builder.__name__, 224)
    return (1, 3, size, size)


def _torchvision_inputs(builder: Callable[..., nn.Module]) -> int:
    return 2 if builder.__module__.startswith("torchvision.models.optical_flow") else 1


def _timm(library: str, name: str, tag: str | None, num_classes: int | None, meta: bool) -> Built:
    import timm

    if library == "timm":
        architecture = name.partition(".")[0]
        if not timm.is_model(architecture):
            raise SourceError(_unknown("timm", architecture))
        model_name = name
        if tag is not None and tag.lower() not in ANY_WEIGHTS:
            model_name = f"{architecture}.{tag}"
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        if "." in model_name and model_name not in known:
            tags = ", ".join(entry.partition(".")[2] for entry in known) or "none"
            wanted = model_name.partition(".")[2]
            raise UsageError(f"timm:{architecture} has no weights {wanted!r}; known: {tags}")
        if tag is not None and not known:
            raise UsageError(f"timm:{architecture} has no weights to download")
    elif library == "hf-hub" and tag is None:
        raise UsageError(
            f"hf-hub:{name} is fetched from the network: add --weights default to allow that, "
            "or download the folder yourself and name it local-dir:PATH"
        )
    else:
        model_name = f"{library}:{name}"

    # A folder on this disk is wanted for its weights; everything else gives them only when asked.
    pretrained = tag is not None or library == "local-dir"
    arguments: dict[str, Any] = {"pretrained": pretrained}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if pretrained:
        module = _downloaded(f"{library}:{name}", lambda: timm.create_model(model_name, **arguments))
    elif meta:
        module = _on_meta(lambda: timm.create_model(model_name, **arguments))
    else:
        module = timm.create_model(model_name, **arguments)
    configuration = getattr(module, "pretrained_cfg", None) or {}
    size = configuration.get("input_size")
    shape = (1, *size) if size else None
    reproducible = library == "timm" and not pretrained
    return Built(module, shape, tag if pretrained else None, reproducible=reproducible)


def _downloaded(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` gives; failures of the network and of files become a SourceError."""
    try:
        return make()
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{spec}: its weights cannot be loaded: {reason}") from error


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` gives, without parameter data. Builders that compute with tensors run on the CPU."""
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make().to("meta")


def _unknown(library: str, name: str) -> str:
    """`unknown torchvision model 'resnet81'; nearest: resnet18, ...`, also from the other library."""
    names = known_names(library)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    near += [known for known in names if re.sub(r"[^a-z0-9]", "", known) == plain and known not in near]
    message = f"unknown {library} model {name!r}"
    if near:
        return f"{message}; nearest: {', '.join(near)}"
    other = "timm" if library == "torchvision" else "torchvision"
    if name in known_names(other):
        return f"{message}; {other}:{name} exists"
    return f"{message}; {library} knows {len(names)} models"

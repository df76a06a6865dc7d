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
from pathlib import Path
from typing import Any

import torch
from torch import nn

from binarize.errors import REFUSALS, SourceError, UsageError
from binarize.file_name import is_file
from binarize.sources.calls import Call, parse_call
from binarize.sources.on_disk import require_torchvision, timm_file

__all__ = [
    "LIBRARIES",
    "Built",
    "build",
    "known_names",
    "known_shape",
    "replace_head",
    "split",
    "tag_of",
]

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


def tag_of(weights: str | None) -> str | None:
    """The tag of weights to download, or None: `none` says so in a word."""
    return None if weights is None or weights.lower() in NO_WEIGHTS else weights


def build(
    spec: str,
    *,
    weights: str | None = None,
    num_classes: int | None = None,
    meta: bool = False,
    fetch: bool = True,
) -> Built:
    """The module that a `library:name` builds; random unless `weights` names a tag to download.

    Literal arguments may follow: `torchvision:googlenet(aux_logits=False)`. `meta` builds it without
    parameter data (and is ignored when weights are asked for). Without `fetch` weights have to be on this disk.

    Raises: SourceError for an unknown name, UsageError for an unknown tag or argument.
    """
    parts = split(spec)
    if parts is None:
        raise SourceError(f"{spec}: expected one of {', '.join(f'{library}:NAME' for library in LIBRARIES)}")
    library, text = parts
    call = parse_call(text) if library in ("torchvision", "timm") else Call(text)
    if not call.name:
        raise SourceError(f"{spec} names no model: expected for example {library}:resnet18")
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"num_classes is {num_classes}: expected at least 1")
    tag = tag_of(weights)
    try:
        if library == "torchvision":
            return _torchvision(call, tag, num_classes, meta, fetch)
        return _timm(library, call, tag, num_classes, meta, fetch)
    except REFUSALS as error:
        if not call.args and not call.keywords and num_classes is None:
            raise
        raise UsageError(f"{spec}: {str(error) or type(error).__name__}") from error


def _torchvision(call: Call, tag: str | None, num_classes: int | None, meta: bool, fetch: bool) -> Built:
    from torchvision import models

    name = call.name
    if name.startswith("quantized_"):
        plain = name.removeprefix("quantized_")
        raise SourceError(f"torchvision:{name} is already quantized; its float model is torchvision:{plain}")
    if name not in models.list_models():
        raise SourceError(_unknown("torchvision", name))
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
    module = _made(lambda: builder(*call.args, **arguments), meta)
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
    module = _downloaded(f"torchvision:{name}", lambda: builder(**(arguments | {"weights": entry})))
    if num_classes is not None:
        replace_head(module, builder(**(arguments | {"num_classes": num_classes})))
    shape = _torchvision_shape(builder)
    crop = getattr(entry.transforms, "keywords", {}).get("crop_size")
    if crop is not None:
        shape = (*shape[:-2], *(crop if isinstance(crop, Sequence) else (crop, crop)))
    return Built(module, shape, entry.name, _torchvision_inputs(builder), reproducible=False)


def replace_head(module: nn.Module, fresh: nn.Module) -> list[str]:
    """Takes over from `fresh` the layers whose parameters have another shape, and gives their names.

    `fresh` differs only in the number of classes, so that these are the layers that give the classes.
    """
    wanted = {key: value.shape for key, value in fresh.named_parameters()}
    owners = {
        key.rpartition(".")[0]
        for key, value in module.named_parameters()
        if key in wanted and wanted[key] != value.shape
    }
    for owner in sorted(owners):
        module.set_submodule(owner, fresh.get_submodule(owner))
    return sorted(owners)


def known_shape(module: nn.Module) -> tuple[int, ...] | None:
    """The usual input of a ready module of torchvision or timm."""
    library = type(module).__module__.partition(".")[0]
    if library == "timm":
        configuration = getattr(module, "pretrained_cfg", None)
        size = configuration.get("input_size") if isinstance(configuration, dict) else None
        known = isinstance(size, (tuple, list)) and all(isinstance(n, int) and n > 0 for n in size)
        return (1, *size) if size and known else None
    if library == "torchvision":
        if type(module).__name__ == "Inception3":
            return (1, 3, 299, 299)
        return _longest_prefix(type(module).__module__)
    return None


def _longest_prefix(path: str) -> tuple[int, ...] | None:
    while path and path not in TORCHVISION_SHAPES:
        path = path.rpartition(".")[0]
    return TORCHVISION_SHAPES.get(path)


def _torchvision_shape(builder: Callable[..., nn.Module]) -> tuple[int, ...]:
    size = TORCHVISION_SIZES.get(builder.__name__, 224)
    return _longest_prefix(builder.__module__) or (1, 3, size, size)


def _torchvision_inputs(builder: Callable[..., nn.Module]) -> int:
    return 2 if builder.__module__.startswith("torchvision.models.optical_flow") else 1


def _timm(
    library: str, call: Call, tag: str | None, num_classes: int | None, meta: bool, fetch: bool
) -> Built:
    import timm

    name = f"{library}:{call.name}"
    if library == "timm":
        name = _timm_name(call.name, tag)
    elif library == "hf-hub" and tag is None:
        raise UsageError(
            f"{name} is fetched from the network: add --weights default to allow that, "
            "or download the folder yourself and name it local-dir:PATH"
        )
    elif library == "local-dir" and not is_file(Path(call.name, "config.json")):
        raise SourceError(f"{name}: expected a folder with timm's config.json and weights")

    # A folder on this disk is wanted for its weights; everything else gives them only when asked.
    pretrained = tag is not None or library == "local-dir"
    arguments: dict[str, Any] = {"pretrained": pretrained} | dict(call.keywords)
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if pretrained and not fetch:
        file = timm_file(f"timm:{call.name}", timm.get_pretrained_cfg(name, allow_unregistered=False))
        arguments["pretrained_cfg_overlay"] = {"file": file}
    if pretrained:
        module = _downloaded(f"{library}:{call.name}", lambda: timm.create_model(name, **arguments))
        return Built(module, known_shape(module), tag, reproducible=False)
    module = _made(lambda: timm.create_model(name, *call.args, **arguments), meta)
    return Built(module, known_shape(module), None)


def _timm_name(name: str, tag: str | None) -> str:
    """`resnet18` or `resnet18.tag`, both known to timm."""
    import timm

    architecture, _, given = name.partition(".")
    if not timm.is_model(architecture):
        raise SourceError(_unknown("timm", architecture))
    if tag is not None and tag.lower() not in ANY_WEIGHTS:
        given = tag
    known = [entry.partition(".")[2] for entry in timm.list_models(f"{architecture}.*", pretrained=True)]
    if given and given not in known:
        raise UsageError(f"timm:{architecture} has no weights {given!r}; known: {', '.join(known) or 'none'}")
    if tag is not None and not known:
        raise UsageError(f"timm:{architecture} has no weights to download")
    return f"{architecture}.{given}" if given else architecture


def _downloaded(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` gives; failures of the network and of files become a SourceError."""
    try:
        return make()
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{spec}: its weights cannot be loaded: {reason}") from error


def _made(make: Callable[[], nn.Module], meta: bool) -> nn.Module:
    """What `make` gives, on the CPU or without parameter data.

    Builders that compute with tensors cannot run on the meta device; their modules are moved there instead.
    """
    if not meta:
        return make()
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

"""Models of timm by name, from its list, a hub or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from binarize.disk.file_name import is_file
from binarize.errors import SourceError, UsageError
from binarize.sources.calls import Call
from binarize.sources.libraries.built import Built, downloaded, made
from binarize.sources.libraries.known import ANY_WEIGHTS, known_shape, unknown
from binarize.sources.libraries.on_disk import timm_file

__all__ = ["timm_model"]


def timm_model(
    library: str, call: Call, tag: str | None, num_classes: int | None, meta: bool, fetch: bool
) -> Built:
    """The model that a call names, with the weights of a tag or folder. Raises: SourceError, UsageError."""
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
        module = downloaded(f"{library}:{call.name}", lambda: timm.create_model(name, **arguments))
        return Built(module, known_shape(module), tag, reproducible=False)
    module = made(lambda: timm.create_model(name, *call.args, **arguments), meta)
    return Built(module, known_shape(module), None)


def _timm_name(name: str, tag: str | None) -> str:
    """`resnet18` or `resnet18.tag`, both known to timm."""
    import timm

    architecture, _, given = name.partition(".")
    if not timm.is_model(architecture):
        raise SourceError(unknown("timm", architecture))
    if tag is not None and tag.lower() not in ANY_WEIGHTS:
        given = tag
    known = [entry.partition(".")[2] for entry in timm.list_models(f"{architecture}.*", pretrained=True)]
    if given and given not in known:
        raise UsageError(f"timm:{architecture} has no weights {given!r}; known: {', '.join(known) or 'none'}")
    if tag is not None and not known:
        raise UsageError(f"timm:{architecture} has no weights to download")
    return f"{architecture}.{given}" if given else architecture

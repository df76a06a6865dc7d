"""Named builders: `torchvision:NAME` and `timm:NAME`, off the network unless weights are asked for."""

from __future__ import annotations

from binarize.errors import REFUSALS, SourceError, UsageError
from binarize.sources.calls import Call, parse_call
from binarize.sources.libraries.built import Built
from binarize.sources.libraries.timm_models import timm_model
from binarize.sources.libraries.torchvision_models import torchvision_model

__all__ = ["LIBRARIES", "build", "split", "tag_of"]

LIBRARIES = ("torchvision", "timm", "hf-hub", "local-dir")
NO_WEIGHTS = ("", "none", "random")


def split(spec: str) -> tuple[str, str] | None:
    """`("timm", "resnet18")` for `"timm:resnet18"`; None for anything that names no library."""
    library, colon, name = spec.partition(":")
    return (library, name) if colon and library in LIBRARIES else None


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
            return torchvision_model(call, tag, num_classes, meta, fetch)
        return timm_model(library, call, tag, num_classes, meta, fetch)
    except REFUSALS as error:
        if not call.args and not call.keywords and num_classes is None:
            raise
        raise UsageError(f"{spec}: {str(error) or type(error).__name__}") from error

"""Published weights that lie on this disk already: what a file asks for is looked for there and never fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from binarize.errors import SourceError

__all__ = ["require_torchvision", "timm_file"]

# Under which names timm publishes weights, the safe format first.
_NAMES = ("model.safetensors", "pytorch_model.bin")


def require_torchvision(spec: str, url: str) -> None:
    """Raises: SourceError, where the weights at this address were never downloaded."""
    if downloaded(url) is None:
        raise _missing(spec)


def timm_file(spec: str, configuration: Any) -> str:
    """The file of the weights that timm's configuration of a model names. Raises: SourceError, where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository, url = configuration.hf_hub_id, configuration.url
    names = (configuration.hf_hub_filename,) if configuration.hf_hub_filename else _NAMES
    for name in names if repository else ():
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return found
    path = downloaded(url) if url else None
    if path is None:
        raise _missing(spec)
    return str(path)


def downloaded(url: str) -> Path | None:
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))
    return path if path.is_file() else None


def _missing(spec: str) -> SourceError:
    return SourceError(
        f"the published weights of {spec} are not on this machine, and what a file names is not fetched\n"
        f"  fetch them by --download, or by naming them yourself: --teacher {spec}, --float {spec} (teacher=...)"
    )

"""What is known of the models of torchvision and timm before one is built: their names, and their usual input."""

from __future__ import annotations

import difflib
import re

from torch import nn

__all__ = ["ANY_WEIGHTS", "known_names", "known_shape", "longest_prefix", "unknown"]

# What stands for the weights that a library publishes first.
ANY_WEIGHTS = ("default", "pretrained")
TORCHVISION_SHAPES = {
    "torchvision.models.video": (1, 3, 16, 224, 224),
    "torchvision.models.video.resnet": (1, 3, 16, 112, 112),
    "torchvision.models.detection": (1, 3, 320, 320),
    "torchvision.models.detection.ssd": (1, 3, 300, 300),
    "torchvision.models.optical_flow": (1, 3, 128, 128),
}


def known_names(library: str) -> list[str]:
    """Every architecture a library can build, without the quantized ones."""
    if library == "torchvision":
        from torchvision import models

        return [name for name in models.list_models() if not name.startswith("quantized_")]
    import timm

    return timm.list_models()


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
        return longest_prefix(type(module).__module__)
    return None


def longest_prefix(path: str) -> tuple[int, ...] | None:
    """The usual input of torchvision's models in a module, or in the packages around it."""
    while path and path not in TORCHVISION_SHAPES:
        path = path.rpartition(".")[0]
    return TORCHVISION_SHAPES.get(path)


def unknown(library: str, name: str) -> str:
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

"""Shell completion of scheme and model names, fast enough for a key press: torch is never imported.

The names of models are read from the sources of torchvision and timm, where a decorator marks each builder.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

__all__ = ["model_names", "models", "schemes"]

# `@register_model()` and the function below it, or the name it gives: `@register_model(name="...")`.
_BUILDER = re.compile(
    r'^@register_model\b(?:\(name="(?P<name>\w+)")?.*?^def (?P<function>\w+)', re.MULTILINE | re.DOTALL
)


def schemes(incomplete: str) -> list[str]:
    """Names of shipped schemes."""
    from binarize.rules.files import builtin_rule_sets

    return [name for name in builtin_rule_sets() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """`torchvision:NAME` and `timm:NAME`; nothing for anything else, so that the shell offers files."""
    if not incomplete:
        return []
    library, colon, _ = incomplete.partition(":")
    libraries = ("torchvision", "timm")
    if not colon:
        return [f"{name}:" for name in libraries if name.startswith(incomplete)]
    names = (f"{library}:{name}" for name in model_names(library)) if library in libraries else ()
    return [name for name in names if name.startswith(incomplete)]


def model_names(library: str) -> list[str]:
    """Every architecture of "torchvision" or "timm", as far as its source says; quantized ones left out."""
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return []
    names: set[str] = set()
    for path in (Path(spec.origin).parent / "models").rglob("*.py"):
        for found in _BUILDER.finditer(path.read_text(encoding="utf-8", errors="replace")):
            names.add(found["name"] or found["function"])
    return sorted(name for name in names if not name.startswith("quantized_"))

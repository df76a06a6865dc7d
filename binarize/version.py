"""Which version of the package this is, and of what it stands on."""

from __future__ import annotations

__all__ = ["__version__", "versions"]

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Of this package and of what computes for it."""
    # Here, since `import binarize` asks for the version alone.
    import importlib.metadata
    import importlib.util
    import platform

    import torch

    found = {
        "binarize": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    for name in ("torchvision", "timm"):
        if importlib.util.find_spec(name) is not None:
            found[name] = importlib.metadata.version(name)
    return found

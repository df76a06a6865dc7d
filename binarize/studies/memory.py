"""The most memory that this process ever held."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["peak_memory"]


def peak_memory() -> dict[str, int | None]:
    """Bytes of main memory, and of the graphics card's; None where the system does not tell.

    Linux tells of this process alone; what getrusage says there may be a parent's.
    """
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM"):
                return {"memory": int(line.split()[1]) * 1024, "device_memory": device}
    return {"memory": _from_getrusage(), "device_memory": device}


def _from_getrusage() -> int | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

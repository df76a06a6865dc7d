"""nn.Module + example -> Graph: what the model computes, operation by operation, and which module owns each."""

from __future__ import annotations

from binarize.capture.containers import Opened, common_container, open_container
from binarize.capture.graph import Graph, capture
from binarize.capture.tape import Recording, record
from binarize.capture.tracer import TraceError, trace_container

__all__ = [
    "Graph",
    "Opened",
    "Recording",
    "TraceError",
    "capture",
    "common_container",
    "open_container",
    "record",
    "trace_container",
]

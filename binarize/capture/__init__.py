"""nn.Module + example -> Graph: what the model computes, operation by operation, and which module owns each.

code.py         a torch.fx graph as the Python source of a method, built as a syntax tree
containers.py   containers opened for editing
expressions.py  values, names and calls of a torch.fx graph as Python expressions
graph.py        the whole model recorded: in evaluation mode, and in training mode for what runs only there
graph_model.py  a torch.fx.GraphModule whose forward is made without printing names
leaves.py       which modules are one operation and which are opened
methods.py      public methods that a container's forward runs on itself (`forward_features`)
tape.py         the concrete recorder: run a module once and write down every tensor operation
tracer.py       the symbolic tracer
valued.py       a symbolic trace that knows the values of an example
"""

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

"""The table of operations that docs/reference/operations.md holds, made of what the exporter itself goes by."""

from __future__ import annotations

from binarize.exporters.c.names import refused_operations
from binarize.exporters.c.operations import known_operations

__all__ = ["operations_page"]

_HEAD = """\
# Operations by format

`binarize plan SRC --target FORMAT` says before any training what of a network could not be exported, with the layer and the
way out; `binarize export` says the same afterwards.

| format | operations |
|---|---|
| `c` | those below, of one and two spatial axes; names are torch's, of functions, methods and what modules call |
| `onnx` | what torch.onnx translates; packed layers become `Conv`, `ConvTranspose` or `MatMul` of signs |
| `qonnx` | the same; packed layers with mirrored padding are refused, padding with zeros is none that FINN builds |
| `openvino` | what OpenVINO's frontend translates; replicate padding in front of a binary layer is refused |
| `pt2` | what torch.export records |

## In C

The file has the packed network's bits, float sums in the order of their indices. Exponential, logarithm, tanh and what is
made of them are computed by products and sums of the file's own, within 1e-6 of torch's; erf and gelu within 5e-7.

"""


def operations_page() -> str:
    """The page as text."""
    listed = ", ".join(f"`{name}`" for name in known_operations() if not name.startswith("_"))
    rows = "\n".join(f"| `{name}` | {why} |" for name, why in refused_operations())
    return f"{_HEAD}{listed}\n\n## Refused in C, with the way out\n\n| operation | way out |\n|---|---|\n{rows}\n"

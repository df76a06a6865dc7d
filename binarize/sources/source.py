"""A float model and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from binarize.errors import UsageError
from binarize.inputs import shapes
from binarize.inputs.arguments import Arguments

__all__ = ["InputFrom", "Kind", "Source"]


Kind = Literal["module", "torchvision", "timm", "pickle", "state_dict", "factory", "safetensors"]
InputFrom = Literal["given", "library", "inferred", "unknown"]


@dataclass(frozen=True)
class Source:
    """A float model and where it came from.

    `example_input` holds positional arguments and `example_keywords` those by name, made up of the shapes and types that
    the model takes. `input_shape` is the shape of the first of them with the batch; None means that it is unknown:
    `inputs()` then asks for it.
    `builder` and `num_classes` rebuild the same structure offline with `build`; None means that only
    `structure.pt` or the user can. `weights` is the downloaded tag. `notes` are for the user to read.
    """

    spec: str
    kind: Kind
    module: nn.Module
    example_input: tuple[Any, ...] | None
    input_shape: tuple[int, ...] | None
    class_path: str
    weights: str | None
    arch: str | None
    builder: str | None = None
    num_classes: int | None = None
    input_shape_from: InputFrom = "unknown"
    example_keywords: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    digest: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    # Of the Python file of the user's own that made the module or its architecture.
    code_sha256: str | None = None
    # Whether the file ran code of its own, on the user's word.
    trusted_pickle: bool = False

    @property
    def sha256(self) -> str | None:
        """Of the file, which is being read in the background while the model is already there."""
        return self.digest() if self.digest else None

    def inputs(self) -> tuple[Any, ...]:
        """The positional arguments of the example. Raises: UsageError where the inputs of the model are unknown."""
        if self.example_input is None:
            raise UsageError(
                f"{self.spec}: the shape of its input is not known; {shapes.asked_for(self.module)}"
            )
        return self.example_input

    def with_example(self, arguments: Arguments, known_from: InputFrom) -> Source:
        """The same source with an example of that kind."""
        args, kwargs = arguments.make(self.module)
        shape = next((kind.shape for kind in arguments.kinds), None)
        return replace(
            self, example_input=args, example_keywords=kwargs, input_shape=shape, input_shape_from=known_from
        )

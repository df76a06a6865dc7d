"""Nonlinearities that no packed file may name, as the straight lines they say they are: a module of the closed list."""

from __future__ import annotations

import copy

from torch import nn

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear, piecewise_of
from binarize.errors import UsageError
from binarize.modules.places import set_everywhere
from binarize.packed.graph.modules import describe, make

__all__ = ["put_lines", "with_lines"]


def with_lines(model: nn.Module) -> nn.Module:
    """A copy of a packed model with straight lines in place of the user's own nonlinearities; itself, where it has none.

    Those that say no lines, or compute something else, stay what they are.
    """
    forms = {
        path: form.whole().eval()
        for path, module in model.named_modules()
        if isinstance(module, Nonlinearity) and isinstance(describe(module), str)
        if isinstance(form := piecewise_of(module), PiecewiseLinear)
    }
    if not forms:
        return model
    model = copy.deepcopy(model)
    for path, form in forms.items():
        set_everywhere(model, path, form)
    return model


def put_lines(model: nn.Module, graph: object) -> None:
    """Let a model that was built from its code hold straight lines where the graph of its file does. In place.

    Raises: UsageError, where the model has no nonlinearity there.
    """
    modules = graph.get("modules") if isinstance(graph, dict) else None
    for path, said in modules.items() if isinstance(modules, dict) else ():
        if not isinstance(said, list) or said[:1] != ["PiecewiseLinear"]:
            continue
        try:
            place = model.get_submodule(path)
        except AttributeError as error:
            raise UsageError(f"there is no module {path!r}") from error
        if not isinstance(place, Nonlinearity):
            raise UsageError(f"{path}: is a {type(place).__name__}; expected a nonlinearity")
        set_everywhere(model, path, make(said).to_empty(device="cpu"))

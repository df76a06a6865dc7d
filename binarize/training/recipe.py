"""What a training is made of, as data: the recipe of a scheme, changed by a file and by arguments.

The keys are those of `training:` in a rule file. A recipe may have stages; each is a set of changes to it, with what is
binary meanwhile.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from binarize.conversion.conversion import conversion_of
from binarize.errors import RuleError
from binarize.rules.schema import check_recipe
from binarize.rules.text import parse, read_text
from binarize.schemes.recipe import Recipe
from binarize.schemes.scheme import Scheme

__all__ = ["read_recipe", "recipe_of"]


def recipe_of(model: nn.Module, published: bool = False) -> Recipe:
    """The recipe that comes with the model's scheme, or the one its authors published.

    Where layers have several schemes it is that of the most layers. A model that was not converted has the plain recipe.
    """
    scheme = _main_scheme(model)
    if scheme is None:
        return Recipe()
    return Recipe().changed(scheme.training_paper if published else scheme.training)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file that is one recipe. Raises RuleError with the line of what is none."""
    found = check_recipe(parse(read_text(path)))
    try:
        Recipe().changed(found)
    except RuleError as error:
        raise RuleError(f"{path}: {error}") from error
    return found


def _main_scheme(model: nn.Module) -> Scheme | None:
    conversion = conversion_of(model)
    if conversion is None or not conversion.plan.binarized:
        return None
    names = Counter(decision.scheme for decision in conversion.plan.binarized)
    return conversion.plan.schemes[str(names.most_common(1)[0][0])]

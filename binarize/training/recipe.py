"""What a training is made of, as data: the recipe of a scheme, changed by a file and by arguments.

The keys are those of `training:` in a rule file. A recipe may have stages; each is a set of changes to it, with what is
binary meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from binarize.conversion.conversion import conversion_of
from binarize.errors import RuleError, UsageError, way
from binarize.rules.schema import check_recipe
from binarize.rules.text import parse, read_text
from binarize.schemes.recipe import Recipe
from binarize.schemes.scheme import Scheme
from binarize.training.loop.stages import frozen_by, stages_of, two_stages
from binarize.trust import check_teacher

__all__ = ["RESUMED", "chosen_recipe", "differs", "read_recipe", "recipe_of"]

# What messages call the record of a training to resume.
RESUMED = "the training to resume"


def recipe_of(model: nn.Module, published: bool = False) -> Recipe:
    """The recipe that comes with the model's scheme, or the one its authors published.

    Where layers have several schemes it is that of the most layers. A model that was not converted has the plain recipe.
    """
    scheme = _main_scheme(model)
    if scheme is None:
        return Recipe()
    return Recipe().changed(scheme.training_paper if published else scheme.training)


# The word for inputs first, then weights too; the others are those of `frozen_by`.
TWO_STAGES = "two-stage"


def one_stage(two_stage: bool, stage: str | None) -> str | None:
    """The word of `chosen_recipe` for these two options. Raises: UsageError, where both are given."""
    if two_stage and stage is not None:
        raise UsageError(
            f"{way('--stage', 'stage')} and {way('--two-stage', 'two_stage')} name different stages; give one"
        )
    return TWO_STAGES if two_stage else stage


def chosen_recipe(
    model: nn.Module,
    given: Mapping[str, Any] | str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    stage: str | None = None,
    teacher: object = None,
    stored: Mapping[str, Any] | None = None,
) -> Recipe:
    """The scheme's recipe (with "paper" the authors'), changed by a file or mapping and then by `changes`.

    A training that is resumed keeps its own recipe; what is asked for must not differ from it. Unless the user names a
    teacher, here or as `teacher`, it is one that a file may name.

    Raises: RuleError, UsageError, UntrustedSourceError.
    """
    recipe = recipe_of(model, published=given == "paper")
    changes = changes or {}
    asked = {key for key, value in changes.items() if value is not None}
    if given is not None and given != "paper":
        keys = given if isinstance(given, Mapping) else read_recipe(given)
        recipe = recipe.changed(keys)
        asked |= set(keys)
    recipe = recipe.changed(changes)
    if stage is not None:
        recipe = two_stages(recipe) if stage == TWO_STAGES else frozen_by(recipe, stage)
    stages_of(recipe)
    said = teacher is not None or "teacher" in asked
    if stored is None:
        return recipe if said else _with_known_teacher(recipe, "the recipe of the model's scheme")
    before = Recipe().changed(stored["record"]["recipe"])
    asked |= {"stages"} if stage is not None else set()
    for key in sorted(asked):
        if getattr(recipe, key) != getattr(before, key):
            raise UsageError(differs(key, getattr(before, key), getattr(recipe, key)))
    return before if said else _with_known_teacher(before, RESUMED)


def _with_known_teacher(recipe: Recipe, where: str) -> Recipe:
    check_teacher(recipe.teacher, where)
    return recipe


def differs(key: str, before: object, now: object) -> str:
    """What is said where a training to resume was another one."""
    return (
        f"the training to resume has {key} {before}, not {now}\n"
        f"  leave it as it was, or begin anew ({way('--force', 'force=True')} without {way('--resume', 'resume')})"
    )


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

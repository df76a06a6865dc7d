"""Mutated YAML: rule files, recipes and studies, as trees and as bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz_mutations import mutated_bytes, mutated_tree

from binarize.analysis.layer import Layer
from binarize.rules.bind import bind
from binarize.rules.files import builtin_rule_sets, rule_file
from binarize.rules.load import load_rule_set
from binarize.rules.text import RuleText, parse
from binarize.studies.grid.expand import trials_of
from binarize.studies.grid.read import read_grid
from binarize.training.recipe import read_recipe

__all__ = ["cases", "read"]

_LAYERS = [
    Layer(name="stem", type="Conv2d", kind="conv", order=0, kernel=(3, 3), params=9, position="first"),
    Layer(name="layer1.0.conv1", type="Conv2d", kind="conv", order=1, kernel=(3, 3), params=900),
    Layer(name="fc", type="Linear", kind="linear", order=2, params=90, position="last"),
]
_RECIPE = """lr: 0.003
optimizer: adam
betas: [0.9, 0.999]
epochs: 5
augment: shift+flip
milestones: [2, 3]
stages:
  - {binary: [input], epochs: 3}
  - {binary: [weight, input], layers: 0.5, lr: 0.1}
"""
_STUDY = Path(__file__).parents[1] / "examples" / "studies"


def _texts() -> dict[str, list[str]]:
    studies = [path.read_text("utf-8") for path in sorted(_STUDY.rglob("*.yaml"))]
    return {
        "rules": [rule_file(name).read_text("utf-8") for name in builtin_rule_sets()],
        "recipe": [_RECIPE],
        "study": studies,
    }


def cases(seed: int, kind: str | None = None) -> Iterator[tuple[str, bytes]]:
    """(kind and what was changed, content of a YAML file), without end."""
    draw, texts = random.Random(seed), _texts()
    while True:
        which = kind or draw.choice(list(texts))
        text = draw.choice(texts[which])
        if draw.random() < 0.4:
            what, raw = mutated_bytes(text.encode(), draw)
        else:
            data: Any = parse(RuleText(text)).data
            what, changed = mutated_tree(data, draw)
            # JSON is YAML, but for numbers that are none.
            raw = json.dumps(changed).encode()
        yield f"{which} {what}", b"# " + which.encode() + b"\n" + raw


def read(path: Path) -> None:
    """Read the file as what its first line says."""
    with path.open("rb") as file:
        kind = file.readline()[2:].strip().decode()
    if kind == "recipe":
        read_recipe(path)
    elif kind == "study":
        trials_of(read_grid(path))
    else:
        bound = bind(load_rule_set(rules=path), _LAYERS)
        for layer in _LAYERS:
            rule = bound.decide(layer)
            if rule is not None and rule.scheme is not None:
                bound.scheme(rule)
        bound.unmatched(_LAYERS)

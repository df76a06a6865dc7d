"""Cards of parts: what is drawn is what the part computes."""

from __future__ import annotations

import pytest

from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.schemes.card import NUMBERS, cards, settings


def test_a_card_has_the_words_values_and_slopes_of_its_part() -> None:
    weight, inputs = cards(load_rule_set("bireal").schemes["bireal"])
    assert (weight.slot, inputs.slot) == ("weight", "input")
    assert (
        inputs.text.startswith("sign(x), with the gradient 2 - 2|x| on [-1, 1]") and "Source:" in inputs.text
    )
    middle = NUMBERS // 2
    assert inputs.values == (-1.0,) * middle + (1.0,) * (middle + 1)
    assert inputs.slopes[middle] == 2 and inputs.slopes[0] == inputs.slopes[-1] == 0
    assert inputs.slopes == inputs.slopes[::-1]


@pytest.mark.parametrize("name", builtin_rule_sets())
@pytest.mark.sampled(14)
def test_every_scheme_has_a_card_of_each_part(name: str) -> None:
    scheme = load_rule_set(name).schemes[name]
    found = {card.slot: card for card in cards(scheme)}
    assert set(found) == {key for key in ("weight", "input", "scale", "nonlinearity") if getattr(scheme, key)}
    for card in found.values():
        assert card.text.strip()
        assert len(card.values) == len(card.slopes) == (0 if card.slot == "scale" else NUMBERS)


def test_settings_are_words() -> None:
    said = settings(load_rule_set("reste").schemes["reste"])
    assert said["weight"] == "dorefa.LayerScaledSign (estimator reste.PowerSign)"
    assert said["schedule"].startswith("target weight.estimator, kind reste, o_max 3; target input")
    assert not any("{" in text or "'" in text for text in said.values())

"""Whatever stands in a rule file, a rule set or a project error comes out."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from binarize.analysis.layer import Layer
from binarize.errors import RuleError
from binarize.rules.bind import bind
from binarize.rules.files import rule_file
from binarize.rules.load import load_rule_set
from binarize.rules.text import RuleText


def words(text: str) -> list[str]:
    return text.split()


PIECES = [
    *(rule_file(name).read_text(encoding="utf-8") for name in ("adabin", "adabin_paper", "irnet")),
    "schema: 1",
    "rules:",
    *words(r'[ ] { } - : , ? | > & * ! % @ ` # \' " \\ ~ --- ... << null .nan .inf 0x 1e999 -1'),
    *(
        "\t",
        "\n",
        "  ",
        "\x00",
        "\x85",
        "\u2028",
        "\ufeff",
        "\U0010ffff",
        '"\\U00110000"',
        '"\\ud800"',
        "9" * 5000,
    ),
    *words(
        "schema name extends defaults scheme schemes rules id match use with shortcut norm activation why"
    ),
    *words(
        "not any kind kernel params position first last type subclasses adabin keep weight part re:( [0-9] **"
    ),
]

TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=25).map("\n".join),
    # A shipped file with one piece cut out and another put in.
    st.builds(
        lambda base, at, cut, new: base[: at % len(base)] + new + base[at % len(base) + cut :],
        st.sampled_from(PIECES[:3]),
        st.integers(0, 5000),
        st.integers(0, 20),
        st.sampled_from(PIECES[3:]),
    ),
)


@given(TEXTS)
@settings(deadline=None)
def test_any_text_gives_a_rule_set_or_a_project_error(text: str) -> None:
    try:
        load_rule_set(rules=RuleText(text, "f.yaml"))
    except RuleError as error:
        assert str(error).startswith("f.yaml")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.sampled_from(
        words(
            "keep adabin bnn weights-only:bnn missing every conv >=3 3x3 depthwise ** re:( a[0-3] auto "
            "irnet.Ede"
        )
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                words(
                    "name type kind kernel groups in first not any subclasses gate weight input part binarizer "
                    "estimator t nonlinearity position clip schedule training epochs stages shortcut oops"
                )
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
MATCHES = st.dictionaries(
    st.sampled_from(words("name type kind kernel params first not any gate in")), VALUES, max_size=3
)
RULES = st.fixed_dictionaries(
    {"match": MATCHES, "use": SCALARS},
    optional={"id": SCALARS, "with": VALUES, "shortcut": SCALARS, "activation": SCALARS, "norm": SCALARS},
)
FILES = st.fixed_dictionaries(
    {"rules": st.lists(RULES, max_size=3)},
    optional={
        "scheme": VALUES,
        "schemes": st.dictionaries(st.text(max_size=3), VALUES, max_size=2),
        "extends": SCALARS,
    },
)
LAYER = Layer(name="a.b", type="Conv2d", kind="conv", order=0, kernel=(3, 3), params=9)


@given(FILES)
@settings(deadline=None)
def test_any_data_gives_a_rule_set_that_decides_or_a_project_error(data: dict[str, Any]) -> None:
    try:
        rules = load_rule_set(rules=data)
    except RuleError:
        return
    rule = bind(rules, [LAYER]).decide(LAYER)
    if rule is not None and rule.scheme is not None:
        rules.scheme(rule)
    assert load_rule_set(rules=RuleText(rules.to_yaml())) == rules

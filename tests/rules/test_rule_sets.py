"""The shipped rule files: complete, built from parts that exist, and alike where they should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from binarize.analysis.layer import Layer
from binarize.rules.files import builtin_rule_sets, rule_file
from binarize.rules.load import load_rule_set
from binarize.rules.text import RuleText
from binarize.schemes.part import Part
from binarize.training.loop.schedules import KINDS

NAMES = builtin_rule_sets()
# Trained by a recipe of its own, all layers of it binary.
RANDOM = "naive-bernoulli"
CONV = Layer(
    name="layer1.0.conv1",
    type="Conv2d",
    kind="conv",
    order=1,
    kernel=(3, 3),
    params=36864,
    in_channels=64,
    out_channels=64,
)


def test_all_schemes_are_there() -> None:
    assert NAMES == [
        "abbnn",
        "adabin",
        "adabin_paper",
        "adabin_seed002",
        "adambnn",
        "bayesbinn",
        "binaryconnect",
        "binaryconnect_stochastic",
        "biper",
        "bireal",
        "bireal_paper",
        "bit",
        "bitnet",
        "bnn",
        "bnn_paper",
        "bnnplus",
        "bnnplus_paper",
        "bop",
        "bwn",
        "dorefa",
        "fda",
        "ienet",
        "ienet_paper",
        "insta",
        "irnet",
        "irnet_paper",
        "naive-bernoulli",
        "pokebnn",
        "proxybnn",
        "rbnn",
        "reactnet",
        "reactnet_paper",
        "realtobinary",
        "rebnn",
        "recu",
        "reste",
        "sibnn",
        "tang",
        "xnor",
        "xnor_paper",
        "xnorpp",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_file_defines_the_scheme_of_its_name_with_paper_and_recipes(name: str) -> None:
    rules = load_rule_set(name)
    scheme = rules.schemes[name]
    assert (rules.name, list(rules.schemes)) == (name, [name])
    assert "https://" in rules.paper
    assert scheme.paper == rules.paper
    assert scheme.description == rules.description != ""
    if name == RANDOM:
        assert scheme.training["batch_size"] == scheme.training_paper["batch_size"] == 100
        return
    recipe = {"optimizer": "adam", "lr": 3e-3, "schedule": "cosine", "warmup": 0.05, "epochs": 30}
    # Measured for these alone.
    tuned = {"batch_size": 64, "norm_images": 10000} if name.startswith(("reactnet", "adambnn")) else {}
    tuned = {"norm_images": 10000} if name == "binaryconnect_stochastic" else tuned
    rates = {"bop": 1e-3, "bayesbinn": 1e-4}
    tuned = {"binary_optimizer": name, "binary_lr": rates[name]} if name in rates else tuned
    tuned |= {"norm_images": 10000} if name == "bayesbinn" else {}
    assert scheme.training == {**recipe, "weight_decay": 0, "teacher": "source", **tuned}
    # Where no published recipe is known, there is no optimizer either.
    assert scheme.training_paper.get("optimizer", "adam") in ("adam", "adamw", "sgd")
    assert all(rule.optional and rule.where.endswith(tuple("0123456789")) for rule in rules.rules)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_built_and_give_finite_values(name: str) -> None:
    torch.manual_seed(0)
    scheme = load_rule_set(name).schemes[name]
    context = {"channels": 4, "channel_dim": 1, "axis": 0}
    w, x = torch.randn(4, 4, 3, 3), torch.randn(2, 4, 5, 5)
    assert scheme.weight is not None
    values, scale = scheme.weight.build(**context).split(w)
    assert torch.isfinite(values if scale is None else values * scale).all()
    for part in (scheme.input, scheme.scale, scheme.nonlinearity):
        if part is not None:
            assert part.shipped
            assert torch.isfinite(part.build(**context)(x)).all()


@pytest.mark.parametrize("name", NAMES)
def test_schedules_aim_at_parts_that_are_there(name: str) -> None:
    scheme = load_rule_set(name).schemes[name]
    for entry in scheme.schedule:
        slot, *inner = entry["target"].split(".")
        part = getattr(scheme, slot)
        assert isinstance(part, Part)
        module = part.build(channels=4, channel_dim=1, axis=0)
        for attribute in inner:
            module = getattr(module, attribute)
        written = KINDS[entry["kind"]].values(0.0, **KINDS[entry["kind"]].options)
        assert written.keys() <= dict(module.named_buffers()).keys()


# Layers that other schemes keep.
BINARY_ENDS = {
    ("bnn_paper", "first"): "weights-only:bnn_paper",
    ("bnn_paper", "last"): "bnn_paper",
    ("ienet_paper", "downsample"): "ienet_paper",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "body"),
        ({"kind": "linear", "kernel": ()}, "body"),
        ({"kind": "conv_transpose"}, "body"),
        ({"groups": 64}, "depthwise"),
        ({"groups": 2}, "body"),
        ({"kernel": (1, 1), "downsample": True}, "downsample"),
        ({"kernel": (1, 1)}, "body"),
        ({"downsample": True}, "body"),
        ({"gate": True}, "gate"),
        ({"params": 255}, "tiny"),
        ({"params": 256}, "body"),
        ({"position": "first"}, "first"),
        ({"position": "last"}, "last"),
        ({"kind": "embedding"}, None),
    ],
)
def test_common_rules(name: str, facts: dict[str, object], expected: str | None) -> None:
    rule = load_rule_set(name).decide(replace(CONV, **facts))
    if name == RANDOM and facts.keys() & {"position", "params"}:
        # Its first layer signs pixels, its last yields expectations, and a float one between would end the signs.
        assert rule is not None
        assert (rule.id, rule.use) == ("last" if facts.get("position") == "last" else "body", name)
        return
    assert (rule.id if rule else None) == expected
    if rule is not None:
        assert rule.use == BINARY_ENDS.get((name, expected), name if expected == "body" else "keep")
        assert rule.why or expected == "body"


@pytest.mark.parametrize("name", NAMES)
def test_effective_rule_set_is_re_run_equal(name: str) -> None:
    rules = load_rule_set(name)
    assert load_rule_set(rules=RuleText(rules.to_yaml())) == rules


# What the published networks have that the schemes for any network leave out.
PUBLISHED: dict[str, dict[str, object]] = {
    "adabin_paper": {
        "shortcut": "residual", "downsample": "pool", "last_activation": "replace", "head_norm": "missing",
    },
    "bireal_paper": {"shortcut": "every", "downsample": "pool", "last_activation": "replace"},
    "bnn_paper": {"downsample": "binary"},
    "bnnplus_paper": {"weight": Part("bnn.SteSign"), "scale": Part("ienet.OutputScale")},
    "ienet_paper": {
        "input": Part("ienet.MultiSign", {"thresholds": 2}), "first_activation": "drop", "last_activation": "replace",
        "head_norm": "missing",
    },
    "xnor_paper": {
        "weight": Part("xnor.ScaledSign", {"scale_grad": "paper", "centre": True}), "first_activation": "keep",
    },
    "irnet_paper": {"shortcut": "residual", "last_activation": "replace", "head_norm": "missing"},
    "reactnet_paper": {
        "shortcut": "every", "downsample": "pool", "first_activation": "drop", "last_activation": "replace",
        "input": Part("reactnet.RSign", {"adaptive": False}),
        "nonlinearity": Part("reactnet.RPReLU", {"slope": 0.25}),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_paper_variant_differs_by_what_the_authors_networks_have(name: str) -> None:
    base = name.removesuffix("_paper")
    variant, scheme = load_rule_set(name).schemes[name], load_rule_set(base).schemes[base]
    expected = replace(scheme, name=name, description=variant.description, **PUBLISHED[name])  # type: ignore[arg-type]
    assert variant == expected


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("xnor", {"norm": "before_sign", "clip": (-1.0, 1.0), "nonlinearity": None}),
        ("bnn", {"nonlinearity": Part("torch.nn.Hardtanh"), "clip": (-1.0, 1.0)}),
        ("binaryconnect", {"input": None, "clip": (-1.0, 1.0)}),
        ("binaryconnect_stochastic", {"input": None, "clip": (-1.0, 1.0)}),
        ("reactnet", {"nonlinearity": Part("reactnet.RPReLU", {"slope": 0}), "position": "after_add"}),
        (
            "reactnet_paper",
            {"nonlinearity": Part("reactnet.RPReLU", {"slope": 0.25}), "position": "after_add"},
        ),
        ("dorefa", {"input": Part("dorefa.ZeroOne"), "clip": None}),
        ("adabin", {"nonlinearity": Part("adabin.Maxout"), "norm": "missing"}),
    ],
)
def test_what_makes_a_scheme_itself(name: str, facts: dict[str, object]) -> None:
    scheme = load_rule_set(name).schemes[name]
    assert {field: getattr(scheme, field) for field in facts} == facts


def test_files_are_text_a_person_reads() -> None:
    for name in NAMES:
        lines = rule_file(name).read_text(encoding="utf-8").splitlines()
        assert max(map(len, lines)) <= 126, name
        assert len(lines) < 40, name

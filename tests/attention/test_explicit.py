"""Attention by two layers of its own computes what torch's does; converted, its projections are binary layers."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import nets
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import binarize
from binarize.attention.explicit import explicit_attentions, make_explicit, why_not_explicit
from binarize.attention.multihead import ExplicitAttention
from binarize.conversion.float_names import float_names, load_float_state_dict
from binarize.conversion.float_twin import float_twin
from binarize.errors import UsageError
from binarize.layers.linear import BinaryLinear


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(8, 2, **options)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def explicit(given: nn.MultiheadAttention) -> nn.MultiheadAttention:
    made = copy.deepcopy(given)
    make_explicit(made)
    return made


def assert_same(given: nn.MultiheadAttention, *inputs: Any, **options: Any) -> None:
    expected, found = given(*inputs, **options), explicit(given)(*inputs, **options)
    assert (expected[1] is None) == (found[1] is None)
    for a, b in zip(expected, found):
        if a is not None:
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("need_weights, average", [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_it_computes_what_torch_does(options: dict[str, bool], need_weights: bool, average: bool) -> None:
    given = attention(**options)
    keywords = {"need_weights": need_weights, "average_attn_weights": average}
    x, y, z = torch.randn(3, 4, 4, 8)
    # (4 tokens, 4 samples) either way round
    shut = torch.tensor([[False, True, False, True]] * 4)
    masks: list[dict[str, Tensor]] = [
        {},
        {"key_padding_mask": shut},
        {"attn_mask": torch.ones(4, 4).triu(1).bool()},
        {"attn_mask": torch.randn(8, 4, 4)},
        {"attn_mask": torch.randn(4, 4), "key_padding_mask": shut.float()},
    ]
    for (q, k, v), mask in itertools.product(((x, x, x), (x, y, y), (x, x, y), (x, y, z)), masks):
        assert_same(given, q, k, v, **keywords, **mask)
    single, other = torch.randn(5, 8), torch.randn(3, 8)
    for q, k in ((single, single), (single, other)):
        assert_same(given, q, k, k, **keywords)
        assert_same(given, q, k, k, key_padding_mask=torch.arange(len(k)) > 1, **keywords)


def test_dropout_acts_on_the_weights_in_training_only() -> None:
    made = explicit(attention(dropout=0.5)).train()
    x = torch.randn(4, 2, 8)
    torch.manual_seed(1)
    _, weights = made(x, x, x, average_attn_weights=False)
    assert weights is not None and (weights == 0).any()
    torch.testing.assert_close(made.eval()(x, x, x)[1].sum(-1), torch.ones(2, 4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_seed_gives_the_dropout_behind_the_same_numbers(batch_first: bool) -> None:
    given = attention(dropout=0.5, batch_first=batch_first).train()
    x, outputs = torch.randn(4, 2, 8), []
    for model in (given, explicit(given)):
        torch.manual_seed(1)
        out, _ = model(x, x, x, need_weights=False)
        outputs.append(nn.functional.dropout(out, 0.5))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_same_parameters() -> None:
    given = attention()
    made = explicit(given)
    x = torch.randn(4, 2, 8)
    for model in (given, made):
        model(x, x, x)[0].square().sum().backward()
    assert isinstance(made, ExplicitAttention)
    pairs = [(given.in_proj_weight, made.in_proj.weight), (given.in_proj_bias, made.in_proj.bias)]
    for theirs, ours in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_the_object_and_its_parameters_stay() -> None:
    given = attention()
    weight, bias = given.in_proj_weight, given.in_proj_bias
    make_explicit(given)
    assert isinstance(given, ExplicitAttention) and isinstance(given, nn.MultiheadAttention)
    assert given.in_proj.weight is weight and given.in_proj.bias is bias
    assert [name for name, _ in given.named_parameters()] == [
        "in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip
    assert not given.in_proj.training


def test_a_causal_hint_needs_its_mask() -> None:
    x = torch.randn(4, 2, 8)
    with pytest.raises(UsageError, match="expected the mask as well"):
        explicit(attention())(x, x, x, is_causal=True)


def test_attention_of_another_kind_is_left_alone() -> None:
    class Own(nn.MultiheadAttention):
        pass

    assert why_not_explicit(attention(kdim=4)) == "its queries, keys and values have widths of their own"
    assert str(why_not_explicit(Own(8, 2))).endswith("Own has a forward of its own")
    pruned = prune.random_unstructured(attention(), "in_proj_weight", 0.5)
    assert why_not_explicit(pruned) == "its weight is computed by a hook of torch.nn.utils"
    model = nn.Sequential(Own(8, 2), attention(vdim=2), attention())
    assert explicit_attentions(model) == ["2"]
    assert [type(part) for part in model] == [Own, nn.MultiheadAttention, ExplicitAttention]


# --- converted


def test_projections_become_binary_and_the_products_of_tokens_do_not() -> None:
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model))
    layer = converted.get_submodule("encoder.layers.0")
    assert type(layer.self_attn) is ExplicitAttention
    assert isinstance(layer.self_attn.in_proj, BinaryLinear)
    assert isinstance(layer.self_attn.out_proj, BinaryLinear)
    assert type(model.encoder.layers[0].self_attn) is nn.MultiheadAttention  # type: ignore[union-attr]


def test_the_sums_around_attention_and_its_followers_are_seen() -> None:
    model = nets.seeded(nets.Encoder)
    layers = {
        d.layer.name: d.layer
        for d in binarize.plan(model, "bnn", example_input=nets.example(model)).decisions
    }
    for name in ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"):
        layer = layers[f"encoder.layers.0.{name}"]
        assert (layer.kind, layer.skip, layer.span, layer.capture) == ("linear", "enclosing", 2, "tape")
    assert layers["encoder.layers.0.self_attn.in_proj"].inside[-1] == "MultiheadAttention"
    # 16 tokens of 16 channels to three times 16
    assert layers["encoder.layers.0.self_attn.in_proj"].macs == 16 * 16 * 48


def test_a_norm_in_front_of_a_sign_is_not_doubled() -> None:
    class PreNorm(nets.Encoder):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    model = nets.seeded(PreNorm)
    planned = binarize.plan(model, "xnor", example_input=nets.example(model))
    norms = {d.layer.name.removeprefix("encoder.layers.0."): d.norm for d in planned.plan.binarized}
    assert norms == {
        "self_attn.in_proj": "none",
        "self_attn.out_proj": "added LayerNorm before the sign",
        "linear1": "none",
        "linear2": "added LayerNorm before the sign",
    }


def test_an_attention_that_stays_float_stays_torchs() -> None:
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(
        model, "bnn", keep=["encoder.layers.*.self_attn.*"], example_input=nets.example(model)
    )
    layers = converted.get_submodule("encoder.layers")
    assert [type(layer.self_attn) for layer in layers] == [nn.MultiheadAttention] * 2  # type: ignore[union-attr]
    assert isinstance(converted.get_submodule("encoder.layers.0.linear1"), BinaryLinear)


def test_a_binary_layer_is_used_without_gradients_too() -> None:
    """Torch's fast path reads the float weights past the layers, in evaluation mode without gradients."""
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model)).eval()
    (x,) = nets.example(model)
    with_gradients = converted(x)
    with torch.no_grad():
        assert torch.equal(converted(x), with_gradients)
        padded = converted.get_submodule("encoder")(
            torch.randn(2, 4, 16), src_key_padding_mask=torch.tensor([[False, False, True, True]] * 2)
        )
    assert padded.shape == (2, 4, 16)


def test_a_layer_of_two_encoder_layers_is_used_by_both() -> None:
    class Shared(nets.Encoder):
        def __init__(self) -> None:
            super().__init__()
            first, second = self.encoder.layers
            second.linear1 = first.linear1  # type: ignore[assignment]

    model = nets.seeded(Shared)
    converted = binarize.convert(
        model, "bnn", keep=["**.self_attn.*", "**.linear2"], example_input=nets.example(model)
    )
    (x,) = nets.example(model)
    with_gradients = converted.eval()(x)
    with torch.no_grad():
        # The attention that stays torch's has a fast path of its own, which rounds otherwise.
        torch.testing.assert_close(converted(x), with_gradients, rtol=1e-4, atol=1e-4)


def test_queries_of_another_tensor_keep_one_projection_float_with_the_reason() -> None:
    class Cross(nets.Encoder):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.encoder(self.tokens(x))
            return self.head(self.cross(tokens[:, :2], tokens, tokens)[0].mean(1))

        def __init__(self) -> None:
            super().__init__()
            self.cross = nn.MultiheadAttention(16, 2, batch_first=True)

    model = nets.seeded(Cross)
    planned = binarize.plan(model, "bnn", example_input=nets.example(model))
    assert not planned["cross.in_proj"].binary
    assert planned["cross.in_proj"].why.startswith("queries, keys and values are made of different tensors")
    assert planned["cross.out_proj"].binary
    with torch.no_grad():
        planned.apply()(*nets.example(model))


def test_weights_read_where_torch_puts_them_keep_the_attention_closed() -> None:
    class Reading(nets.Encoder):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.encoder.layers[0].self_attn.in_proj_weight
            return super().forward(x) + weight.mean()

    model = nets.seeded(Reading)
    planned = binarize.plan(model, "bnn", example_input=nets.example(model))
    decision = planned["encoder.layers.0.self_attn"]
    assert (decision.action, decision.why) == (
        "keep",
        "the model reads the weights of its projections itself",
    )
    planned.apply()(*nets.example(model))


def test_float_weights_find_their_place() -> None:
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model))
    names = float_names(converted)
    path = "encoder.layers.1.self_attn"
    assert names[f"{path}.in_proj_weight"] == f"{path}.in_proj.weight"
    assert names[f"{path}.in_proj_bias"] == f"{path}.in_proj.norm.bias"
    other = nets.seeded(nets.Encoder, seed=1)
    load_float_state_dict(converted, other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(converted.state_dict()[names.get(name, name)], value), name


def test_attention_outside_of_torchs_layers_packs_to_a_file_that_stands_alone(tmp_path: Path) -> None:
    class Single(nets.Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.MultiheadAttention(16, 2, batch_first=True)  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            x = self.tokens(x)
            return self.head((x + self.encoder(x, x, x, need_weights=False)[0]).mean(1))

    model = nets.seeded(Single)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model)).eval()
    packing = binarize.pack(binarize.save(converted, tmp_path / "single"), model=model)
    assert packing.needs is None
    (x,) = nets.example(model)
    with torch.no_grad():
        assert torch.equal(binarize.load_packed(packing.path)(x), binarize.freeze(converted)(x))


def test_the_float_model_comes_back_from_a_converted_one() -> None:
    model = nets.seeded(nets.Encoder)
    twin = float_twin(binarize.convert(model, "bnn", example_input=nets.example(model), calibrate=False))
    assert twin is not None
    assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("how", ["export", pytest.param("compile", marks=pytest.mark.slow)])
def test_torch_follows_a_converted_encoder(how: str) -> None:
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model)).eval()
    (x,) = nets.example(model)
    followed: Any = (
        torch.export.export(converted, (x,)).module()
        if how == "export"
        else torch.compile(converted, backend="aot_eager", fullgraph=True)
    )
    torch.testing.assert_close(followed(x), converted(x), rtol=1e-5, atol=1e-5)


def test_saved_and_packed_attention_computes_the_same(tmp_path: Path) -> None:
    model = nets.seeded(nets.Encoder)
    converted = binarize.convert(model, "bnn", example_input=nets.example(model)).eval()
    folder = tmp_path / "encoder"
    binarize.save(converted, folder)
    (x,) = nets.example(model)
    with torch.no_grad():
        assert torch.equal(binarize.load(folder, model=model).eval()(x), converted(x))
        binarize.pack(folder, model=model)
        packed, frozen = binarize.load_packed(folder, model=model), binarize.freeze(converted)
        assert torch.equal(packed(x), frozen(x))
        torch.testing.assert_close(frozen(x), converted(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["beit_base_patch16_224", "eva02_tiny_patch14_224", "swinv2_tiny_window8_256"]
)
def test_projections_that_timm_fuses_with_their_bias_become_binary(name: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 8}
    if name.startswith("swin"):
        sizes = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=32, num_classes=10, **sizes).eval()
    x = nets.pictures(2, 32)
    fused = [path for path, part in model.named_modules() if hasattr(part, "qkv_bias_separate")]
    as_it_is = {"weight": "torch.nn.Identity", "input": None, "nonlinearity": None, "norm": "never"}
    rules = {"rules": [{"match": {"name": "**"}, "use": "bnn", "with": as_it_is}]}
    same = binarize.convert(model, rules=rules, example_input=x, calibrate=False).eval()
    assert fused and all(type(same.get_submodule(f"{path}.qkv")) is BinaryLinear for path in fused)
    assert not any(model.get_submodule(path).qkv_bias_separate for path in fused)
    with torch.no_grad():
        torch.testing.assert_close(same(x), model(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(
            binarize.load(binarize.save(same, tmp_path / "same"), model=model).eval()(x), same(x)
        )
    kept = binarize.convert(model, "bnn", keep=["**.qkv"], example_input=x, calibrate=False)
    assert not any(kept.get_submodule(path).qkv_bias_separate for path in fused)

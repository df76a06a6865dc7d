"""What models of the transformers library take, by their configuration; none is downloaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from binarize.inputs.huggingface import from_config
from binarize.sources import load

transformers = pytest.importorskip("transformers")

TEXT = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 12,
}  # fmt: skip
IMAGE = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 2}
CLIP = {"text_config": TEXT, "vision_config": IMAGE, "projection_dim": 16}


def made(model: str, config: str, **options: Any) -> nn.Module:
    return getattr(transformers, model)(getattr(transformers, config)(**options)).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "config", "options", "shapes"),
    [
        ("BertModel", "BertConfig", TEXT, {"input_ids": (1, 12), "attention_mask": (1, 12)}),
        ("ViTForImageClassification", "ViTConfig", IMAGE, {"pixel_values": (1, 3, 32, 32)}),
        ("ViTModel", "ViTConfig", IMAGE | {"num_channels": 1}, {"pixel_values": (1, 1, 32, 32)}),
        (
            "T5ForConditionalGeneration",
            "T5Config",
            T5,
            {"input_ids": (1, 16), "attention_mask": (1, 16), "decoder_input_ids": (1, 16)},
        ),
        (
            "CLIPModel",
            "CLIPConfig",
            CLIP,
            {"input_ids": (1, 12), "attention_mask": (1, 12), "pixel_values": (1, 3, 32, 32)},
        ),
    ],
)
def test_the_configuration_tells_the_inputs(
    model: str, config: str, options: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> None:
    source = load(made(model, config, **options))
    assert source.input_shape_from == "inferred"
    assert {name: tuple(value.shape) for name, value in source.example_keywords.items()} == shapes
    assert source.inputs() == ()
    source.module(**source.example_keywords)
    for name, value in source.example_keywords.items():
        if name != "pixel_values":
            assert value.dtype == torch.int64
            assert set(value.flatten().tolist()) <= set(range(60))
    if "attention_mask" in shapes:
        assert source.example_keywords["attention_mask"].all()


def test_other_models_are_none_of_that_library() -> None:
    module = nn.Linear(2, 2)
    module.config = transformers.BertConfig(**TEXT)  # type: ignore[assignment]
    assert list(from_config(module)) == []

"""Whole models of the libraries, one a mechanism, held to the laws; benchmarks/zoo.py does it with all of them."""

from __future__ import annotations

from pathlib import Path

import model_laws
import pytest
import torch
from zoo_cases import case

import binarize

# Model -> what it is here for.
MODELS = {
    "torchvision:mobilenet_v3_small": "gates of squeeze and excitation, Hardswish",
    "torchvision:shufflenet_v2_x0_5": "halves of a tensor, shuffled channels",
    "torchvision:deeplabv3_mobilenet_v3_large(aux_loss=True)": "an auxiliary head, dilation",
    "torchvision:squeezenet1_1": "a convolution that gives the logits, no norms",
    "torchvision:lraspp_mobilenet_v3_large": "a dictionary as output, features from between",
    "torchvision:ssdlite320_mobilenet_v3_large": "control flow by data, lists of dictionaries",
    "timm:test_resnet": "a residual network with shared ReLU",
    "timm:test_efficientnet": "norms that apply their activation",
    "timm:test_efficientnet_gn": "group norm",
    "timm:test_convnext": "linear layers on channels last, LayerNorm",
    "timm:test_nfnet": "weights standardized in the forward pass",
    "timm:test_vit": "attention",
    "timm:test_mambaout": "gated blocks that split",
    "timm:test_byobnet": "blocks of several branches",
    "timm:tf_mobilenetv3_small_minimal_100": "padding by the size of the input",
    "timm:ghostnet_050": "slices of concatenations, functional dropout",
    "timm:levit_128s(img_size=64)": "two heads, attention biases that evaluation caches",
    "timm:test_maxvit": "attention in windows and grids, relative positions",
    "timm:efficientvit_m0(img_size=64)": "shape values in control flow",
    "timm:beit_base_patch16_224(depth=2, embed_dim=48, num_heads=2)": "a functional linear layer",
    "hf:bert": "tokens by keyword, a dataclass as output",
    "hf:swin": "windows, relative positions",
    "hf:clip": "a text and a picture, two heads",
    "hf:llama": "a causal mask, gated linear layers",
    "hf:segformer": "hooks of the model itself",
}


# Mechanisms that no network of `nets` has, on small models.
QUICK = {
    "torchvision:squeezenet1_1", "timm:test_efficientnet", "timm:test_nfnet", "timm:test_byobnet", "timm:test_mambaout",
    "timm:tf_mobilenetv3_small_minimal_100", "hf:bert", "hf:clip",
}  # fmt: skip


@pytest.mark.parametrize(
    "spec", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_whole_models_keep_the_laws(spec: str, tmp_path: Path) -> None:
    if spec.startswith("hf:"):
        pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        found = laws_of(spec, tmp_path)
    assert {law: told for law, told in found.items() if told != "ok"} == {}


def laws_of(spec: str, folder: Path) -> dict[str, str]:
    """What each law says of a model."""
    made = case(spec)
    model, before = made.model, model_laws.fingerprint(made.model)
    planned = binarize.plan(made.source, "adabin", shortcuts="every", example_input=made.example)
    bnn = planned.apply()
    meta = planned.analysis.graph.level == "meta"
    return {
        "original": "ok" if model_laws.fingerprint(model) == before else "the model changed",
        "reported": model_laws.reported(model, planned.plan, made.arguments, made.training),
        "kept": model_laws.keeps_all(model, planned.plan, made.arguments, made.training),
        "shapes": model_laws.same_shapes(model, bnn, made.arguments, sizes=meta),
        "alive": model_laws.alive(bnn, made.arguments),
        "saved": model_laws.saved(bnn, made.arguments, folder, None if made.named else model),
        "gradients": model_laws.gradients(model, bnn, made.training),
    }

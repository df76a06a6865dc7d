"""Models of the libraries with the smallest input that each takes: `case("timm:convit_tiny")`.

A spec is what `binarize.load_source` names (torchvision:NAME, timm:NAME), or a tiny configuration of another library:
hf:NAME (transformers), yolo:NAME (ultralytics), smp:NAME (segmentation-models-pytorch). Inputs are pieces of
photographs, never noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import nets
import torch
from model_laws import Arguments
from torch import Tensor, nn

from binarize.modules.copies import without_data
from binarize.sources import Source, load

__all__ = ["HF", "SMP", "Case", "NoInputError", "case", "hf_model"]

# Below 64 pixels the last maps of most networks are single pixels, whose signs tell nothing.
SIDES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512, 1024)
# Parameters.
GIANT = 300_000_000
# (frames, side) of video models.
CLIPS = ((8, 64), (16, 64), (16, 112), (16, 224), (32, 224))
# Sizes of a detector's input are set when it is built.
DETECTOR = "(min_size=96, max_size=128)"
FIXED_DETECTORS = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


class NoInputError(Exception):
    """No input that was tried runs; the message is the last exception."""


@dataclass
class Case:
    """A float model and the arguments of its forward, which may be others in training mode."""

    spec: str
    source: Source
    arguments: Arguments
    training: Arguments = field(default=((), {}))
    # Whether its spec alone builds the same structure again.
    named: bool = True

    @property
    def model(self) -> nn.Module:
        """The float model."""
        return self.source.module

    @property
    def example(self) -> Any:
        """The arguments as `example_input` takes them."""
        args, kwargs = self.arguments
        return dict(kwargs) or args

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first tensor of the input."""
        leaves = torch.utils._pytree.tree_leaves(self.arguments)
        return next(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor))


def case(spec: str, *, images: int | None = None, seed: int = 0, meta: bool = False) -> Case:
    """The model with seeded random weights, in evaluation mode, and the smallest input that it takes.

    `images`: 4, or 2 where they are larger than 128 pixels; giants get 1 of these. Raises: NoInputError.
    """
    library, _, name = spec.partition(":")
    torch.manual_seed(seed)
    if library in ("torchvision", "timm"):
        return _named(spec, images, meta)
    made, arguments = {"hf": _hf, "yolo": _yolo, "smp": _smp}[library](name)
    return Case(spec, load(made.eval()), arguments, arguments, named=False)


def _named(spec: str, images: int | None, meta: bool) -> Case:
    kind = _torchvision_kind(spec)
    detector = kind == "detection"
    text = spec
    if detector and spec.partition(":")[2] not in FIXED_DETECTORS:
        text += DETECTOR
    source = load(text, meta=meta)
    model = source.module.eval()
    if detector:
        return Case(spec, source, *_detection(model))
    skeleton = without_data(model)
    error: Exception | None = None
    for arguments in _candidates(kind, source, images):
        error = _refusal(skeleton, arguments, torch.device("meta"))
        if error is None:
            return Case(spec, source, arguments, arguments)
    # Some models take another way on the meta device, or none.
    for arguments in _candidates(kind, source, images):
        error = _refusal(copy.deepcopy(model), arguments, None)
        if error is None:
            return Case(spec, source, arguments, arguments)
    raise NoInputError(f"{type(error).__name__}: {error}")


def _torchvision_kind(spec: str) -> str:
    """ "detection", "optical_flow", "video" or "": the part of torchvision.models that a builder stands in."""
    library, _, name = spec.partition("(")[0].partition(":")
    if library != "torchvision":
        return ""
    from torchvision import models

    return models.get_model_builder(name).__module__.split(".")[2]


def _candidates(kind: str, source: Source, images: int | None) -> Iterator[Arguments]:
    if kind == "video":
        for frames, side in CLIPS:
            yield (nets.pictures(images or 2, side)[:, :, None].repeat(1, 1, frames, 1, 1),), {}
        return
    if kind == "optical_flow":
        both = nets.pictures(4, 128)
        yield (both[:2], both[2:]), {}
        return
    known = source.input_shape or (1, 3, 224, 224)
    giant = sum(p.numel() for p in source.module.parameters()) > GIANT
    for side in sorted({*SIDES, known[-1]}):
        count = 4 if side <= 128 else 1 if giant else 2
        yield (nets.pictures(images or count, side, known[1]),), {}


def _refusal(model: nn.Module, arguments: Arguments, device: torch.device | None) -> Exception | None:
    """What the model raises on such an input, in evaluation mode or in training mode."""
    args, kwargs = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.to(device), arguments)
    try:
        for training in (False, True):
            model.train(training)
            with torch.no_grad(), device or torch.device("cpu"):
                model(*args, **kwargs)
    except Exception as error:  # a model may refuse a size in any way it likes
        return error
    return None


def _detection(model: nn.Module) -> tuple[Arguments, Arguments]:
    """Two photographs; in training mode with a box, its label, mask and key points."""
    pictures = list(nets.pictures(2, 96).clamp(-2, 2))
    side = 96
    target = {
        "boxes": torch.tensor([[8.0, 8.0, 60.0, 72.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, side, side, dtype=torch.uint8),
        "keypoints": torch.tensor([[[20.0, 20.0, 1.0]] * 17]),
    }
    return ((pictures,), {}), ((pictures, [copy.deepcopy(target) for _ in pictures]), {})


# --- transformers: tiny configurations

_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
}
_VISION = {**_TEXT, "image_size": 32, "patch_size": 8}
# name -> (configuration class, model class, arguments of the configuration)
HF: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _TEXT),
    "vit": ("ViTConfig", "ViTForImageClassification", _VISION),
    "swin": ("SwinConfig", "SwinForImageClassification", {
        "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
    }),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", {
        "hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2,
    }),
    "resnet": ("ResNetConfig", "ResNetForImageClassification", {
        "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2], "layer_type": "basic",
    }),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 99}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**_TEXT, "num_key_value_heads": 1}),
    "t5": ("T5Config", "T5ForConditionalGeneration", {
        "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 99,
    }),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration", {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
        "num_mel_bins": 16, "max_source_positions": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForCTC", {
        **_TEXT, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
    }),
    "clip": ("CLIPConfig", "CLIPModel", {"text_config": {**_TEXT, "eos_token_id": 98}, "vision_config": _VISION}),
    "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation", {
        "hidden_sizes": [16, 32], "depths": [2, 2], "num_encoder_blocks": 2, "sr_ratios": [4, 2],
        "num_attention_heads": [1, 2], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2],
        "decoder_hidden_size": 32,
    }),
    "detr": ("DetrConfig", "DetrForObjectDetection", {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5,
        "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
    }),
}  # fmt: skip


def hf_model(name: str) -> nn.Module:
    """A tiny model of a type that transformers knows, from a configuration, with random weights."""
    import transformers

    configuration, kind, settings = HF[name]
    settings = copy.deepcopy(settings)
    if name == "detr":
        settings["backbone_config"] = transformers.ResNetConfig(**HF["resnet"][2], out_features=["stage2"])
    return getattr(transformers, kind)(getattr(transformers, configuration)(**settings))


def _hf(name: str) -> tuple[nn.Module, Arguments]:
    model = hf_model(name)
    # No pictures: tokens as they come in a text, and a wave.
    tokens = torch.tensor([[1, 17, 42, 5, 33, 60, 71, 98], [1, 8, 23, 42, 17, 90, 3, 98]])
    time = torch.arange(400) / 400
    wave = torch.stack([torch.sin(40 * time) + 0.3 * torch.cos(333 * time), torch.sin(90 * time * time)])
    inputs: Callable[[], dict[str, Any]] = {
        "t5": lambda: {"input_ids": tokens, "decoder_input_ids": tokens[:, :4]},
        "whisper": lambda: {
            "input_features": nets.pictures(2, 64, 1)[:, 0, :16],
            "decoder_input_ids": tokens[:, :4],
        },
        "wav2vec2": lambda: {"input_values": wave},
        "clip": lambda: {"input_ids": tokens, "pixel_values": nets.pictures(2, 32)},
        "detr": lambda: {"pixel_values": nets.pictures(2, 64)},
    }.get(
        name,
        lambda: (
            {"input_ids": tokens}
            if name in ("bert", "gpt2", "llama")
            else {"pixel_values": nets.pictures(4, 32)}
        ),
    )
    return model, ((), inputs())


# --- ultralytics, segmentation-models-pytorch


def _yolo(name: str) -> tuple[nn.Module, Arguments]:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"{name}.yaml", verbose=False), ((nets.pictures(2, 64),), {})


SMP = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
    "Segformer",
)  # fmt: skip


def _smp(name: str) -> tuple[nn.Module, Arguments]:
    import segmentation_models_pytorch

    make = getattr(segmentation_models_pytorch, name)
    # PAN halves the last map three times more.
    return make("resnet18", encoder_weights=None), ((nets.pictures(2, 256 if name == "PAN" else 64),), {})

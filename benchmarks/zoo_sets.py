"""The sets of benchmarks/zoo.py: which models, and which checks each is held to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo_cases import HF, SMP

from binarize.sources.libraries.known import known_names

__all__ = ["CHECKS", "ENDS", "NEEDS", "SETS", "Set"]

# In the order in which they are made: the plan is that of the conversion, and so on.
CHECKS = (
    "plan",
    "reported",
    "ends",
    "time",
    "kept",
    "convert",
    # Before anything runs the float model, which may change it (YOLO keeps its anchors).
    "original",
    "shapes",
    "alive",
    "saved",
    "gradients",
)
# First and last layers of models with several heads or inputs, read in their code by hand.
ENDS = Path(__file__).parent / "zoo_ends.json"
RANDOM_SEED, RANDOM_COUNT = 20261122, 150
# One small architecture of each of timm's 98 model files, in the files' order.
SMALL = """
    beit_base_patch16_224 halonet_h1 mobileone_s1 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
    convnext_zepto_rms cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny
    deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small
    efficientformer_l1 efficientformerv2_s0 efficientnet_lite0 efficientvim_m1 efficientvit_b0
    efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
    gemma4_vit_167m ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small
    iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s
    lowformer_b0 mambaout_femto coatnet_pico_rw_224 caformer_s18 gmlp_ti16_224 mobilenetv3_small_050
    mobilenetv5_300m_enc mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny
    nextvit_small nf_resnet26 pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002
    repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d resnet18 resnetv2_50 rexnet_100 selecsls42b
    legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs
    swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
    tnt_s_patch16_224 tresnet_m twins_svt_small vgg11_bn visformer_tiny vit_tiny_patch16_224
    vit_small_r26_s32_224 vit_relpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224
    volo_d1_224 ese_vovnet19b_slim_dw legacy_xception xception41 xcit_nano_12_p16_224
"""
# Packages that a set needs.
NEEDS = {"hf": ("transformers",), "yolo": ("ultralytics",), "smp": ("segmentation_models_pytorch",)}
YOLO = ("yolov5n", "yolov8n", "yolo11n")


@dataclass(frozen=True)
class Set:
    """Some models, the checks that each gets, and its limits."""

    names: Callable[[], list[str]]
    checks: tuple[str, ...] = CHECKS
    seconds: int = 900
    gigabytes: float = 12.0
    # Plan alone, without parameter data.
    meta: bool = False


def torchvision() -> list[str]:
    """All of torchvision, without the quantized ones."""
    return [f"torchvision:{name}" for name in known_names("torchvision")]


def timm_modules() -> list[str]:
    """A small architecture of each of timm's model files, and one with very many parts."""
    return [f"timm:{name}" for name in (*SMALL.split(), "hrnet_w64")]


def timm_all() -> list[str]:
    """Every architecture of timm."""
    return [f"timm:{name}" for name in known_names("timm")]


def timm_random() -> list[str]:
    """So many of timm's architectures, drawn at random."""
    return random.Random(RANDOM_SEED).sample(timm_all(), RANDOM_COUNT)


SETS = {
    "torchvision": Set(torchvision),
    "timm-modules": Set(timm_modules),
    "timm-plan": Set(timm_all, ("plan",), seconds=180, gigabytes=4.0, meta=True),
    "timm-random": Set(timm_random, ("plan", "convert", "shapes", "gradients"), seconds=3600, gigabytes=20.0),
    "hf": Set(lambda: [f"hf:{name}" for name in HF]),
    "yolo": Set(lambda: [f"yolo:{name}" for name in YOLO]),
    "smp": Set(lambda: [f"smp:{name}" for name in SMP]),
    "ends": Set(lambda: list(json.loads(ENDS.read_text("utf-8"))), ("plan", "ends")),
}

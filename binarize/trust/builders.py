"""Builders that a file may name: of torchvision or timm, with plain numbers for the arguments listed here."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping

__all__ = ["is_builder"]

_BUILDER = re.compile(r"(torchvision|timm):([A-Za-z0-9][A-Za-z0-9_.-]{0,99})(\(.{0,400}\))?")
# Networks of this package.
_OWN = ("binarize.demo.digits:DigitsVGG",)
# Arguments of builders that shape a network and do nothing else, and the greatest value of each: no address, no path, no
# name, nothing that loads weights.
_SIZES = {
    "num_classes": 1 << 20,
    "in_chans": 1 << 10,
    **dict.fromkeys(("patch_size", "window_size"), 1 << 7),
    **dict.fromkeys(("image_size", "img_size", "max_size", "min_size"), 1 << 12),
    **dict.fromkeys(("channels", "dims", "embed_dim", "embed_dims", "head_dim", "hidden_dim", "width"), 1 << 14),
    **dict.fromkeys(("depth", "depths", "layers", "num_heads", "output_stride", "reg_tokens"), 1 << 9),
    **dict.fromkeys(("base_width", "cardinality", "groups", "stem_width", "width_per_group"), 1 << 12),
    **dict.fromkeys(("bn_size", "growth_rate"), 1 << 10),
    **dict.fromkeys(("mlp_ratio", "mlp_ratios", "width_mult", "width_multiplier"), 64),
    **dict.fromkeys(("box_detections_per_img", "detections_per_img", "topk_candidates"), 1 << 14),
    "trainable_backbone_layers": 16,
}  # fmt: skip
# Shares and truth values: 1 at most.
_SHARES = (
    "attention_dropout", "attn_drop_rate", "drop_block_rate", "drop_path_rate", "drop_rate", "dropout", "patch_drop_rate",
    "pos_drop_rate", "proj_drop_rate", "stochastic_depth_prob",
    "box_nms_thresh", "box_score_thresh", "nms_thresh", "score_thresh",
    "aux_logits", "aux_loss", "avg_down", "class_token", "dynamic_img_pad", "dynamic_img_size", "init_weights",
    "memory_efficient", "pre_norm", "qk_norm", "qkv_bias", "replace_stride_with_dilation", "strict_img_size",
    "transform_input", "zero_init_last", "zero_init_residual",
)  # fmt: skip
_ARGUMENTS: Mapping[str, float] = {**_SIZES, **dict.fromkeys(_SHARES, 1)}
# A list of stages.
_MOST_NUMBERS = 16


def is_builder(text: object) -> bool:
    """Whether a file may name this: a builder of torchvision or timm, bare or with plain numbers from the list."""
    match = _BUILDER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return text in _OWN
    return match[3] is None or _are_plain(match[3])


def _are_plain(arguments: str) -> bool:
    """Whether "(num_classes=10, img_size=64)" holds nothing but keywords from the list with numbers in their ranges."""
    try:
        call = ast.parse(f"_{arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return False
        given = [(keyword.arg or "", ast.literal_eval(keyword.value)) for keyword in call.keywords]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return False
    return all(key in _ARGUMENTS and _is_plain(value, _ARGUMENTS[key]) for key, value in given)


def _is_plain(value: object, greatest: float) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= _MOST_NUMBERS and all(_is_number(one, greatest) for one in value)
    return _is_number(value, greatest)


def _is_number(value: object, greatest: float) -> bool:
    # bool is an int; a subclass of a number may be anything.
    return type(value) in (bool, int, float) and math.isfinite(value) and 0 <= value <= greatest  # type: ignore[arg-type, operator]

"""What a file may name, and what only the user may: the one boundary that every door asks.

What the user types, or passes from Python, in this very call may name anything. What stands in a file may name

    builders   torchvision:NAME and timm:NAME, with plain numbers for the arguments listed here
    teachers   source, none, or such a builder
    parts      classes of binarize.binarizers and of torch.nn, with numbers and words for arguments
    data       digits, fake, idx:PATH, torch/NAME, a folder

and nothing else, unless the user's word covers it: `--trust` on the command line, `trusting(...)` or `trust=` in Python.
Nothing here imports, opens or fetches what a name stands for.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from binarize.errors import UntrustedSourceError
from binarize.file_name import check_name
from binarize.shown_text import one_line

__all__ = [
    "Word",
    "are_part_arguments",
    "check_builder",
    "check_data",
    "check_teacher",
    "is_builder",
    "is_teacher",
    "is_trusted",
    "pickles_trusted",
    "quoted",
    "trusted_file",
    "trusted_words",
    "trusting",
    "trusting_pickles",
]

# A module by its name or itself, a Python file, or a folder or file of a model.
Word = str | os.PathLike[str] | ModuleType

_SAID: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_PICKLES: ContextVar[bool] = ContextVar("pickles", default=False)

_BUILDER = re.compile(r"(torchvision|timm):([A-Za-z0-9][A-Za-z0-9_.-]{0,99})(\(.{0,400}\))?")
# Networks of this package.
_OWN = ("binarize.demo_data.digits:DigitsVGG",)
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

# Arguments of parts that count channels, and how large these and other whole numbers may be.
_CHANNELS = ("channels", "num_channels", "num_features", "num_parameters", "normalized_shape")
_MOST_CHANNELS, _MOST_WHOLE = 1 << 17, 1 << 12

# Data that other packages open: by an address, or by a command that they run ("wds/pipe:...").
_DATA_PREFIXES = ("torch", "hfds", "hfids", "wds", "tfds")
_TORCH_DATA = re.compile(r"(?i:torch)/[A-Za-z0-9_-]+")

_ANYTHING_SAID = "a file may name torchvision:NAME or timm:NAME with plain numbers alone"
_SHOWN = 80


@contextmanager
def trusting(*words: Word) -> Iterator[None]:
    """Inside, files may name these too: modules ("mypackage.parts"), Python files ("parts.py"), folders of models.

    A module's name covers what lies below it. Say only what you would run yourself.

    Example:
        >>> with trusting("mypackage.parts"):                     # doctest: +SKIP
        ...     bnn = binarize.load("net-with-my-parts")
    """
    token = _SAID.set(_SAID.get() | {_normal(word) for word in words})
    try:
        yield
    finally:
        _SAID.reset(token)


@contextmanager
def trusting_pickles() -> Iterator[None]:
    """Inside, the files of models that the user names may run what they hold, and the one that a folder was made from."""
    token = _PICKLES.set(True)
    try:
        yield
    finally:
        _PICKLES.reset(token)


def pickles_trusted() -> bool:
    """Whether the user said so in this call: `--trust-pickle`."""
    return _PICKLES.get()


def trusted_words() -> tuple[str, ...]:
    """What the user's word covers now, to be said again in another process."""
    return tuple(sorted(_SAID.get()))


def _normal(word: Word) -> str:
    """A module's dotted name, or where a file or folder really lies."""
    if isinstance(word, ModuleType):
        return word.__name__
    text = os.fspath(word)
    check_name(text)
    is_module = re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) and not text.endswith(".py")
    return text if is_module and not os.path.isdir(text) else os.path.realpath(text)


def is_trusted(name: str) -> bool:
    """Whether the user's word covers a module's name, or a file or folder."""
    said = _SAID.get()
    if not name or "\0" in name:
        return False
    if os.path.realpath(name) in said:
        return True
    steps = name.split(".")
    return any(".".join(steps[:n]) in said for n in range(1, len(steps) + 1))


def trusted_file(module: str) -> Path | None:
    """The Python file of the user's word whose module goes by this name: "/home/me/parts.py" is `parts`."""
    paths = (Path(word) for word in sorted(_SAID.get()) if word.endswith(".py"))
    return next((path for path in paths if path.stem == module), None)


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


def check_builder(text: object, where: str, say: str = "say it yourself") -> str:
    """The builder that a file names: a bare one, or the user's own code where the user's word covers it.

    `where` is the file and the key; `say` how the user can name it in this call.

    Raises: UntrustedSourceError for anything else.
    """
    if isinstance(text, str) and (is_builder(text) or _is_trusted_code(text)):
        return text
    raise UntrustedSourceError(
        f"{where}: names {quoted(text)}; {_ANYTHING_SAID}\n  where you trust it, {say}"
    )


def _is_trusted_code(text: str) -> bool:
    """Whether a text reads as file.py:make or package.module:Net, of a file or module that the user named."""
    place, colon, _ = text.partition(":")
    return bool(colon) and place not in ("", "torchvision", "timm") and is_trusted(place)


def check_teacher(text: object, where: str, say: str = "name it yourself: --teacher (teacher=...)") -> str:
    """The teacher that a file names: source, none, a bare builder, or what the user's word covers.

    Raises: UntrustedSourceError for anything else.
    """
    if isinstance(text, str) and is_teacher(text):
        return text
    raise UntrustedSourceError(
        f"{where}: the teacher {quoted(text)}; a file may name source, none, torchvision:NAME or timm:NAME\n"
        f"  where you trust it, {say}"
    )


def is_teacher(text: str) -> bool:
    """Whether a file may name this teacher."""
    known = text in ("source", "none") or is_builder(text) or _is_trusted_code(text)
    return known or (bool(text) and "\0" not in text and os.path.realpath(text) in _SAID.get())


def check_data(text: object, where: str) -> str:
    """The data that a file names: made up, or read from this disk by code of ours and torchvision's.

    Raises: UntrustedSourceError for what other packages fetch or run.
    """
    if isinstance(text, str) and "://" not in text:
        prefix, slash, _ = text.partition("/")
        through_others = bool(slash) and prefix.lower() in _DATA_PREFIXES
        if not through_others or _TORCH_DATA.fullmatch(text) or os.path.isdir(text):
            return text
    raise UntrustedSourceError(
        f"{where}: the data {quoted(text)}; a file may name digits, fake, idx:PATH, torch/NAME or a folder\n"
        "  where you trust it, name it yourself: --data, or --set data=... of a study (data=...)"
    )


def are_part_arguments(arguments: Mapping[str, object]) -> bool:
    """Whether these are numbers of a sensible size, truth values, words or nothing: what a part of ours is made with."""
    return all(_is_part_argument(key, value) for key, value in arguments.items())


def _is_part_argument(key: str, value: object) -> bool:
    if key in ("device", "dtype"):
        return False
    if type(value) is int:
        return abs(value) <= (_MOST_CHANNELS if key in _CHANNELS else _MOST_WHOLE)
    if type(value) is float:
        return math.isfinite(value)
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,40}", value)
    return value is None or type(value) is bool or bool(word)


def quoted(value: object) -> str:
    """What a message says of a value that a file holds: in quotation marks, printable, and not longer than a line."""
    text = value if isinstance(value, str) else type(value).__name__
    return f'"{one_line(text[:_SHOWN])}{"..." * (len(text) > _SHOWN)}"'

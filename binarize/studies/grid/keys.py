"""What a grid file may hold: the settings of a trial, and how they become many.

schema: 1
name: gains
settings: {model: "networks.py:vgg6", data: "idx:fashion", images: 20000, epochs: 5, scheme: bireal}
float: {epochs: 15, optimizer: adamw}          # how the float network is trained that the others start from; or none
axes:
  train: [float, binary, distilled]            # a list: values of that setting
  length: {short: {epochs: 5}, long: {epochs: 30, lr: 1.0e-3}}      # a mapping: named changes of settings
steps: {WD: {weight_decay: 1.0e-4}, LS: {label_smoothing: 0.1}}
chains: {gain: [none, +WD, +LS, -WD]}          # an axis too: each entry adds steps to the one before, or takes them away
seeds: [0, 1, 2]
machine: {cpus: 1, gpus: 0}                    # of each trial
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from binarize.rules.schema import RECIPE, SHORTCUT, Keys, Table, check, mapping
from binarize.rules.values import COUNT, FLAG, ID, INTEGER, NUMBER, SCHEMA_VERSION, TEXT, several, words
from binarize.rules.yaml.document import Document

__all__ = [
    "DEFAULTS",
    "FLOAT_KEYS",
    "RECIPE_KEYS",
    "SETTINGS",
    "SOURCE_KEYS",
    "check_grid",
    "check_settings",
]

# YAML reads 32 as a number.
_PRECISION: Any = Annotated[
    words("32", "bf16", "16"), BeforeValidator(lambda value: str(value) if type(value) is int else value)
]

# What the float network is, and the images: the same for all that start from it.
_SOURCE: Table = {
    "model": (TEXT, "the float network: torchvision:vgg11, file.py:make, vgg11.pt"),
    "arch": (TEXT, "the architecture of a file of weights"),
    "weights": (TEXT, "tag of published weights to download"),
    "num_classes": (COUNT, "classes of a new head"),
    "input_shape": (list[COUNT], "channels, height and width of the images"),
    "mean": (several(NUMBER), "of pixels in 0..1"),
    "std": (several(NUMBER), "of pixels in 0..1"),
    "data": (TEXT, "digits, fake, idx:PATH, torch/cifar10, a folder of class folders"),
    "validation": (NUMBER, "share of the training images that is held out, to choose by"),
    "test": (FLAG, "whether the trained network sees the test images, once"),
    "images": (COUNT, "so many training images alone"),
    "precision": (_PRECISION, "of the training: 32, bf16 or 16"),
    "channels_last": (FLAG, "memory layout of images and weights"),
}
_OF_RECIPE: Table = {key: entry for key, entry in RECIPE.items() if key not in ("data", "teacher")}
_TRAINING: Table = {
    **_OF_RECIPE,
    "teacher": (several(TEXT), "source (the float network), none, timm:NAME, a folder or a file"),
    "rand_augment": (TEXT, "a policy of timm that is added to augment: rand-m9-mstd0.5; or none"),
    "dropout": (NUMBER, "probability, before the classifier"),
    "prune": (NUMBER, "share of the channels that is cut away before training"),
}
_BINARY: Table = {
    "train": (
        words("float", "binary", "distilled"),
        "the float network, a binary one by labels alone, or with a teacher; else by the recipe",
    ),
    "scheme": (TEXT, "a shipped scheme or a rule file"),
    "shortcuts": (SHORTCUT, "where shortcuts are added"),
    "keep_first": (INTEGER, "so many first layers stay float"),
    "keep_last": (INTEGER, "so many last layers stay float"),
    "overrides": (several(TEXT), "id.field=value of rules"),
    "start": (words("float", "scratch"), "from the weights of the float network, or from random ones"),
    "recipe": (TEXT, "scheme, paper, or a YAML file"),
    "two_stage": (FLAG, "binary inputs first, then weights too"),
    "stage": (words("none", "full", "layerwise", "progressive"), "how it becomes binary during training"),
}
SETTINGS: Table = {**_SOURCE, **_TRAINING, **_BINARY}
SOURCE_KEYS = tuple(_SOURCE)
# What a float network has.
FLOAT_KEYS = (*_SOURCE, *_TRAINING)
RECIPE_KEYS = tuple(_OF_RECIPE)

# A setting with its default says nothing.
DEFAULTS: Mapping[str, Any] = {
    "channels_last": False,
    "dropout": 0,
    "keep_first": 1,
    "keep_last": 1,
    "precision": "32",
    "prune": 0,
    "rand_augment": "none",
    "recipe": "scheme",
    "stage": "none",
    "start": "float",
    "test": True,
    "two_stage": False,
    "validation": 0.1,
    "weights": "none",
}


class _Setting(Keys):
    what = "setting"


_Settings: Any = mapping("Settings", SETTINGS, base=_Setting)
# Whatever starts from the float network is pruned by itself.
_Float: Any = mapping(
    "Float", {key: entry for key, entry in {**_SOURCE, **_TRAINING}.items() if key != "prune"}, base=_Setting
)
_Machine: Any = mapping(
    "Machine",
    {
        "cpus": (NUMBER, "processors of each trial, which are its threads too"),
        "gpus": (NUMBER, "of each trial; a fraction shares one"),
        "device": (TEXT, "auto, cpu, cuda or mps"),
        "workers": (INTEGER, "processes that read images"),
    },
)


def _grid(data: Mapping[str, Any]) -> type[Keys]:
    """What this grid may hold: an axis that is a mapping has a free name, and `float` may be the word none."""
    axes = data.get("axes")
    named = {
        name: (dict[str, _Settings], "")
        for name, value in (axes.items() if isinstance(axes, Mapping) else ())
        if isinstance(value, Mapping)
    }
    plain = {key: (list[kind], says) for key, (kind, says) in SETTINGS.items()}  # type: ignore[valid-type]
    no_float = isinstance(data.get("float"), str)
    table: Table = {
        "schema": (SCHEMA_VERSION, "version of this format: 1"),
        "name": (ID, "of the study and its folder"),
        "paper": (TEXT, "where the question comes from"),
        "description": (TEXT, "what is asked"),
        "settings": (_Settings, "of every trial"),
        "float": (words("none") if no_float else _Float, "changes for the float network; none: it is not trained"),
        "axes": (mapping("Axes", {**plain, **named}, base=_Setting), "what is varied"),
        "steps": (dict[str, _Settings], "named changes that chains are made of"),
        "chains": (dict[str, list[TEXT]], "axes of cumulative steps"),
        "seeds": (list[INTEGER], "of everything that is random"),
        "machine": (_Machine, "what each trial runs on"),
    }  # fmt: skip
    return mapping("Grid", table, required=("schema",))


def check_grid(document: Document) -> dict[str, Any]:
    """The canonical data of a grid file. Raises RuleError that shows every fault in its place."""
    return check(_grid(document.data if isinstance(document.data, Mapping) else {}), document)


def check_settings(document: Document) -> dict[str, Any]:
    """The canonical data of settings alone. Raises RuleError."""
    return check(_Settings, document)

"""What mappings in a rule file may hold: the schema, the faults found by it, and the JSON Schema for editors.

Checked data is in one canonical form: a list wherever one or several are allowed, and only the keys that were
given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails

from binarize.analysis.layer import InputSign, Kind, Skip
from binarize.rules.values import (
    ACTIVATION,
    CLIP,
    COMPARISON,
    COUNT,
    FLAG,
    GROUPS,
    ID,
    INTEGER,
    NONLINEARITY,
    NUMBER,
    PAD_VALUE,
    PART,
    PATTERN,
    SCHEDULE_ENTRY,
    SCHEMA_VERSION,
    SIZE,
    TEACHER,
    TEXT,
    USE,
    fault,
    found,
    several,
    unknown_key,
    words,
)
from binarize.rules.yaml.document import Document, Fault, Path
from binarize.schemes.recipe import CHOICES
from binarize.schemes.scheme import Downsample, Norm, Shortcut

__all__ = [
    "RECIPE",
    "RULE_KEYS",
    "SHORTCUT",
    "Keys",
    "Table",
    "check",
    "check_file",
    "check_recipe",
    "check_rule",
    "json_schema",
    "mapping",
]

# A message with more faults than this helps nobody.
_MOST_FAULTS = 5

SHORTCUT = words(*get_args(Shortcut))
_NORM = words(*get_args(Norm))
_DOWNSAMPLE = words(*get_args(Downsample))
_SAYS_DOWNSAMPLE = "1x1 convolutions on a block's shortcut: strided as they are, behind a pooling, or binary"


class Keys(BaseModel):
    """A mapping that knows its keys: an unknown one is a fault with the nearest known one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    # What messages call a key.
    what: ClassVar[str] = "key"

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: object) -> Any:
        known = [info.alias or name for name, info in cls.model_fields.items()]
        for key in data if isinstance(data, Mapping) else ():
            if key not in known:
                raise unknown_key(cls.what, key, known)
        return data


class _Selectors(Keys):
    what = "selector"

    @model_validator(mode="before")
    @classmethod
    def _selects(cls, data: object) -> Any:
        if isinstance(data, Mapping) and not data:
            raise fault('match is empty; name: "**" matches every layer')
        if isinstance(data, Mapping) and "subclasses" in data and "type" not in data:
            raise fault("subclasses widens type, and there is no type here", ("subclasses",), "key")
        return data


class _RuleKeys(Keys):
    @model_validator(mode="before")
    @classmethod
    def _keeps_or_changes(cls, data: object) -> Any:
        if isinstance(data, Mapping) and data.get("use") == "keep":
            for key in ("with", "shortcut", "norm", "downsample", "activation"):
                if key in data:
                    raise fault(f'a rule that keeps its layers has no "{key}"', (key,), "key")
        return data


# key -> (what values it takes, what an editor says about it)
Table = Mapping[str, tuple[Any, str]]


def mapping(name: str, table: Table, base: type[Keys] = Keys, required: tuple[str, ...] = ()) -> type[Keys]:
    """A pydantic model from a table. Fields have the keys as aliases: some keys are words of Python."""
    fields: dict[str, Any] = {
        f"key_{key}": (kind, Field(... if key in required else None, alias=key, description=says))
        for key, (kind, says) in table.items()
    }
    return create_model(name, __base__=base, **fields)


_Match = mapping(
    "Match",
    {
        "name": (
            several(PATTERN),
            "glob over the dotted path (* in a segment, ** across), or re: and a regex",
        ),
        "type": (several(PATTERN), "exact class name"),
        "subclasses": (FLAG, "type also covers subclasses"),
        "kind": (several(words(*get_args(Kind))), "family of layers, subclasses included"),
        "position": (
            several(words("first", "last", synonyms={"stem": "first", "head": "last"})),
            "the layer that sees the input, or the one that gives the output",
        ),
        "kernel": (several(SIZE), "size in every dimension: 3, '>=3', or '1x7'"),
        "stride": (several(SIZE), "stride in every dimension"),
        "dilation": (several(SIZE), "dilation in every dimension"),
        "groups": (several(GROUPS), "depthwise, a number or a comparison"),
        "in": (several(COMPARISON), "input channels"),
        "out": (several(COMPARISON), "output channels"),
        "params": (several(COMPARISON), "weights and biases"),
        "calls": (several(COMPARISON), "how often the forward pass calls it"),
        "has_skip": (FLAG, "whether an add or a concatenation leads around it"),
        "skip": (several(words(*get_args(Skip))), "what leads around it"),
        "inside": (several(PATTERN), "class name of a module around it"),
        "before": (several(PATTERN), "class name of what reads its output"),
        "after": (several(PATTERN), "class name of what feeds it"),
        "downsample": (FLAG, "whether it is the projection on a shortcut"),
        "gate": (FLAG, "whether its output only multiplies another tensor"),
        "input_sign": (several(words(*get_args(InputSign))), "which values its input can take"),
        "first": (COUNT, "among the first N layers, in the order they run"),
        "last": (COUNT, "among the last N layers, in the order they run"),
        "not": (several("Match"), "none of these holds"),
        "any": (several("Match"), "one of these holds"),
    },
    base=_Selectors,
)
_Match.model_rebuild(_types_namespace={"Match": _Match})

# Of a recipe, in a scheme or alone.
RECIPE: Table = {
    "data": (TEXT, "the data set it was used on"),
    "optimizer": (TEXT, "adam, adamw, sgd, ..."),
    "lr": (NUMBER, "learning rate at its highest"),
    "momentum": (NUMBER, "of sgd"),
    "betas": (several(NUMBER), "of adam"),
    "binary_optimizer": (words(*CHOICES["binary_optimizer"]), "the optimizer of binary weights alone"),
    "binary_lr": (NUMBER, "its rate at the highest: gamma of bop, the learning rate of bayesbinn"),
    "flip_threshold": (NUMBER, "of bop: how large a mean gradient turns a weight round"),
    "weight_decay": (NUMBER, "decay of the parameters"),
    "weight_decay_on": (
        words(*CHOICES["weight_decay_on"]),
        "all parameters, the weights of layers, or those of binary layers alone",
    ),
    "latent_rates": (
        words(*CHOICES["latent_rates"]),
        "rates of latent weights: plain, or scaled by their layer's size",
    ),
    "latent_start": (
        words(*CHOICES["latent_start"]),
        "latent weights as converted, or drawn between -1 and 1",
    ),
    "schedule": (words(*CHOICES["schedule"]), "how the rate falls"),
    "milestones": (several(INTEGER), "epochs at which a step schedule falls"),
    "gamma": (NUMBER, "factor of a step or of an epoch"),
    "warmup": (NUMBER, "share of the training in which the rate rises"),
    "epochs": (COUNT, "passes over the data"),
    "batch_size": (COUNT, "images a step"),
    "loss": (words(*CHOICES["loss"]), "loss on the labels"),
    "label_smoothing": (NUMBER, "share of the label given to all classes"),
    "teacher": (TEACHER, "source (the float model), none, or a model's name"),
    "teacher_weight": (NUMBER, "share of the loss that the teacher has"),
    "temperature": (NUMBER, "of the teacher's softmax"),
    "match": (words(*CHOICES["match"]), "what is compared with the teacher at block ends"),
    "match_weight": (NUMBER, "factor of that in the loss"),
    "regularizer": (words(*CHOICES["regularizer"]), "term on latent weights"),
    "regularizer_weight": (NUMBER, "factor of that in the loss"),
    "regularizer_growth": (
        words(*CHOICES["regularizer_growth"]),
        "whether that factor grows from 0 during training",
    ),
    "augment": (TEXT, "what is done to images: usual, none, shift+flip, crop+flip+rand-m9"),
    "mixup": (NUMBER, "strength of mixup"),
    "cutmix": (NUMBER, "strength of cutmix"),
    "clip_gradients": (NUMBER, "largest norm of the gradients"),
    "accumulate": (COUNT, "batches a step"),
    "ema": (NUMBER, "decay of the moving average of weights that the model ends with"),
    "keep_epoch": (words(*CHOICES["keep_epoch"]), "the epoch whose weights the model ends with"),
    "norm_images": (INTEGER, "training images from which BatchNorm's statistics are taken anew at the end"),
}
_Stage: Any = mapping(
    "Stage",
    {
        "binary": (several(words("weight", "input")), "what is binary in this stage"),
        "layers": (NUMBER, "share of the layers, from the first, in which it is"),
        "freeze": (words("full", "layerwise", "progressive"), "how it becomes binary meanwhile"),
        "order": (words("all", "forward", "backward", "last_first"), "which layers freeze first"),
        "share": (NUMBER, "of a layer's entries that freeze at a time"),
        "select": (words("random", "confidence"), "which entries freeze first"),
        "refresh": (NUMBER, "share of what is frozen that thaws at each step while other entries freeze"),
        "frozen_gradient": (words("none", "ste"), "whether what is frozen is still trained"),
        "activations": (
            words("hard", "soft"),
            "signs with soft gradients from the first step, or frozen with the weights",
        ),
        **RECIPE,
    },
)
_Recipe: Any = mapping(
    "Recipe", {**RECIPE, "stages": (list[_Stage], "changes to the recipe, one stage after another")}
)

_Scheme: Any = mapping(
    "Scheme",
    {
        "paper": (TEXT, "where the method was published"),
        "description": (TEXT, "one sentence"),
        "weight": (PART, "weight binarizer"),
        "input": (PART, "input binarizer; none leaves the input float"),
        "scale": (PART, "learned factor per output channel"),
        "nonlinearity": (
            NONLINEARITY,
            "what stands in place of the ReLU before a sign; position: after_add or before_add",
        ),
        "norm": (_NORM, "where BatchNorm is inserted"),
        "shortcut": (SHORTCUT, "where shortcuts are added"),
        "projection": (
            words("none", "conv1x1"),
            "shortcuts between channels that neither repeat nor average",
        ),
        "shortcut_scale": (
            words("none", "channel"),
            "learned factor per channel on each shortcut around one layer",
        ),
        "downsample": (_DOWNSAMPLE, _SAYS_DOWNSAMPLE),
        "first_activation": (
            words("replace", "drop", "keep"),
            "the ReLU behind the first, float, layer: it gives way like the others, or to nothing, or stays",
        ),
        "last_activation": (
            words("keep", "replace"),
            "the ReLU behind the last binary layer, which float layers alone read: it stays, or gives way too",
        ),
        "head_norm": (
            words("never", "missing"),
            "whether BatchNorm is inserted between pooled features and the linear layer that gives the output",
        ),
        "pad_value": (PAD_VALUE, "what the binary input is padded with: 0, 1 or -1"),
        "clip": (CLIP, "range of the latent weights"),
        "schedule": (list[SCHEDULE_ENTRY], "what changes during training, and how"),
        "training": (_Recipe, "the recipe measured best here"),
        "training_paper": (_Recipe, "the authors' own recipe"),
    },
)

_RULE: Table = {
    "id": (ID, "to address the rule by --set id.field=value"),
    "match": (_Match, "which layers: all selectors must hold, a list is an or"),
    "use": (USE, "keep, a scheme, or weights-only:scheme"),
    "with": (_Scheme, "changes to the scheme for these layers"),
    "shortcut": (SHORTCUT, "where shortcuts are added"),
    "norm": (_NORM, "where BatchNorm is inserted"),
    "downsample": (_DOWNSAMPLE, _SAYS_DOWNSAMPLE),
    "activation": (ACTIVATION, "auto, keep, none, hardtanh, prelu, rprelu, maxout or a part"),
    "why": (TEXT, "shown in the report"),
    "optional": (FLAG, "no warning where it matches no layer"),
}
RULE_KEYS = tuple(_RULE)
_Rule: Any = mapping("Rule", _RULE, base=_RuleKeys, required=("match", "use"))

_Defaults: Any = mapping("Defaults", {"input_shape": (list[COUNT], "shape of an example input")})

_File = mapping(
    "RuleFile",
    {
        "schema": (SCHEMA_VERSION, "version of this format: 1"),
        "name": (ID, "name of the rule set, and of the scheme it defines"),
        "paper": (TEXT, "where the method was published"),
        "description": (TEXT, "one sentence"),
        "extends": (several(TEXT), "rule sets or files whose rules come before these"),
        "defaults": (_Defaults, "values for options that are not given"),
        "scheme": (_Scheme, "what use: NAME means; with extends, changes to the extended scheme"),
        "schemes": (dict[str, _Scheme], "further schemes by name"),
        "rules": (list[_Rule], "the last rule that matches a layer decides, and replaces the whole decision"),
    },
    required=("schema",),
)


def check_file(document: Document) -> dict[str, Any]:
    """The canonical data of a rule file. Raises RuleError that shows every fault in its place."""
    return check(_File, document)


def check_rule(document: Document) -> dict[str, Any]:
    """The canonical data of one rule. Raises RuleError."""
    return check(_Rule, document)


def check_recipe(document: Document) -> dict[str, Any]:
    """The canonical data of a recipe alone, as `training:` has it. Raises RuleError."""
    return check(_Recipe, document)


def check(model: type[Keys], document: Document) -> dict[str, Any]:
    """The canonical data of a document. Raises RuleError that shows the first faults in their places."""
    try:
        checked = model.model_validate(document.data)
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors(include_url=False)]
        raise document.error(*faults[:_MOST_FAULTS]) from None
    return checked.model_dump(by_alias=True, exclude_unset=True)


# What pydantic says about the shape of data, in our words.
_EXPECTED = {
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _fault(detail: ErrorDetails) -> Fault:
    path, context, value = detail["loc"], detail.get("ctx", {}), detail["input"]
    if detail["type"] == "missing":
        return Fault(f'missing key "{path[-1]}"', path[:-1])
    if detail["type"] == "value_error":
        return Fault(f"{_named(path)}: {context['error']}", path)
    if detail["type"] in _EXPECTED:
        what = "this" if path and isinstance(path[-1], int) else _named(path)
        return Fault(f"{what} is {found(value)}; expected {_EXPECTED[detail['type']]}", path)
    path = (*path, *context["at"])
    before = f"{_named(path)} " if detail["type"] == "unexpected" else ""
    return Fault(before + context["text"], path, at_key=detail["type"] == "key")


def _named(path: Path) -> str:
    """What a message calls the value at a path: the nearest key, or the whole."""
    return next((key for key in reversed(path) if isinstance(key, str)), "this")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a rule file, for editors."""
    schema = _File.model_json_schema(ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A rule file of binarize"}
    return {**head, **_without_noise(schema)}


def _without_noise(schema: object, in_properties: bool = False) -> Any:
    """The schema without the titles and defaults that pydantic derives from the names of fields."""
    if isinstance(schema, list):
        return [_without_noise(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_noise(item, in_properties=key == "properties")
        for key, item in schema.items()
        if in_properties or key not in ("title", "default")
    }

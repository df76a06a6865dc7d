"""The one call: float model -> plan -> binary model, checked and reported.

    convert(model, "adabin", add_shortcuts=True, example_input=images)

is `plan(...)` followed by `.apply()`. The model given is never touched: not its weights, buffers, flags or hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.analysis.walk import analysed
from binarize.conversion.planned import PlannedConversion
from binarize.inputs.arguments import Arguments, Images, arguments_of, parse_arguments
from binarize.modules.modes import undisturbed
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import RuleSet
from binarize.schemes.scheme import shortcut_mode
from binarize.sources import Source, load
from binarize.trust import Word, trusting

__all__ = ["convert", "plan"]


def convert(
    model: nn.Module | str,
    scheme: str | None = None,
    *,
    rules: object = None,
    add_shortcuts: bool | None = None,
    shortcuts: str | None = None,
    keep: Sequence[str] = (),
    binarize: Sequence[str] = (),
    overrides: Sequence[str] = (),
    keep_first: int = 1,
    keep_last: int = 1,
    example_input: object = None,
    input_shape: Sequence[int] | Sequence[Sequence[int] | str] | None = None,
    calibrate: object = None,
    inplace: bool = False,
    strict: bool = False,
    seed: int = 0,
    trust: Sequence[Word] = (),
    **source: object,
) -> nn.Module:
    """A binary model: an ordinary trainable module of the same class, with the float weights under the same names.

    `model`          a module, or anything `binarize.load_source` names ("torchvision:vgg11", "vgg11.pt")
    `scheme`         a shipped rule set ("adabin" where neither this nor `rules` is given)
    `rules`          a name, path, dict, list of rules, or a function layer -> decision; see `load_rule_set`
    `add_shortcuts`  True: where the graph has none ("missing"); False: none ("never")
    `shortcuts`      "never", "missing", "every" or "residual": for every binarized layer, whatever its scheme says
    `example_input`  a tensor, a tuple of arguments, a dict of keyword arguments, or both: ((x,), {"mask": mask}).
                     Real images calibrate the thresholds and BatchNorm statistics as well; noise only tells shapes
    `input_shape`    the shape of made-up noise instead, or one for each input, those by name with "mask=1,16:int64"
    `calibrate`      batches of images for that instead; False: not at all
    `inplace`        rewrite the model given instead of a copy
    `strict`         raise StrictError where there is anything to warn of
    `trust`          modules of your own that a rule file may name for parts; a dict of rules needs no such word
    `source`         arch, weights, num_classes, trust_pickle, device for a named source

    The result carries `.report`. Raises: the errors of binarize.errors.
    """
    planned = plan(
        model,
        scheme,
        rules=rules,
        add_shortcuts=add_shortcuts,
        shortcuts=shortcuts,
        keep=keep,
        binarize=binarize,
        overrides=overrides,
        keep_first=keep_first,
        keep_last=keep_last,
        example_input=example_input,
        input_shape=input_shape,
        seed=seed,
        trust=trust,
        **source,
    )
    return planned.apply(calibrate=calibrate, inplace=inplace, strict=strict)


def plan(
    model: nn.Module | str | Source,
    scheme: str | None = None,
    *,
    rules: Any = None,
    add_shortcuts: bool | None = None,
    shortcuts: str | None = None,
    keep: Sequence[str] = (),
    binarize: Sequence[str] = (),
    overrides: Sequence[str] = (),
    keep_first: int = 1,
    keep_last: int = 1,
    example_input: Any = None,
    input_shape: Sequence[int] | Sequence[Sequence[int] | str] | None = None,
    seed: int = 0,
    trust: Sequence[Word] = (),
    **source: Any,
) -> PlannedConversion:
    """What `convert` with the same arguments would do and why. The model's weights are not read.

    Example:
        >>> planned = binarize.plan(model, "adabin")
        >>> planned["features.3"].keep("sensitive")
        >>> bnn = planned.apply()
    """
    if isinstance(rules, RuleSet):
        rule_set = rules
    else:
        with trusting(*trust):
            rule_set = load_rule_set(
                scheme,
                rules,
                keep=keep,
                binarize=binarize,
                overrides=overrides,
                shortcuts=shortcut_mode(add_shortcuts, shortcuts),
                keep_first=keep_first,
                keep_last=keep_last,
            )
    shape = input_shape if input_shape is not None else rule_set.defaults.get("input_shape")
    given = None if example_input is None else arguments_of(example_input)
    loaded = model if isinstance(model, Source) else load(model, input_shape=_shape(shape, given), **source)
    images: Images | None = given
    if images is None and loaded.example_input is not None:
        images = (loaded.example_input, dict(loaded.example_keywords))
    with undisturbed(loaded.module):
        analysis = analysed(loaded, images, asked_for=given is not None or loaded.input_shape_from == "given")
    return PlannedConversion(
        loaded, rule_set, analysis, images or ((), {}), given is not None, seed, trust=tuple(trust)
    )


def _shape(
    shape: Sequence[int] | Sequence[Sequence[int] | str] | None, given: Images | None
) -> tuple[int, ...] | Arguments | None:
    if shape is not None and any(isinstance(item, Sequence) for item in shape):
        texts = (item if isinstance(item, str) else ",".join(map(str, item)) for item in shape)  # type: ignore[arg-type]
        return parse_arguments(list(texts))
    if shape is not None:
        return tuple(int(size) for size in shape)  # type: ignore[arg-type]
    # With an example at hand nobody needs to guess; the first tensor stands for it.
    for value in pytree.tree_leaves((given[0], dict(given[1]))) if given is not None else ():
        if isinstance(value, Tensor) and value.dim():
            return tuple(value.shape)
    return None

"""binarize: turn any float PyTorch model into a binary neural network one can train, trust and ship.

Example:
    >>> import binarize, torchvision
    >>> bnn = binarize.convert(torchvision.models.vgg11(), "adabin", add_shortcuts=True)   # doctest: +SKIP
    >>> binarize.save(bnn, "vgg11-adabin")                                                 # doctest: +SKIP

Every public name is imported when it is first used, so that `import binarize` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from binarize.former_names import answer_for_former_names
from binarize.version import __version__

if TYPE_CHECKING:
    from binarize import errors
    from binarize.bernoulli.hardening import harden as harden
    from binarize.checkpoint.load import load as load
    from binarize.checkpoint.save import save as save
    from binarize.conversion.convert import convert as convert
    from binarize.conversion.convert import plan as plan
    from binarize.conversion.float_names import load_float_state_dict as load_float_state_dict
    from binarize.errors import BinarizeError as BinarizeError
    from binarize.exporters.export import export as export
    from binarize.layers.classes import use_packed_forward as use_packed_forward
    from binarize.packed.packing import freeze as freeze
    from binarize.packed.packing import fuse as fuse
    from binarize.packed.packing import load_packed as load_packed
    from binarize.packed.packing import pack as pack
    from binarize.planning.plan import Decision as Decision
    from binarize.planning.plan import Plan as Plan
    from binarize.report.report import Report as Report
    from binarize.rules.files import builtin_rule_sets as builtin_rule_sets
    from binarize.rules.load import load_rule_set as load_rule_set
    from binarize.rules.rule_set import Rule as Rule
    from binarize.rules.rule_set import RuleSet as RuleSet
    from binarize.schemes.part import Part as Part
    from binarize.schemes.scheme import Scheme as Scheme
    from binarize.sources import load as load_source
    from binarize.studies.study import study as study
    from binarize.training.calibrate import calibrate as calibrate
    from binarize.training.evaluate import evaluate as evaluate
    from binarize.training.finetune import finetune as finetune
    from binarize.trust import trusting as trusting

# Public name -> where it is made; its own name there, unless another is given.
_HOME = {
    "BinarizeError": "binarize.errors",
    "Decision": "binarize.planning.plan",
    "Part": "binarize.schemes.part",
    "Plan": "binarize.planning.plan",
    "Report": "binarize.report.report",
    "Rule": "binarize.rules.rule_set",
    "RuleSet": "binarize.rules.rule_set",
    "Scheme": "binarize.schemes.scheme",
    "builtin_rule_sets": "binarize.rules.files",
    "calibrate": "binarize.training.calibrate",
    "convert": "binarize.conversion.convert",
    "evaluate": "binarize.training.evaluate",
    "export": "binarize.exporters.export",
    "finetune": "binarize.training.finetune",
    "freeze": "binarize.packed.packing",
    "fuse": "binarize.packed.packing",
    "harden": "binarize.bernoulli.hardening",
    "load": "binarize.checkpoint.load",
    "load_float_state_dict": "binarize.conversion.float_names",
    "load_packed": "binarize.packed.packing",
    "load_rule_set": "binarize.rules.load",
    "load_source": "binarize.sources:load",
    "pack": "binarize.packed.packing",
    "plan": "binarize.conversion.convert",
    "save": "binarize.checkpoint.save",
    "study": "binarize.studies.study",
    "trusting": "binarize.trust",
    "use_packed_forward": "binarize.layers.classes",
}

__all__ = [
    "BinarizeError",
    "Decision",
    "Part",
    "Plan",
    "Report",
    "Rule",
    "RuleSet",
    "Scheme",
    "__version__",
    "builtin_rule_sets",
    "calibrate",
    "convert",
    "errors",
    "evaluate",
    "export",
    "finetune",
    "freeze",
    "fuse",
    "harden",
    "load",
    "load_float_state_dict",
    "load_packed",
    "load_rule_set",
    "load_source",
    "pack",
    "plan",
    "save",
    "study",
    "trusting",
    "use_packed_forward",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("binarize.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'binarize' has no attribute {name!r}")
    module, _, given = _HOME[name].partition(":")
    value = getattr(importlib.import_module(module), given or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


answer_for_former_names()

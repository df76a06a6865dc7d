"""Refuses what is no plain float model: already binary, already quantized, without shapes, not finite."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.modules.child_names import check_names

__all__ = ["bare", "check_float", "check_whole", "class_path", "quantizer_of", "unwrap"]

QUANTIZERS = (
    "aimet_torch",
    "auto_gptq",
    "awq",
    "bitsandbytes",
    "brevitas",
    "compressed_tensors",
    "gptqmodel",
    "hqq",
    "modelopt",
    "nncf",
    "optimum.quanto",
    "pytorch_quantization",
    "torch.ao.nn.quantized",
    "torch.ao.nn.qat",
    "torch.ao.nn.intrinsic",
    "torch.ao.quantization",
    "torch.nn.quantized",
    "torch.nn.qat",
    "torch.nn.intrinsic",
    "torch.quantization",
    "torchao",
    "torchvision.models.quantization",
)
BINARIZERS = ("bitorch", "bnn")
# Of these libraries, and float all the same: places for quantizers to be, and additions.
_FLOAT = frozenset({"QuantStub", "DeQuantStub", "QuantWrapper", "FloatFunctional", "FXFloatFunctional"})
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
}

# Buffers that a norm divides by or subtracts.
_STATISTICS = ("running_mean", "running_var")

# What every module holds: parameters that are tensors, buffers that are tensors, modules that are modules.
TABLES: dict[str, type] = {"_parameters": Tensor, "_buffers": Tensor, "_modules": nn.Module}
# Where installed packages lie.
_INSTALLED = Path(torch.__file__).parents[1]
# What classes of torch, torchvision and timm raise where attributes are missing or odd.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def quantizer_of(name: str) -> str | None:
    """The quantization library that a dotted name belongs to, if any."""
    return next((library for library in QUANTIZERS if f"{name}.".startswith(f"{library}.")), None)


def unwrap(module: nn.Module, spec: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The model inside DataParallel, torch.compile and the like, and a note of each wrapper taken off."""
    notes: tuple[str, ...] = ()
    while (attribute := WRAPPERS.get(class_path(module))) is not None:
        notes = (*notes, f"took the model out of its {type(module).__name__}")
        inside = getattr(module, attribute, None)
        if not isinstance(inside, nn.Module):
            raise SourceError(f"{spec}: damaged: a {type(module).__name__} without a model in it")
        module = inside
    return module, notes


def bare(module: nn.Module) -> nn.Module:
    """The model inside DataParallel, torch.compile and the like; any other model as it is."""
    return unwrap(module, class_path(module))[0]


def check_whole(module: nn.Module, spec: str) -> None:
    """Raises SourceError where a module from a file lacks what its constructor would have given it.

    Unpickling fills modules with whatever attributes the file has. Some classes do something of their own when they are
    moved or change their mode, with attributes that nobody else knows: whether they can is tried out.
    """
    usual = vars(nn.Module())
    waiting, seen = [module], {id(module)}
    while waiting:
        part = waiting.pop()
        found = vars(part)
        for name, value in usual.items():
            if value is not None and not _is_like(name, found.get(name), value):
                raise SourceError(f"{spec}: damaged: a {type(part).__name__} in it has no proper {name}")
        inner = [child for child in part._modules.values() if child is not None and id(child) not in seen]
        seen.update(map(id, inner))
        waiting.extend(inner)
    modes = [(part, part.training) for part in module.modules()]
    try:
        module._apply(lambda tensor: tensor)
        for mode in (True, False):
            module.train(mode)
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(
            f"{spec}: damaged: its {type(module).__name__} cannot be moved: {reason}"
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode


def _is_like(name: str, found: object, usual: object) -> bool:
    """Whether an attribute is of the usual kind, and the tables of tensors and modules hold just those."""
    if name in TABLES:
        return isinstance(found, dict) and all(
            isinstance(key, str) and (value is None or isinstance(value, TABLES[name]))
            for key, value in found.items()
        )
    return isinstance(found, dict if isinstance(usual, dict) else type(usual))


def check_float(module: nn.Module, spec: str, *, values: bool = True) -> None:
    """Raises SourceError where `module` is no float model with finite weights (`values=False`: unread)."""
    check_names(module, spec)
    converted = getattr(module, "_binarize", None)
    if converted is not None:
        scheme = getattr(getattr(converted, "plan", None), "name", None)
        with_scheme = f" with scheme {scheme!r}" if scheme else ""
        raise SourceError(f"{spec}: already binarized{with_scheme}; give its float model instead")
    for name, part in module.named_modules():
        where = name or "the model itself"
        path = class_path(part)
        if (library := _quantizing_library(part)) is not None:
            raise SourceError(
                f"{spec}: already quantized: {where} is {path} (of {library}); "
                "give the float model it was made from"
            )
        if _of_installed(type(part), BINARIZERS) or hasattr(part, "weight_binarizer"):
            raise SourceError(f"{spec}: already binarized: {where} is {path}; give its float model instead")
        if isinstance(part, torch.jit.ScriptModule):
            raise SourceError(f"{spec}: {where} is TorchScript; give the module it was made from")
    for name, tensor in _tensors(module):
        _check_tensor(spec, name, tensor, values)


def _quantizing_library(module: nn.Module) -> str | None:
    """The library whose layer this is, if it quantizes; a container of float layers does not, whatever it is named."""
    library = quantizer_of(class_path(module))
    if library is None or type(module).__name__ in _FLOAT or not _of_installed(type(module), (library,)):
        return None
    children = list(module.children())
    own = [value for value in (*module._parameters.values(), *module._buffers.values()) if value is not None]
    if own or not children or any(_quantizing_library(child) is not None for child in children):
        return library
    return None


def _of_installed(kind: type, libraries: tuple[str, ...]) -> bool:
    """Whether a class comes from one of these packages as it was installed: a file of the user's may have their name."""
    name = kind.__module__
    if not any(f"{name}.".startswith(f"{library}.") for library in libraries):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file).is_relative_to(_INSTALLED)


def _check_tensor(spec: str, name: str, tensor: Tensor, values: bool) -> None:
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        raise SourceError(f"{spec}: {name} has no shape yet (a lazy layer); run the model once on an example")
    library = quantizer_of(f"{type(tensor).__module__}.{type(tensor).__qualname__}")
    eight_bit = tensor.is_floating_point() and tensor.dtype.itemsize == 1
    if library is not None or tensor.is_quantized or eight_bit:
        kind = type(tensor).__name__ if library else str(tensor.dtype)
        raise SourceError(f"{spec}: already quantized: {name} is {kind}; give its float model instead")
    if values and not tensor.is_meta and tensor.is_floating_point():
        _check_finite(spec, name, tensor)


def _check_finite(spec: str, name: str, tensor: Tensor) -> None:
    """NaN anywhere, or infinity in a parameter or running statistic; other buffers may hold it (attention masks do)."""
    with torch.no_grad():
        if tensor.sum().isfinite():  # one pass; only if it fails are the elements looked at
            return
        nan = int(tensor.isnan().sum())
        counts = isinstance(tensor, nn.Parameter) or name.rpartition(".")[2] in _STATISTICS
        infinite = int(tensor.isinf().sum()) if counts else 0
    if nan or infinite:
        what = f"{nan} NaN" if nan else f"{infinite} infinite"
        raise SourceError(
            f"{spec}: {name} holds {what} values among {tensor.numel()}: the model is broken (diverged in "
            "training?); give an earlier checkpoint"
        )


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def class_path(module: nn.Module) -> str:
    """The dotted name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"

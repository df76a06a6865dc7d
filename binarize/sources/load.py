"""`load(spec)`: a named builder, a file, the user's own code or a ready module, as a `Source`."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from binarize.disk.file_name import is_file, is_there
from binarize.errors import SourceError, UsageError
from binarize.inputs import shapes
from binarize.inputs.arguments import Arguments, TensorKind
from binarize.modules import float_check
from binarize.sources import architectures
from binarize.sources.files import checksums
from binarize.sources.from_file import Found, from_file, refuse, written
from binarize.sources.libraries.built import Built
from binarize.sources.libraries.known import known_shape
from binarize.sources.source import Kind, Source
from binarize.sources.user_code import call_user_code, code_digest, is_user_code
from binarize.trust import check_builder, is_builder, pickles_trusted, quoted

__all__ = ["build", "load", "load_file"]

_SAY_SOURCE = "say it yourself: --source (source=...)"
_SAY_TEACHER = "name it yourself: --teacher or --float (teacher=...), or none"


def load(
    spec: str | os.PathLike[str] | nn.Module,
    *,
    arch: str | None = None,
    weights: str | None = None,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | Arguments | None = None,
    trust_pickle: bool = False,
    device: str | torch.device = "cpu",
    meta: bool = False,
    fetch: bool = True,
) -> Source:
    """The float model that `spec` names, ready to be captured. The name is the user's own word.

    `spec` is `torchvision:NAME`, `timm:NAME`, `hf-hub:NAME`, `local-dir:PATH`, a file that holds a module, a
    state dict or a checkpoint (with `arch`), `file.py:make_model`, `package.module:Net(num_classes=10)`, or a
    module. Only `weights` may touch the network, with `fetch`; only `trust_pickle` may run code from a file. `meta` leaves
    out the parameter data and reads no more of a file than it must; what your own code makes stays as it is.

    Raises: SourceError, UntrustedSourceError, UsageError.
    """
    spec = _checked_spec(spec)
    name = spec if isinstance(spec, str) else float_check.class_path(spec)
    if name in ("", "."):
        raise UsageError("no model is named; expected for example torchvision:resnet18 or a file")
    if "://" in name:
        raise SourceError(f"{name}: nothing is fetched from an address; download the file and name it")
    weights = architectures.tag_of(weights)
    _check_shape(input_shape)
    if isinstance(spec, nn.Module):
        refuse(name, "is a ready model", arch=arch, weights=weights, num_classes=num_classes)
        found = Found("module", Built(spec, None, None))
    elif (parts := architectures.split(spec)) is not None:
        refuse(name, "names its architecture", arch=arch)
        built = architectures.build(spec, weights=weights, num_classes=num_classes, meta=meta, fetch=fetch)
        kind: Kind = "torchvision" if parts[0] == "torchvision" else "timm"
        random = () if built.weights or not built.reproducible else ("random weights",)
        builder = written(spec) if built.reproducible else None
        found = Found(kind, built, builder, num_classes=num_classes, notes=random)
    elif _exists(spec) or not is_user_code(spec):
        refuse(name, "is a file", weights=weights)
        found = from_file(Path(spec), arch, num_classes, trust_pickle or pickles_trusted(), meta)
    else:
        refuse(name, "is your own code", arch=arch, weights=weights)
        module = call_user_code(spec, num_classes=num_classes)
        found = Found("factory", Built(module, None, None), num_classes=num_classes)
    return _source(name, found, input_shape, None if isinstance(spec, nn.Module) else device, meta)


def build(builder: str, *, num_classes: int | None = None, meta: bool = False) -> nn.Module:
    """The float module that a record's builder names: random weights, never the network.

    Raises: UntrustedSourceError, where it names more than a file may.
    """
    if not is_builder(builder):
        check_builder(builder, "source.builder of the saved model", _SAY_SOURCE)
        return call_user_code(builder, num_classes=num_classes)
    _check_classes(num_classes)
    return architectures.build(builder, num_classes=num_classes, meta=meta).module


def load_file(
    file: str | Path, *, arch: str | None = None, num_classes: int | None = None, sha256: str | None = None
) -> Source:
    """The float model in a file that a record names: whatever its name reads like, it is opened and nothing else.

    Where the user trusts pickles in this call, it may run what it holds, if it is the file of this digest.

    Raises: SourceError, where there is no such file; UntrustedSourceError, where the architecture is more than a file may
    name.
    """
    path = Path(file)
    if not is_file(path):
        raise SourceError(f"{quoted(str(path))}: no such file any more\n  {_SAY_TEACHER}")
    if arch is not None:
        check_builder(arch, "source.arch of the saved model", _SAY_TEACHER)
    _check_classes(num_classes)
    trusted = pickles_trusted() and sha256 is not None
    if trusted and checksums.sha256(path.open("rb")) != sha256:
        raise SourceError(
            f"{path}: is another file than the one that was converted (sha256 differs)\n  {_SAY_TEACHER}"
        )
    found = from_file(path, arch, num_classes, trust_pickle=trusted, meta=False)
    return _source(str(path), found, None, "cpu", False)


def _check_classes(number: object) -> None:
    if number is not None and (type(number) is bool or not is_builder(f"timm:name(num_classes={number!r})")):
        raise SourceError(f"source.num_classes of the saved model: {quoted(number)} is no number of classes")


def _source(
    spec: str,
    found: Found,
    input_shape: tuple[int, ...] | Arguments | None,
    device: str | torch.device | None,
    meta: bool,
) -> Source:
    module, unwrapped = float_check.unwrap(found.built.module, spec)
    float_check.check_float(module, spec, values=not meta)
    if meta and found.kind not in ("module", "factory"):
        module = module.to("meta")
    elif device is not None:
        module = _moved(module, device)
    source = Source(
        spec=spec,
        kind=found.kind,
        module=module,
        example_input=None,
        input_shape=None,
        class_path=float_check.class_path(module),
        weights=found.built.weights,
        arch=found.arch,
        builder=found.builder,
        num_classes=found.num_classes,
        notes=(*found.notes, *unwrapped),
        digest=found.digest,
        code_sha256=_code_digest(spec, found),
        trusted_pickle=found.trusted_pickle,
    )
    known = found.built.input_shape or known_shape(module)
    if isinstance(input_shape, Arguments):
        return source.with_example(input_shape, "given")
    if input_shape is not None:
        return source.with_example(_same(input_shape, found.built.inputs), "given")
    if known is not None:
        return source.with_example(_same(known, found.built.inputs), "library")
    inferred = shapes.infer(module)
    return source if inferred is None else source.with_example(inferred, "inferred")


def _code_digest(spec: str, found: Found) -> str | None:
    if found.kind == "factory":
        return code_digest(spec)
    own = found.arch is not None and architectures.split(found.arch) is None
    return code_digest(found.arch) if own and found.arch is not None else None


def _same(shape: tuple[int, ...], inputs: int) -> Arguments:
    return Arguments((TensorKind(tuple(shape)),) * inputs)


def _checked_spec(spec: object) -> str | nn.Module:
    if isinstance(spec, type) and issubclass(spec, nn.Module):
        raise UsageError(f"{spec.__name__} is a class; give an instance of it: {spec.__name__}(...)")
    if not isinstance(spec, (str, os.PathLike, nn.Module)):
        what = f"a {type(spec).__name__}"
        raise UsageError(f"the model is {what}; expected a torch.nn.Module, or a name or file of one")
    return spec if isinstance(spec, nn.Module) else os.fspath(spec)


def _moved(module: nn.Module, device: str | torch.device) -> nn.Module:
    try:
        return module.to(device)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # no such device, or none of its kind
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device}: {reason}\n  cpu is always there; see binarize doctor") from error


def _exists(spec: str) -> bool:
    try:
        return is_there(spec)
    except OSError as error:
        raise SourceError(f"{quoted(spec)}: cannot be read: {error.strerror}") from error


def _check_shape(shape: tuple[int, ...] | Arguments | None) -> None:
    if isinstance(shape, tuple) and (not shape or any(not isinstance(n, int) or n < 1 for n in shape)):
        raise UsageError(f"input shape {shape}: expected sizes with the batch first, as in 1,3,224,224")

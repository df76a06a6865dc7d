"""`load(spec)`: a named builder, a file, the user's own code or a ready module, as a `Source`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from binarize.disk.file_name import is_file, is_folder, is_there
from binarize.errors import SourceError, UntrustedSourceError, UsageError
from binarize.inputs import shapes
from binarize.inputs.arguments import Arguments, TensorKind
from binarize.modules import float_check
from binarize.sources import architectures, prefixes, state_dicts
from binarize.sources.architectures import Built
from binarize.sources.files import kinds, safe_pickle
from binarize.sources.guess import default_classes, guess
from binarize.sources.state_dicts import Checkpoint
from binarize.sources.user_code import call_user_code, code_digest, is_user_code
from binarize.trust import check_builder, is_builder, pickles_trusted, quoted

__all__ = ["Kind", "Source", "build", "load", "load_file"]

_SAY_SOURCE = "say it yourself: --source (source=...)"
_SAY_TEACHER = "name it yourself: --teacher or --float (teacher=...), or none"

Kind = Literal["module", "torchvision", "timm", "pickle", "state_dict", "factory", "safetensors"]
InputFrom = Literal["given", "library", "inferred", "unknown"]


@dataclass(frozen=True)
class Source:
    """A float model and where it came from.

    `example_input` holds positional arguments and `example_keywords` those by name, made up of the shapes and types that
    the model takes. `input_shape` is the shape of the first of them with the batch; None means that it is unknown:
    `inputs()` then asks for it.
    `builder` and `num_classes` rebuild the same structure offline with `build`; None means that only
    `structure.pt` or the user can. `weights` is the downloaded tag. `notes` are for the user to read.
    """

    spec: str
    kind: Kind
    module: nn.Module
    example_input: tuple[Any, ...] | None
    input_shape: tuple[int, ...] | None
    class_path: str
    weights: str | None
    arch: str | None
    builder: str | None = None
    num_classes: int | None = None
    input_shape_from: InputFrom = "unknown"
    example_keywords: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    digest: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    # Of the Python file of the user's own that made the module or its architecture.
    code_sha256: str | None = None
    # Whether the file ran code of its own, on the user's word.
    trusted_pickle: bool = False

    @property
    def sha256(self) -> str | None:
        """Of the file, which is being read in the background while the model is already there."""
        return self.digest() if self.digest else None

    def inputs(self) -> tuple[Any, ...]:
        """The positional arguments of the example. Raises: UsageError where the inputs of the model are unknown."""
        if self.example_input is None:
            raise UsageError(
                f"{self.spec}: the shape of its input is not known; {shapes.asked_for(self.module)}"
            )
        return self.example_input

    def with_example(self, arguments: Arguments, known_from: InputFrom) -> Source:
        """The same source with an example of that kind."""
        args, kwargs = arguments.make(self.module)
        shape = next((kind.shape for kind in arguments.kinds), None)
        return replace(
            self, example_input=args, example_keywords=kwargs, input_shape=shape, input_shape_from=known_from
        )


@dataclass(frozen=True)
class _Found:
    """A module with what the way of finding it tells."""

    kind: Kind
    built: Built
    builder: str | None = None
    arch: str | None = None
    num_classes: int | None = None
    digest: Callable[[], str] | None = None
    notes: tuple[str, ...] = ()
    trusted_pickle: bool = False


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
        _refuse(name, "is a ready model", arch=arch, weights=weights, num_classes=num_classes)
        found = _Found("module", Built(spec, None, None))
    elif (parts := architectures.split(spec)) is not None:
        _refuse(name, "names its architecture", arch=arch)
        built = architectures.build(spec, weights=weights, num_classes=num_classes, meta=meta, fetch=fetch)
        kind: Kind = "torchvision" if parts[0] == "torchvision" else "timm"
        random = () if built.weights or not built.reproducible else ("random weights",)
        builder = _written(spec) if built.reproducible else None
        found = _Found(kind, built, builder, num_classes=num_classes, notes=random)
    elif _exists(spec) or not is_user_code(spec):
        _refuse(name, "is a file", weights=weights)
        found = _from_file(Path(spec), arch, num_classes, trust_pickle or pickles_trusted(), meta)
    else:
        _refuse(name, "is your own code", arch=arch, weights=weights)
        module = call_user_code(spec, num_classes=num_classes)
        found = _Found("factory", Built(module, None, None), num_classes=num_classes)
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
    if trusted and kinds.sha256(path.open("rb")) != sha256:
        raise SourceError(
            f"{path}: is another file than the one that was converted (sha256 differs)\n  {_SAY_TEACHER}"
        )
    found = _from_file(path, arch, num_classes, trust_pickle=trusted, meta=False)
    return _source(str(path), found, None, "cpu", False)


def _check_classes(number: object) -> None:
    if number is not None and (type(number) is bool or not is_builder(f"timm:name(num_classes={number!r})")):
        raise SourceError(f"source.num_classes of the saved model: {quoted(number)} is no number of classes")


def _written(spec: str) -> str | None:
    """The builder as a file will name it; None where a file may not, and has to hold the structure instead."""
    return spec if is_builder(spec) else None


def _source(
    spec: str,
    found: _Found,
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
    known = found.built.input_shape or architectures.known_shape(module)
    if isinstance(input_shape, Arguments):
        return source.with_example(input_shape, "given")
    if input_shape is not None:
        return source.with_example(_same(input_shape, found.built.inputs), "given")
    if known is not None:
        return source.with_example(_same(known, found.built.inputs), "library")
    inferred = shapes.infer(module)
    return source if inferred is None else source.with_example(inferred, "inferred")


def _code_digest(spec: str, found: _Found) -> str | None:
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


def _from_file(
    path: Path, arch: str | None, num_classes: int | None, trust_pickle: bool, meta: bool
) -> _Found:
    if is_folder(path):
        raise kinds.refuse_directory(path)
    if not is_file(path):
        raise SourceError(kinds.missing_file(path) + _meant_builder(str(path)))
    kind = kinds.kind_of(path, trust_pickle=trust_pickle)
    background = ThreadPoolExecutor(1)
    damaged = background.submit(kinds.damaged_record, path) if not meta else None
    digest = background.submit(kinds.sha256, path.open("rb")).result if not meta else None
    background.shutdown(wait=False)
    checkpoint = _read(path, kind, arch, trust_pickle, meta)
    _refuse_shapes(checkpoint, path)
    if damaged is not None and (record := damaged.result()) is not None:
        raise SourceError(f"{path}: damaged: the checksum of its record {record} is wrong; copy it again")
    if checkpoint.module is not None:
        _refuse(str(path), f"holds a whole {type(checkpoint.module).__name__}", num_classes=num_classes)
        found = _Found("pickle", Built(checkpoint.module, None, None), notes=checkpoint.notes)
    else:
        if arch is None:
            guessed = guess(checkpoint, str(path))
            arch, checkpoint = guessed.arch, replace(checkpoint, notes=(*checkpoint.notes, guessed.note))
        found = _filled(path, checkpoint, arch, num_classes)
        found = replace(found, kind="safetensors" if kind == "safetensors" else "state_dict")
    return replace(found, digest=digest, trusted_pickle=checkpoint.trusted)


def _refuse_shapes(checkpoint: Checkpoint, path: Path) -> None:
    """Raises SourceError for tensors without data: they may claim any size."""
    module = checkpoint.module
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())} if module is not None else {}
    empty = [name for name, value in {**held, **checkpoint.state}.items() if getattr(value, "is_meta", False)]
    if empty:
        raise SourceError(
            f"{path}: holds only the shapes of its weights ({empty[0]}); give the file of the weights"
        )


def _read(path: Path, kind: kinds.FileKind, arch: str | None, trust_pickle: bool, meta: bool) -> Checkpoint:
    """The weights in a file, or the whole module where no architecture is given to put the weights into."""
    foreign: list[str] = []
    trusted: list[str] = []
    if kind == "safetensors":
        content: object = state_dicts.read_safetensors(path)
    elif trust_pickle:
        content, trusted = safe_pickle.load_trusted(path)
    else:
        content, foreign = safe_pickle.load_with_stand_ins(path, mmap=meta)
    checkpoint = replace(
        state_dicts.find_weights(content, str(path)), trusted=trust_pickle and kind != "safetensors"
    )
    notes = checkpoint.notes
    if trusted:
        notes = (*notes, f"trusted the code that the file names: {', '.join(trusted)}")
    ours = any(name.startswith("binarize.") for name in foreign)
    if checkpoint.module is not None and foreign and (arch is None or ours):
        raise UntrustedSourceError(safe_pickle.refusal(path, [], foreign))
    if checkpoint.module is not None and arch is not None:
        state, _ = prefixes.stripped(state_dicts.weights_of(checkpoint.module, str(path)))
        notes = (*notes, "took the weights of the whole module in the file")
        checkpoint = replace(checkpoint, module=None, state=state)
    elif foreign:
        notes = (*notes, f"left out what the file has of {', '.join(foreign)}")
    return replace(checkpoint, notes=notes)


def _filled(path: Path, checkpoint: Checkpoint, arch: str, num_classes: int | None) -> _Found:
    """The architecture with the weights of a state dict, and with another head where that was asked for."""
    make = partial(_build_arch, arch)
    built = make(None, True)
    state, outer = prefixes.unwrapped(checkpoint.state, built.module)
    notes = [*checkpoint.notes, *([f"stripped {outer!r} from the names"] if outer else [])]
    classes = state_dicts.new_head(state_dicts.mismatch(built.module, state), default_classes(arch))
    if classes is not None:
        notes.append(f"the head gives {classes} classes, as in the file")
    module = state_dicts.fill(lambda meta: make(classes, meta).module, state, str(path), arch)
    if num_classes is not None:
        replaced = architectures.replace_head(module, make(num_classes, False).module)
        notes += [f"new random head of {num_classes} classes: {', '.join(replaced)}"] if replaced else []
        classes = num_classes
    builder = _written(arch) if built.reproducible else None
    return _Found("state_dict", replace(built, module=module), builder, arch, classes, notes=tuple(notes))


def _build_arch(arch: str, num_classes: int | None, meta: bool) -> Built:
    if architectures.split(arch) is not None:
        return architectures.build(arch, num_classes=num_classes, meta=meta)
    if is_user_code(arch):
        module = call_user_code(arch, num_classes=num_classes)
        return Built(module, None, None, reproducible=False)
    raise UsageError(
        f"--arch {arch}: expected torchvision:NAME, timm:NAME or file.py:make_model{_meant_builder(arch)}"
    )


def _meant_builder(name: str) -> str:
    """`; did you mean torchvision:vgg11?` where a bare name is one that a library builds."""
    if not name.isidentifier():
        return ""
    meant = [f"{lib}:{name}" for lib in ("torchvision", "timm") if name in architectures.known_names(lib)]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _exists(spec: str) -> bool:
    try:
        return is_there(spec)
    except OSError as error:
        raise SourceError(f"{quoted(spec)}: cannot be read: {error.strerror}") from error


def _refuse(name: str, why: str, **given: object) -> None:
    """Raises UsageError for an argument that has no meaning for this kind of source."""
    for argument, value in given.items():
        if value is not None:
            option = argument.replace("_", "-")
            raise UsageError(f"{name} {why}, so that --{option} has no meaning; leave it out")


def _check_shape(shape: tuple[int, ...] | Arguments | None) -> None:
    if isinstance(shape, tuple) and (not shape or any(not isinstance(n, int) or n < 1 for n in shape)):
        raise UsageError(f"input shape {shape}: expected sizes with the batch first, as in 1,3,224,224")

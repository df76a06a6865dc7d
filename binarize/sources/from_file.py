"""The float model in a file: a whole module, or weights with the architecture that they are put into."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from binarize.disk.file_name import is_file, is_folder
from binarize.errors import SourceError, UntrustedSourceError, UsageError
from binarize.sources import architectures, prefixes, state_dicts
from binarize.sources.files import kinds, safe_pickle
from binarize.sources.files.checksums import damaged_record, sha256
from binarize.sources.fill import fill, mismatch, new_head
from binarize.sources.guess import default_classes, guess
from binarize.sources.libraries.built import Built, replace_head
from binarize.sources.libraries.known import known_names
from binarize.sources.source import Kind
from binarize.sources.state_dicts import Checkpoint
from binarize.sources.user_code import call_user_code, is_user_code
from binarize.trust import is_builder

__all__ = ["Found", "from_file", "refuse", "written"]


@dataclass(frozen=True)
class Found:
    """A module with what the way of finding it tells."""

    kind: Kind
    built: Built
    builder: str | None = None
    arch: str | None = None
    num_classes: int | None = None
    digest: Callable[[], str] | None = None
    notes: tuple[str, ...] = ()
    trusted_pickle: bool = False


def written(spec: str) -> str | None:
    """The builder as a file will name it; None where a file may not, and has to hold the structure instead."""
    return spec if is_builder(spec) else None


def from_file(path: Path, arch: str | None, num_classes: int | None, trust_pickle: bool, meta: bool) -> Found:
    if is_folder(path):
        raise kinds.refuse_directory(path)
    if not is_file(path):
        raise SourceError(kinds.missing_file(path) + _meant_builder(str(path)))
    kind = kinds.kind_of(path, trust_pickle=trust_pickle)
    background = ThreadPoolExecutor(1)
    damaged = background.submit(damaged_record, path) if not meta else None
    digest = background.submit(sha256, path.open("rb")).result if not meta else None
    background.shutdown(wait=False)
    checkpoint = _read(path, kind, arch, trust_pickle, meta)
    _refuse_shapes(checkpoint, path)
    if damaged is not None and (record := damaged.result()) is not None:
        raise SourceError(f"{path}: damaged: the checksum of its record {record} is wrong; copy it again")
    if checkpoint.module is not None:
        refuse(str(path), f"holds a whole {type(checkpoint.module).__name__}", num_classes=num_classes)
        found = Found("pickle", Built(checkpoint.module, None, None), notes=checkpoint.notes)
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


def _filled(path: Path, checkpoint: Checkpoint, arch: str, num_classes: int | None) -> Found:
    """The architecture with the weights of a state dict, and with another head where that was asked for."""
    make = partial(_build_arch, arch)
    built = make(None, True)
    state, outer = prefixes.unwrapped(checkpoint.state, built.module)
    notes = [*checkpoint.notes, *([f"stripped {outer!r} from the names"] if outer else [])]
    classes = new_head(mismatch(built.module, state), default_classes(arch))
    if classes is not None:
        notes.append(f"the head gives {classes} classes, as in the file")
    module = fill(lambda meta: make(classes, meta).module, state, str(path), arch)
    if num_classes is not None:
        replaced = replace_head(module, make(num_classes, False).module)
        notes += [f"new random head of {num_classes} classes: {', '.join(replaced)}"] if replaced else []
        classes = num_classes
    builder = written(arch) if built.reproducible else None
    return Found("state_dict", replace(built, module=module), builder, arch, classes, notes=tuple(notes))


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
    meant = [f"{lib}:{name}" for lib in ("torchvision", "timm") if name in known_names(lib)]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def refuse(name: str, why: str, **given: object) -> None:
    """Raises UsageError for an argument that has no meaning for this kind of source."""
    for argument, value in given.items():
        if value is not None:
            option = argument.replace("_", "-")
            raise UsageError(f"{name} {why}, so that --{option} has no meaning; leave it out")

"""A converted model on disk: written atomically, read back bit-equal, without running code from any file.

    model.safetensors   latent float weights, one entry per tensor, tied tensors once
    binarize.json       format version, source, resolved plan, seed, versions, command line, fingerprint
    structure.pt        the float model without data, only where no named builder makes it again
    rules.yaml          the effective rule set, re-runnable
    report.json, report.md, report.html (where jinja2 is installed)

Reloading rebuilds the float model, replays the plan's edits and loads the tensors strictly; no rule is matched again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import binarize
from binarize.capture.shadow import shadow
from binarize.checks import silenced_hooks
from binarize.conversion import Conversion, SourceRecord, conversion_of, remember
from binarize.errors import CheckError, SourceError, UsageError
from binarize.liveness import evaluating
from binarize.migrations import FORMAT, migrate
from binarize.plan import Plan
from binarize.report.markdown import to_markdown
from binarize.report.model import Report
from binarize.rewrite import copy_model, rewrite
from binarize.rules import RuleSet
from binarize.sources import build
from binarize.sources import load as load_source
from binarize.sources.structure import load_structure, save_structure, tied_tensors

__all__ = ["load", "read_report", "save"]

_WEIGHTS, _RECORD, _STRUCTURE = "model.safetensors", "binarize.json", "structure.pt"


def save(model: nn.Module, folder: str | Path, *, force: bool = False) -> Path:
    """Write a converted model (trained since or not) to a folder, all of it or nothing.

    Returns the folder. Raises: UsageError, where the model is not converted, or the folder exists and `force` does not
    allow to replace it; OSError, where the disk refuses.
    """
    conversion = conversion_of(model)
    if conversion is None:
        raise UsageError(
            "save: this model was not made by binarize.convert; torch.save writes any other model"
        )
    target = Path(folder)
    _check_target(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the final rename stays on one disk.
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".draft", dir=target.parent))
    try:
        _write(model, conversion, draft)
        for file in draft.iterdir():
            _sync(file)
        draft.chmod(0o777 & ~_umask())
        _put(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sync(target.parent)
    return target


def load(folder: str | Path, *, model: nn.Module | None = None, source: str | None = None) -> nn.Module:
    """The model that `save` wrote, with every tensor bit-equal.

    Where the float model's class is the user's own, give the float model (it is copied, its weights do not matter) or a
    `source` that makes it, such as "file.py:make_model".

    Raises: SourceError, where the folder is not one of ours, is damaged, or the float model is needed; CheckError, where
    the rebuilt model is not the one that was saved.
    """
    path = Path(folder)
    record = _read_record(path)
    plan = Plan.from_json(record["plan"])
    origin = SourceRecord.from_json(record["source"])
    rebuilt = _float_model(path, origin, model, source)
    float_skeleton = shadow(rebuilt) if origin.builder is None else None
    rewrite(rebuilt, plan)
    _load_tensors(rebuilt, path / _WEIGHTS, record)
    for name, training in record["modes"].items():
        rebuilt.get_submodule(name).training = training
    frozen = set(record["frozen"])
    for name, parameter in rebuilt.named_parameters():
        parameter.requires_grad_(name not in frozen)
    report = Report.from_json(json.loads((path / "report.json").read_text("utf-8")))
    rules = RuleSet.from_json(record["rules"])
    remember(
        rebuilt, Conversion(plan, origin, rules, report, float_skeleton, record["seed"], record["command"])
    )
    _check_output(rebuilt, origin, record)
    return rebuilt


def read_report(folder: str | Path) -> Report:
    """The report of a saved model, without loading the model."""
    path = Path(folder)
    _read_record(path)
    return Report.from_json(json.loads((path / "report.json").read_text("utf-8")))


# --- writing


def _write(model: nn.Module, conversion: Conversion, folder: Path) -> None:
    tensors = _unique_tensors(model)
    digest = _digest(tensors)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt", "binarize": str(FORMAT)})
    if conversion.skeleton is not None:
        save_structure(conversion.skeleton, folder / _STRUCTURE)
    record = {
        "format": FORMAT,
        "versions": _versions(),
        "source": conversion.source.to_json(),
        "plan": conversion.plan.to_json(),
        "rules": conversion.rules.to_json(),
        "seed": conversion.seed,
        "command": conversion.command,
        "tied": tied_tensors(model),
        # Only what differs from the float model's defaults would do, but a list of all is easier to read and check.
        "modes": {name: module.training for name, module in model.named_modules()},
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "fingerprint": {
            "tensors": digest,
            "machine": _machine(),
            "output": _output_digest(model, conversion.source),
        },
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=1), "utf-8")
    (folder / "rules.yaml").write_text(conversion.rules.to_yaml(), "utf-8")
    report = conversion.report
    (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1), "utf-8")
    (folder / "report.md").write_text(to_markdown(report), "utf-8")
    if importlib.util.find_spec("jinja2") is not None:
        from binarize.report.html import to_html

        (folder / "report.html").write_text(to_html(report), "utf-8")


def _unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors once and everything contiguous."""
    tied = {name for group in tied_tensors(model) for name in group[1:]}
    return {
        name: value.detach().contiguous()
        for name, value in model.state_dict().items()
        if name not in tied and isinstance(value, Tensor)
    }


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    """The tensor's memory, not copied: a numpy array, which is a buffer."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _check_target(target: Path, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    ours = (target / _RECORD).is_file()
    empty = target.is_dir() and not any(target.iterdir())
    if empty or (ours and force):
        return
    if ours:
        raise UsageError(
            f"{target} exists already; --force (force=True) replaces it, -o names another folder"
        )
    what = "a folder with other files" if target.is_dir() else "a file"
    raise UsageError(f"{target} is {what} and is not overwritten; name another folder (-o)")


def _put(draft: Path, target: Path) -> None:
    """Rename the finished draft to its final name; what stood there before is removed only afterwards."""
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent)) / "folder"
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _sync(path: Path) -> None:
    """Force what was written to the disk, before a rename makes it the truth."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _versions() -> dict[str, str]:
    found = {
        "binarize": binarize.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    for name in ("torchvision", "timm"):
        if importlib.util.find_spec(name) is not None:
            found[name] = importlib.metadata.version(name)
    return found


# --- reading


def _read_record(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: no such folder; expected one that binarize convert or binarize.save wrote"
        )
    path = folder / _RECORD
    if not path.is_file():
        raise SourceError(
            f"{folder}: holds no {_RECORD}; expected a folder that binarize convert or binarize.save wrote"
        )
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: damaged: {error}") from error
    return migrate(record, str(path))


def _float_model(
    folder: Path, origin: SourceRecord, model: nn.Module | None, source: str | None
) -> nn.Module:
    """The float model to replay the edits on; its weights are about to be replaced."""
    if model is not None:
        return copy_model(model)
    if source is not None:
        return load_source(source).module
    if origin.builder is not None:
        return build(origin.builder, num_classes=origin.num_classes)
    if (folder / _STRUCTURE).is_file():
        return load_structure(folder / _STRUCTURE)
    raise SourceError(
        f"{folder}: the float model's class is your own ({origin.class_path}), which no file here can make\n"
        f"  load({str(folder)!r}, model=your_float_model), or --source file.py:factory"
    )


def _load_tensors(model: nn.Module, path: Path, record: Mapping[str, Any]) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: damaged or missing: {error}") from error
    if _digest(tensors) != record["fingerprint"]["tensors"]:
        raise CheckError(f"{path}: its tensors are not the ones that were saved (sha256 differs)")
    own = model.state_dict(keep_vars=True)
    tied = {name: group[0] for group in record["tied"] for name in group[1:]}
    missing = sorted(name for name in own if tied.get(name, name) not in tensors)
    unexpected = sorted(name for name in tensors if name not in own)
    shapes = sorted(name for name in own if name in tensors and own[name].shape != tensors[name].shape)
    if missing or unexpected or shapes:
        raise CheckError(
            f"{path}: does not fit the rebuilt model: missing {missing[:3]}, unexpected {unexpected[:3]}, "
            f"of another shape {shapes[:3]}\n  the float model's code is another version; see binarize.json: versions"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in tensors:
                if value.dtype != tensors[name].dtype:
                    value.data = value.data.to(tensors[name].dtype)
                value.copy_(tensors[name])


def _check_output(model: nn.Module, origin: SourceRecord, record: Mapping[str, Any]) -> None:
    """The reloaded model must compute what the saved one did; on another machine the last digits may differ."""
    fingerprint = record["fingerprint"]
    if fingerprint["output"] is None or fingerprint["machine"] != _machine():
        return
    if _output_digest(model, origin) != fingerprint["output"]:
        raise CheckError(
            "the reloaded model computes something else than the saved one did on the same seeded input"
        )


def _machine() -> dict[str, Any]:
    """What the last digits of an output depend on."""
    return {
        "torch": str(torch.__version__),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _output_digest(model: nn.Module, origin: SourceRecord) -> str | None:
    """sha256 of the output on a seeded input; None for a model that needs inputs of another kind or another device."""
    parameter = next(model.parameters(), None)
    if (
        parameter is None
        or parameter.device.type != "cpu"
        or origin.keyword_shapes
        or not origin.input_shapes
    ):
        return None
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(parameter.dtype) for shape in origin.input_shapes]
    with silenced_hooks(model), evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output = model(*inputs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None  # integer or structured inputs
    digest = hashlib.sha256()
    for value in pytree.tree_leaves(output):
        if isinstance(value, Tensor):
            digest.update(_bytes(value.detach().contiguous()))
    return digest.hexdigest()

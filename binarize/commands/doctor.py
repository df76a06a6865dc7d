"""`binarize doctor` and `binarize version`."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import warnings
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

import typer

from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.errors import UsageError
from binarize.kernels.variants import active, variants
from binarize.version import __version__

__all__ = ["Finding", "doctor", "examine", "version"]


_STYLES = {"ok": "green", "missing": "yellow", "bad": "bold red"}


@command
def doctor(screen: Screen) -> None:
    """Versions, devices, what is missing and how to install it. Exit code 1 if something is broken."""
    from rich.table import Table
    from rich.text import Text

    # MOVER

    with screen.stage("looking around"):
        findings = examine()
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            finding.topic,
            Text(finding.state, _STYLES[finding.state]),
            Text(finding.found + (f"\n{finding.remedy}" if finding.remedy else "")),
        )
    screen.show(table)
    screen.document([finding.to_json() for finding in findings])
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


@command
def version(screen: Screen) -> None:
    """The version of binarize."""
    screen.show(f"binarize {__version__}")
    screen.document({"version": __version__})


# What each extra adds, as setup.cfg has it.
EXTRAS = {
    "train": ("pytorch-lightning>=2.6.4", "torchmetrics"),
    "report": ("jinja2",),
    "onnx": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "study": ("pytorch-lightning>=2.6.4", "torchmetrics", "ray", "torch-pruning", "matplotlib"),
}
NEEDED = (
    "torch", "torchvision", "timm", "typer", "rich", "pydantic", "ruamel.yaml", "safetensors", "numpy", "google-re2",
)  # fmt: skip

# Releases that must not be used, and what to do about them.
BAD_RELEASES = {
    (
        "lightning",
        "2.6.2",
    ): "this release carried malware: remove it and change the credentials on this machine",
    (
        "lightning",
        "2.6.3",
    ): "this release carried malware: remove it and change the credentials on this machine",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: "ok", "missing" (optional and absent) or "bad" (something will not work)."""

    topic: str
    state: Literal["ok", "missing", "bad"]
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Versions, devices, extras, rule files and known bad releases. Imports torch; reaches no network."""
    return [_python(), *_needed(), *_devices(), _kernels(), *_extras(), _rules(), *_bad_releases()]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("python", "ok", f"{platform.python_version()} in {sys.prefix}, {system}")


def _needed() -> list[Finding]:
    findings = []
    for name in NEEDED:
        version = _version(name)
        if version is None:
            findings.append(Finding(name, "bad", "not installed", f"pip install {name}"))
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def _devices() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("devices", "bad", f"torch does not import: {error}", "install torch again")]
    found = [f"cpu with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"]
    found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    findings = [Finding("devices", "ok", "; ".join(found))]
    try:
        import torchvision  # noqa: F401 (fails where its compiled part was built for another torch)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        remedy = (
            "install the torchvision made for this torch: pip install --force-reinstall torch torchvision"
        )
        findings.append(Finding("torchvision", "bad", f"does not import: {error}", remedy))
    return findings


def _kernels() -> Finding:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = ", ".join(variant.name for variant in variants())
    if not known:
        remedy = "install again where there is a C compiler"
        return Finding(
            "kernels", "missing", "not built: packed models run through plain torch, slowly", remedy
        )
    try:
        running = active(needed=False)
    except UsageError as error:
        return Finding("kernels", "bad", str(error), "unset BINARIZE_KERNELS")
    return Finding("kernels", "ok", f"{running.name if running else 'plain torch'} runs, of {known}")


def _extras() -> list[Finding]:
    findings = []
    for extra, requirements in EXTRAS.items():
        names = [requirement.partition(">")[0] for requirement in requirements]
        absent = [name for name in names if _version(name) is None]
        if absent:
            install = "pip install " + shlex.join(requirements)
            findings.append(Finding(f"extra {extra}", "missing", f"without {', '.join(absent)}", install))
        else:
            present = ", ".join(f"{name} {_version(name)}" for name in names)
            findings.append(Finding(f"extra {extra}", "ok", present))
    return findings


def _rules() -> Finding:
    from binarize.rules.files import builtin_rule_sets

    names = builtin_rule_sets()
    if names:
        return Finding("rule sets", "ok", ", ".join(names))
    return Finding("rule sets", "bad", "none found", "install the package again")


def _bad_releases() -> list[Finding]:
    return [
        Finding(name, "bad", version, remedy)
        for (name, version), remedy in BAD_RELEASES.items()
        if _version(name) == version
    ]

"""`binarize demo`: the whole way on embedded data, offline, with the numbers of this very run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import binarize
from binarize.commands.console import choices, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.demo.train import EPOCHS, accuracy, train
from binarize.errors import CheckError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from binarize.report.report import Report

__all__ = ["demo"]


@command
def demo(
    screen: Screen,
    scheme: options.SchemeName = "adabin",
    epochs: Annotated[int, typer.Option(min=1, help="Of training the binary network.")] = EPOCHS,
    seed: options.Seed = 0,
    out: options.Out = None,
    force: options.Force = False,
) -> None:
    """Convert, calibrate, train, save and reload a small VGG on 8 x 8 digits. Offline, about a minute."""
    folder = out or Path(f"digits-{scheme}")
    force = screen.hold(folder, parents=True).written or force
    if folder.exists() and out is not None and not force:
        raise UsageError(f"{folder} exists already; --force replaces it, -o names another")
    started = time.perf_counter()
    with screen.stage("importing"):
        import torch

        from binarize.modules.modes import torch_threads

    torch.manual_seed(seed)
    # Sharing out layers as small as these takes longer than computing them.
    with torch_threads(1):
        found, report = _way(screen, scheme, epochs, seed, folder)
    _tell(screen, found, report, folder, time.perf_counter() - started)
    screen.document({"accuracy": found, "folder": str(folder), "report": report.to_json()})


def _way(
    screen: Screen, scheme: str | None, epochs: int, seed: int, folder: Path
) -> tuple[dict[str, float], Report]:
    """(the share of held-out digits that each model gets right, by its name; the report on the conversion)."""
    from binarize.demo.digits import load_digits, trained_vgg
    from binarize.report.drawing.terminal import render

    digits, network = load_digits(), trained_vgg()
    held_out = digits.held_out_images, digits.held_out_labels
    found = {"float": accuracy(network, *held_out)}
    screen.show(
        f"A float VGG, trained on {len(digits.train_labels)} digits of 8 x 8 pixels: "
        f"{_percent(found['float'])} of {len(digits.held_out_labels)} held-out ones right.\n"
    )
    with screen.stage("converting"):
        images = digits.train_images[:256]
        planned = binarize.plan(network, scheme, add_shortcuts=True, example_input=images, seed=seed)
        found["as converted"] = accuracy(planned.apply(calibrate=False), *held_out)
        binary = planned.apply(calibrate=digits.train_images)
        found["thresholds set"] = accuracy(binary, *held_out)
    with screen.stage("calibrating"):
        binarize.calibrate(binary, digits.train_images, network, seed=seed)
        found["calibrated"] = accuracy(binary, *held_out)
    report = choices.report_of(binary)
    screen.show(render(report))
    screen.show("")
    screen.show(f"Training it for {epochs} epochs, with the float network as teacher:")
    for epoch, share in train(binary, network, digits, epochs=epochs):
        found["trained"] = share
        screen.show(f"  epoch {epoch:2d}   {_percent(share)}   {_bar(share)}")
    with screen.stage("saving and loading again"):
        binarize.save(binary, folder, force=True)
        _require_equal(binary, binarize.load(folder), digits.held_out_images)
    return found, report


def _tell(screen: Screen, found: dict[str, float], report: Report, folder: Path, seconds: float) -> None:
    """What was measured, where it lies, and what to do with it."""
    sizes, program = report.totals, choices.program()
    screen.show("\nRight on the held-out digits, as measured in this run:")
    for name, share in found.items():
        screen.show(f"  {name:15} {_percent(share)}   {_bar(share)}")
    screen.show(
        f"\nParameters: {sizes.float_bytes / 1024:,.0f} KiB float, {sizes.packed_bytes / 1024:,.0f} KiB packed.\n"
        f"Saved, and loaded again bit-equal, in {seconds:.0f} s:\n"
        f"  {folder}/model.safetensors   the network, trainable\n"
        f"  {folder}/report.md           every layer and why\n"
        f"  {folder}/rules.yaml          the rules, to change and run again\n"
        "next:\n"
        f"  {program} report {folder} --all\n"
        f"  {program} plan torchvision:resnet18 --shortcuts every\n"
        f"  {program} convert torchvision:vgg11 --scheme adabin --add-shortcuts"
    )


def _require_equal(saved: nn.Module, loaded: nn.Module, images: Tensor) -> None:
    """Raises: CheckError where the reloaded network computes anything else, to the last bit."""
    import torch

    with torch.no_grad():
        if not torch.equal(saved.eval()(images), loaded.eval()(images)):
            raise CheckError("the reloaded network differs from the one that was saved")


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"


def _bar(share: float) -> str:
    return "█" * round(40 * share)

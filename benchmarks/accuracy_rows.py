"""The rows of benchmarks/accuracy.py, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ROWS", "Row"]

# Clothes look the same mirrored, digits do not. A binary network underfits what a float one overfits: shifts cost it
# a point of what is held out (20,000 images, 8 epochs).
_AUGMENT = {"fashion": "flip", "mnist": "shift2"}
_FLOAT_AUGMENT = {"fashion": "shift2+flip", "mnist": "shift2"}
# What the rows without a scheme of their own are made by, and what the commands take unless told.
_BEST: Mapping[str, Any] = {"scheme": "reactnet", "shortcuts": "missing"}
_USUAL: Mapping[str, Any] = {"scheme": "adabin", "shortcuts": "never"}
_FLOAT_RECIPE = {
    "optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.05, "warmup": 0.05, "schedule": "cosine", "batch_size": 128,
}  # fmt: skip
# Networks whose rows are those of the default recipe, with what is different in them: epochs of a MobileNetV2 are slow.
_NARROW: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {},
    "mobilenetv2": {"images": 20_000, "precision": "32"},
}


@dataclass(frozen=True)
class Row:
    """One network trained in one way."""

    network: str = "vgg6"
    data: str = "fashion"
    # None: all 60,000.
    images: int | None = None
    epochs: int = 15
    # A shipped scheme, or a rule file beside this one; neither: the float network itself.
    scheme: str | None = None
    rules: str | None = None
    overrides: tuple[str, ...] = ()
    shortcuts: str | None = None
    # First and last layers that stay float.
    keep_ends: int = 1
    # From the weights of the float network, or from random ones ("scratch").
    start: str = "float"
    teaches: bool = True
    # Training images, without labels, that it is calibrated on before it is trained.
    calibrated: int = 0
    # Of reconstruction on each layer, in that calibration.
    steps: int = 0
    # Changes to the scheme's recipe.
    recipe: Mapping[str, Any] = field(default_factory=dict)
    # Of the float network it comes from.
    float_images: int | None = None
    float_epochs: int = 15
    # Of its training; depthwise convolutions are slower in bfloat16 on the processors these ran on.
    precision: str = "bf16"

    @property
    def is_float(self) -> bool:
        """Whether nothing in it is binary."""
        return self.scheme is None and self.rules is None

    def source(self) -> Row:
        """The row of the float network."""
        images = self.float_images or self.images
        return Row(
            self.network,
            self.data,
            images,
            self.float_epochs,
            recipe={**_FLOAT_RECIPE, "augment": _FLOAT_AUGMENT[self.data]},
            precision=self.precision,
        )

    @property
    def source_name(self) -> str:
        """What the row of the float network is called."""
        count = self.float_images or self.images
        size = f"-{count // 1000}k" if count else ""
        return f"{self.data}-float-{self.network}{size}-e{self.float_epochs}"

    def describe(self) -> str:
        """The row in words."""
        parts = [
            self.network,
            f"{(self.images or 60_000) // 1000}k images of {self.data}",
            f"{self.epochs} epochs",
        ]
        parts.append(self.scheme or self.rules or "float")
        parts += [f"shortcuts {self.shortcuts}"] if self.shortcuts else []
        parts += [] if self.keep_ends else ["first and last binary too"]
        parts += ["from scratch"] if self.start != "float" else []
        parts += [f"calibrated on {self.calibrated:,}"] if self.calibrated else []
        parts += [f"{self.steps} steps a layer"] if self.steps else []
        return ", ".join(parts)


def _binary(data: str = "fashion", recipe: Mapping[str, Any] | None = None, **options: Any) -> Row:
    return Row(data=data, recipe={"augment": _AUGMENT[data], **(recipe or {})}, **options)


def _rows() -> dict[str, Row]:
    default = _binary(**_BEST)
    rows = {
        "fashion-w1a1": default,
        "fashion-w1a1-30": replace(default, epochs=30),
        "fashion-w1a1-adabin": _binary(**_USUAL),
        "fashion-w1a32": _binary(scheme="bireal", overrides=("body.use=weights-only:bireal",)),
        "fashion-binaryconnect": _binary(scheme="binaryconnect"),
    }
    rows = {rows["fashion-w1a1"].source_name: default.source(), **rows}
    for network, changes in _NARROW.items():
        row = replace(default, network=network, **changes)
        rows |= {row.source_name: row.source(), f"fashion-{network}-w1a1": row}
    rows["fashion-vgg6-all-binary"] = replace(default, keep_ends=0)
    digits: dict[str, Any] = {"images": 10_000, "epochs": 40, "float_epochs": 20}
    rows["mnist-lenet-all-binary"] = _binary(
        "mnist", network="lenet", keep_ends=0, overrides=("tiny.use=reactnet",), **_BEST, **digits
    )
    rows["mnist-vgg6"] = _binary("mnist", **_BEST, **digits)
    few: dict[str, Any] = {"images": 10_000, "epochs": 4, "float_images": 20_000, "float_epochs": 15}
    rows["from-float"] = _binary(**_USUAL, **few)
    rows["from-float-calibrated"] = replace(rows["from-float"], calibrated=2000)
    rows["from-float-reconstructed"] = replace(rows["from-float-calibrated"], steps=100)
    rows["from-scratch"] = _binary(start="scratch", **_USUAL, **few)
    rows["from-scratch-alone"] = _binary(start="scratch", teaches=False, **_USUAL, **few)
    for network in ("plain6", "plain10", "plain16", "plain24", "vgg11"):
        for scheme in ("adabin", "bireal", "reactnet"):
            for shortcuts in ("never", "missing"):
                for relu in ("replaced", "kept"):
                    name = f"depth-{network}-{scheme}-{shortcuts}-relu-{relu}"
                    kept = ("body.activation=keep",) if relu == "kept" else ()
                    rows[name] = _binary(
                        network=network, scheme=scheme, shortcuts=shortcuts, images=20_000, epochs=5,
                        overrides=kept,
                    )  # fmt: skip
    return rows


ROWS: Mapping[str, Row] = _rows()

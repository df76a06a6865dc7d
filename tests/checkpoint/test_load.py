"""Saved and loaded again: bit-equal, all or nothing, and no code from any file."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from forks import forked
from safetensors.torch import load_file, save_file
from test_laws import assert_equal, run
from torch import nn

import binarize
from binarize.checkpoint.fingerprint import record_digest
from binarize.checkpoint.load import read_report
from binarize.checkpoint.save import replace_model
from binarize.errors import BinarizeError, CheckError, SourceError, UsageError
from binarize.layers.layer import is_binary
from binarize.modules.tensors import tensor_digest

Converted = Callable[..., nn.Module]


def assert_same(expected: nn.Module, found: nn.Module) -> None:
    """Every tensor, flag and output bit-equal."""
    state, its = expected.state_dict(), found.state_dict()
    assert list(state) == list(its)
    assert all(torch.equal(state[key], its[key]) and state[key].dtype == its[key].dtype for key in state)
    assert [m.training for m in expected.modules()] == [m.training for m in found.modules()]
    assert [p.requires_grad for p in expected.parameters()] == [p.requires_grad for p in found.parameters()]
    assert [type(m).__qualname__ for m in expected.modules()] == [
        type(m).__qualname__ for m in found.modules()
    ]
    if isinstance(expected, nets.Net):
        assert_equal(run(expected.eval()), run(found.eval()))


# --- there and back


@pytest.mark.parametrize("name", list(nets.ALL))
@pytest.mark.sampled(20)
def test_saved_and_loaded_is_bit_equal(name: str, converted: Converted, tmp_path: Path) -> None:
    model = converted(name)
    folder = binarize.save(model, tmp_path / "net")
    files = {"model.safetensors", "binarize.json", "rules.yaml", "report.json", "report.md"}
    assert files <= {file.name for file in folder.iterdir()} <= {*files, "report.html", "structure.pt"}
    assert_same(model, binarize.load(folder, model=nets.ALL[name]()))


@pytest.mark.parametrize("scheme", ["reactnet", "xnor", "irnet", "binaryconnect"])
def test_every_part_of_a_scheme_comes_back(scheme: str, converted: Converted, tmp_path: Path) -> None:
    model = converted("BasicBlocks", scheme)
    assert_same(model, binarize.load(binarize.save(model, tmp_path / "net"), model=nets.BasicBlocks()))


@pytest.mark.parametrize("name", ["BasicBlocks", "ConvRelu", "Tokens"])
def test_a_trained_model_is_saved_as_it_is_now(name: str, converted: Converted, tmp_path: Path) -> None:
    model = converted(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(nets.pictures(8)).square().mean().backward()
        optimizer.step()
    next(model.parameters()).requires_grad_(False)
    loaded = binarize.load(binarize.save(model, tmp_path / "net"), model=nets.ALL[name]())
    assert_same(model, loaded)
    # And it can be trained on and saved again.
    loaded.train()(nets.pictures(8)).sum().backward()
    assert_same(loaded, binarize.load(binarize.save(loaded, tmp_path / "again"), model=nets.ALL[name]()))


def test_a_named_builder_needs_nothing_but_the_folder(tmp_path: Path) -> None:
    model = binarize.convert("timm:test_resnet", "adabin", num_classes=7, example_input=nets.pictures(4, 64))
    folder = binarize.save(model, tmp_path / "net")
    assert not (folder / "structure.pt").exists()
    loaded = binarize.load(folder)
    assert_same(model, loaded)
    with torch.no_grad():
        assert torch.equal(model.eval()(nets.pictures(2, 64)), loaded.eval()(nets.pictures(2, 64)))


def test_modules_of_torch_alone_bring_their_structure_also_the_second_time(tmp_path: Path) -> None:
    """Buffers outside the state dict are part of the structure: no file of tensors holds them."""
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    model = SwinTransformer(img_size=56, embed_dim=24, depths=(1, 1), num_heads=(2, 2), num_classes=10).eval()
    index = "layers.0.blocks.0.attn.relative_position_index"
    assert index not in model.state_dict() and index in dict(model.named_buffers())
    model.layers[0].register_forward_hook(lambda *_: None)
    once = binarize.convert(model, "adabin", example_input=nets.pictures(4, 56))
    again = binarize.load(binarize.save(once, tmp_path / "one"))
    third = binarize.load(binarize.save(again, tmp_path / "two"))
    x = nets.pictures(2, 56)
    with torch.no_grad():
        assert torch.equal(once(x), again(x)) and torch.equal(once(x), third(x))


def test_ones_own_class_needs_the_float_model_and_the_message_says_how(
    converted: Converted, tmp_path: Path
) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    with pytest.raises(SourceError) as caught:
        binarize.load(folder)
    assert "the float model's class is your own (" in str(caught.value)
    assert "model=float_model" in str(caught.value) and "source=" in str(caught.value)


def test_a_factory_can_make_the_float_model(converted: Converted, tmp_path: Path) -> None:
    model = converted("ConvRelu")
    folder = binarize.save(model, tmp_path / "net")
    (tmp_path / "mine.py").write_text("import nets\n\ndef make():\n    return nets.ConvRelu()\n")
    loaded = binarize.load(folder, source=f"{tmp_path / 'mine.py'}:make")
    assert_equal(run(model), run(loaded))


def test_the_float_model_that_is_given_is_not_touched(converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    model, state = nets.ConvRelu(), torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loaded = binarize.load(folder, model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(is_binary(module) for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in loaded.parameters()}


@pytest.mark.parametrize(
    "change",
    [lambda m: m.to(memory_format=torch.channels_last), lambda m: m.double(), lambda m: m.bfloat16()],
)
def test_dtype_and_memory_format_come_back(change: Any, converted: Converted, tmp_path: Path) -> None:
    model = change(converted("BasicBlocks"))
    loaded = binarize.load(binarize.save(model, tmp_path / "net"), model=nets.BasicBlocks())
    x = nets.pictures(4).to(next(model.parameters()).dtype)
    with torch.no_grad():
        assert torch.equal(model(x), loaded(x))
    assert [p.stride() for p in model.parameters()] == [p.stride() for p in loaded.parameters()]


def test_views_expanded_and_empty_buffers_are_saved_one_by_one(tmp_path: Path) -> None:
    model = nets.seeded(nets.ConvRelu)
    whole = torch.arange(6.0)
    for name, buffer in {
        "whole": whole,
        "part": whole[2:4],
        "same": torch.ones(1).expand(3),
        "none": torch.empty(0),
    }.items():
        model.register_buffer(name, buffer)
    converted = binarize.convert(model, "adabin", example_input=nets.pictures(4))
    loaded = binarize.load(binarize.save(converted, tmp_path / "net"), model=model)
    assert (loaded.part.tolist(), loaded.same.tolist(), loaded.none.numel()) == (
        [2.0, 3.0],
        [1.0, 1.0, 1.0],
        0,
    )


def test_rules_that_are_a_function_are_saved_as_what_they_said(tmp_path: Path) -> None:
    model = nets.seeded(nets.ConvRelu)
    converted = binarize.convert(
        model, rules=lambda layer: "bnn" if layer.kind == "linear" else None, example_input=nets.pictures(4)
    )
    folder = binarize.save(converted, tmp_path / "net")
    again = binarize.convert(model, rules=str(folder / "rules.yaml"), example_input=nets.pictures(4))
    names = [[name for name, module in m.named_modules() if is_binary(module)] for m in (converted, again)]
    assert names[0] == names[1] != []


def test_the_report_is_read_without_the_model(converted: Converted, tmp_path: Path) -> None:
    model = converted("ConvRelu")
    folder = binarize.save(model, tmp_path / "my net")
    report = read_report(folder)
    assert replace(report, files={}, next_commands=()).to_json() == model.report.to_json()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert (
        report.files == {name: size for name, size in sizes.items() if not name.startswith("report.")} != {}
    )
    assert [shlex.split(command)[2] for command in report.next_commands] == [str(folder)] * 3


@pytest.mark.parametrize("forms, written", [((), set()), (("md",), {"report.md"})])
def test_only_the_reports_asked_for_are_written(
    forms: tuple[str, ...], written: set[str], converted: Converted, tmp_path: Path
) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net", reports=forms)
    assert {path.name for path in folder.glob("report.*")} == {"report.json", *written}


# --- what is not ours, damaged or changed


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))


def edited(change: Callable[[dict[str, Any]], object], *, resigned: bool = False) -> Callable[[Path], None]:
    """A change of binarize.json; `resigned` also makes its sha256 anew, as somebody with intent would."""

    def edit(folder: Path) -> None:
        record = json.loads((folder / "binarize.json").read_text())
        change(record)
        if resigned:
            record["fingerprint"]["record"] = record_digest(record)
        (folder / "binarize.json").write_text(json.dumps(record))

    return edit


@pytest.mark.parametrize(
    "damage, error, words",
    [
        (flip_a_bit, CheckError, "its tensors are not the ones that were saved"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b""),
            SourceError,
            "model.safetensors: damaged or missing",
        ),
        (
            lambda f: os.truncate(f / "model.safetensors", 100),
            SourceError,
            "model.safetensors: damaged or missing",
        ),
        (lambda f: (f / "model.safetensors").unlink(), SourceError, "model.safetensors: damaged or missing"),
        (lambda f: (f / "binarize.json").write_text("{"), SourceError, "binarize.json: damaged"),
        (lambda f: (f / "binarize.json").write_text("[" * 100_000), SourceError, "binarize.json: damaged"),
        (lambda f: (f / "binarize.json").write_bytes(b"\xff\xfe"), SourceError, "binarize.json: damaged"),
        (lambda f: (f / "binarize.json").unlink(), SourceError, "holds no binarize.json"),
        (lambda f: (f / "report.json").unlink(), SourceError, "report.json: damaged or missing"),
        (lambda f: (f / "report.json").write_text("{}"), SourceError, "report"),
        (edited(lambda r: r.pop("plan")), SourceError, "damaged: it has no 'plan'"),
        (edited(lambda r: r.update(format=99)), SourceError, "format 99 is newer"),
        (edited(lambda r: r["plan"]["edits"].pop()), CheckError, "was changed after it was saved"),
        (edited(lambda r: r.update(seed=7)), CheckError, "was changed after it was saved"),
        (edited(lambda r: r["plan"]["edits"].pop(), resigned=True), CheckError, "does not fit"),
        (
            edited(lambda r: r["plan"]["edits"][0].update(container="no.such"), resigned=True),
            CheckError,
            "does not fit",
        ),
        (
            edited(lambda r: r["plan"]["edits"][0].update(op="run"), resigned=True),
            SourceError,
            "binarize.json: plan.edits.0.op: expected one of 'explicit', 'open', 'swap'",
        ),
        (edited(lambda r: r["fingerprint"].update(output="0" * 64)), CheckError, "computes something else"),
        (
            edited(lambda r: r["plan"]["schemes"]["adabin"].update(weight="antigravity.Part"), resigned=True),
            SourceError,
            '"antigravity.Part" is neither a part of binarize.binarizers nor of torch.nn',
        ),
        (
            edited(
                lambda r: [
                    e["args"].update(part="antigravity.Part")
                    for e in r["plan"]["edits"]
                    if "part" in e["args"]
                ],
                resigned=True,
            ),
            SourceError,
            '"antigravity.Part" is neither a part of binarize.binarizers nor of torch.nn',
        ),
    ],
)
def test_what_is_damaged_or_changed_is_refused_with_the_place(
    damage: Any, error: type[BinarizeError], words: str, converted: Converted, tmp_path: Path
) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    damage(folder)
    with pytest.raises(error) as caught:
        binarize.load(folder, model=nets.ConvRelu())
    assert words in str(caught.value)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("model", [nets.BasicBlocks(), nets.FunctionalRelu(), nn.Linear(2, 2)])
def test_another_float_model_is_refused(model: nn.Module, converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    with pytest.raises(CheckError, match=f"the saved plan does not fit {type(model).__name__}"):
        binarize.load(folder, model=model)


def test_a_float_model_of_other_sizes_is_refused(converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    wider = nets.ConvRelu()
    wider.classifier[6] = nn.Linear(32, 11)
    with pytest.raises(CheckError, match=r"does not fit the rebuilt model: .* of another shape"):
        binarize.load(folder, model=wider)


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_folder_that_is_not_ours_is_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SourceError, match=r"expected (one|a folder) that binarize convert or binarize\.save wrote"
    ):
        binarize.load(tmp_path / folder)


@pytest.mark.parametrize("name", ["model.safetensors", "report.json", "notes"])
def test_a_folder_with_a_pipe_is_refused_unread(name: str, converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(SourceError, match="is a pipe; expected a file"):
        binarize.load(folder, model=nets.ConvRelu())
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="is a device; expected a file"):
        binarize.load(folder, model=nets.ConvRelu())


def test_a_float_model_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"was not made by binarize\.convert"):
        binarize.save(nets.ConvRelu(), tmp_path / "net")
    assert not any(tmp_path.iterdir())


# --- all or nothing


def test_force_replaces_the_model_and_leaves_files_of_the_user(converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    (folder / "images" / "cat").mkdir(parents=True)
    (folder / "images" / "cat" / "1.png").write_text("picture")
    for stale in ("packed.safetensors", "finetune.json", "metrics.csv"):
        (folder / stale).write_text("of the model before")
    binarize.save(converted("Mlp"), folder, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "images" / "cat" / "1.png").read_text() == "picture"
    assert not any(
        (folder / stale).exists() for stale in ("packed.safetensors", "finetune.json", "metrics.csv")
    )


def test_a_folder_is_replaced_only_by_force(converted: Converted, tmp_path: Path) -> None:
    folder = binarize.save(converted("ConvRelu"), tmp_path / "net")
    with pytest.raises(UsageError, match="exists already"):
        binarize.save(converted("Mlp"), folder)
    binarize.save(converted("Mlp"), folder, force=True)
    assert isinstance(binarize.load(folder, model=nets.Mlp()), nets.Mlp)
    assert os.listdir(tmp_path) == ["net"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_ours_is_never_replaced(kind: str, converted: Converted, tmp_path: Path) -> None:
    target = tmp_path / "net"
    if kind == "file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / "photo.jpg").write_text("precious")
    with pytest.raises(UsageError, match="is not overwritten"):
        binarize.save(converted("ConvRelu"), target, force=True)
    assert (target if kind == "file" else target / "photo.jpg").read_text() == "precious"


def with_ballast(elements: int) -> nn.Module:
    """A converted network that takes this many numbers more on disk."""
    model = nets.seeded(nets.Mlp)
    model.register_buffer("ballast", torch.zeros(elements))
    return binarize.convert(model, "bnn", example_input=nets.pictures(4))


def test_a_full_disk_leaves_nothing_behind_and_the_old_folder_in_place(
    converted: Converted, tmp_path: Path
) -> None:
    """Files may not grow beyond 64 KiB in the child process: writing the tensors fails like on a full disk."""
    old, model = converted("Mlp", "bnn"), with_ballast(100_000)
    binarize.save(old, tmp_path / "old")

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for name, force in (("new", False), ("old", True)):
            with pytest.raises(OSError):
                binarize.save(model, tmp_path / name, force=force)

    assert os.waitpid(forked(fill_the_disk), 0)[1] == 0
    assert os.listdir(tmp_path) == ["old"]
    assert_same(old, binarize.load(tmp_path / "old", model=nets.Mlp()))


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    model = with_ballast(20_000_000)

    def save_again_and_again() -> None:
        while True:
            binarize.save(model, tmp_path / "net", force=True)
            shutil.rmtree(tmp_path / "net")

    child = forked(save_again_and_again)
    try:
        while not list(tmp_path.glob(".net.*.draft/model.safetensors")):
            time.sleep(0.001)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not (tmp_path / "net").exists()
    assert len(list(tmp_path.glob(".net.*.draft"))) == 1


def test_a_folder_of_format_1_is_read_whose_thresholds_had_no_width(
    converted: Converted, tmp_path: Path
) -> None:
    model = converted("ConvRelu", "reactnet")
    widths = [value for name, value in model.named_buffers() if name.endswith("input_binarizer.width")]
    for width in widths:
        width.fill_(1)
    folder = binarize.save(model, tmp_path / "net")
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.endswith(".width")}
    save_file(tensors, folder / "model.safetensors")
    record = json.loads((folder / "binarize.json").read_text())
    del record["absent"]
    example = record["source"].pop("example")
    record["source"] |= {"input_shapes": [item["tensor"] for item in example["args"]], "keyword_shapes": {}}
    record["format"] = 1
    record["fingerprint"]["tensors"] = tensor_digest(tensors)
    (folder / "binarize.json").write_text(json.dumps(record))
    assert widths
    assert_same(model, binarize.load(folder, model=nets.ConvRelu()))


def test_a_model_put_in_anothers_place_leaves_the_files_beside_it(
    converted: Converted, tmp_path: Path
) -> None:
    folder = binarize.save(converted("ConvRelu", "bnn"), tmp_path / "net")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    (folder / "notes" / "mine.txt").chmod(0o600)
    (folder / "nowhere").symlink_to("not-there")
    other = converted("ConvRelu", "adabin")
    replace_model(other, folder)
    assert_same(other, binarize.load(folder, model=nets.ConvRelu()))
    kept = folder / "notes" / "mine.txt"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("mine", 0o600)
    assert (folder / "nowhere").readlink() == Path("not-there")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    commands = read_report(folder).next_commands
    assert [shlex.split(command)[2] for command in commands] == [str(folder)] * 3

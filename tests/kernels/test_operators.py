"""The operators as torch sees them: schemas, shapes, export, compile, other inputs, wrong inputs."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.kernels import native, operators, reference
from binarize.kernels import variants as kernels
from binarize.kernels.bits import pack_bits, pack_words
from binarize.kernels.buffers.kept import _layouts
from binarize.kernels.geometry import Geometry

call = torch.ops.binarize
GEOMETRY = Geometry(40, 34, (3, 3), (2, 1), (1, 1, 1, 1))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """Two binary convolutions, the first one's signs going over as words."""

    def __init__(self) -> None:
        super().__init__()
        weight = randn(*GEOMETRY.weight_shape, seed=1)
        self.register_buffer("bits", pack_bits(weight < 0))
        self.register_buffer("second", pack_bits(randn(5, 34, seed=2) < 0))
        self.register_buffer("scale", randn(34, seed=3))
        self.register_buffer("shift", randn(34, seed=4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sizes = operators.sizes_of(GEOMETRY)
        y, words = call.conv_and_bits(x, self.bits, sizes, self.scale, self.shift, self.shift)
        return y, call.conv_dot(words, self.second, operators.sizes_of(Geometry(34, 5)))


def expected(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    y = reference.conv_affine(x, block.bits, GEOMETRY, block.scale, block.shift)
    return y, reference.dot(y < block.shift.view(1, -1, 1, 1), block.second, Geometry(34, 5))


def assert_both_equal(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def arguments(name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, sizes, block = randn(2, 40, 9, 7), operators.sizes_of(GEOMETRY), Block()
    head = (x, block.bits, sizes)
    limit, flip = torch.zeros(34, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    options = {"threshold": randn(40), "border": randn(2, 34), "activation": randn(4, 34)}
    return {
        "pack": ((x,), {"threshold": randn(40)}),
        "conv_dot": (head, {"zero_one": True}),
        "conv": ((*head, block.scale, block.shift), options),
        "conv_bits": ((*head, limit, flip), {}),
        "conv_and_bits": ((*head, block.scale, block.shift, block.shift), options),
        "conv_and_bits_": ((*head, block.scale, block.shift, block.shift, randn(2, 34, 5, 7)), options),
    }[name]


NAMES = ["pack", "conv_dot", "conv", "conv_bits", "conv_and_bits", "conv_and_bits_"]
CHECKS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["reference", ""])
def test_operator_passes_torchs_own_checks(name: str, variant: str, variants: object) -> None:
    positional, options = arguments(name)
    with kernels.use(variant):
        torch.library.opcheck(getattr(call, name).default, positional, options, test_utils=CHECKS)


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_result_over_the_residual_is_that_beside_it(last: bool, variants: object) -> None:
    positional, options = arguments("conv_and_bits")
    residual = randn(2, 34, 5, 7)
    if last:
        residual = residual.contiguous(memory_format=torch.channels_last)
    y, words = call.conv_and_bits(*positional, residual=residual, **options)
    assert torch.equal(call.conv_and_bits_(*positional, residual, **options), words)
    assert torch.equal(residual, y)


@pytest.mark.parametrize("given", ["positional", "named"])
def test_views_that_torch_negates_later_are_read_as_what_they_stand_for(given: str, variants: object) -> None:
    positional, options = arguments("conv_and_bits_")
    *head, residual = positional
    x, other = head[0], residual.clone()
    call = torch.ops.binarize.conv_and_bits_
    words = call(*head, residual, **options)
    view = torch._neg_view(-x)
    again = (
        call(view, *head[1:], other, **options)
        if given == "positional"
        else call(view, *head[1:], residual=other, **options)
    )
    assert torch.equal(words, again) and torch.equal(residual, other)
    with pytest.raises(UsageError, match="residual is written to"):
        call(*head, torch._neg_view(other), **options)


def test_parameters_written_to_or_replaced_are_seen(variants: object) -> None:
    block, x = Block(), randn(2, 40, 9, 7)
    for _ in range(2):
        assert_both_equal(block(x), expected(block, x))
    block.scale.neg_()
    assert_both_equal(block(x), expected(block, x))
    block.scale, block.shift = randn(34, seed=8), randn(2, 34, seed=9).t()[:, 0]
    assert_both_equal(block(x), expected(block, x))
    block.shift.mul_(2)
    assert_both_equal(block(x), expected(block, x))


def test_exported_program_calls_the_operators_and_keeps_the_canonical_bits(variants: object) -> None:
    block, x = Block(), randn(2, 40, 9, 7)
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(block, (x,), dynamic_shapes=dynamic)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in called if name.startswith("binarize")] == [
        "binarize.conv_and_bits.default",
        "binarize.conv_dot.default",
    ]
    assert program.state_dict["bits"].dtype == torch.uint8
    assert program.state_dict["bits"].numel() == 34 * 40 * 9 // 8
    for batch in (2, 5):
        x = randn(batch, 40, 9, 7, seed=batch)
        assert_both_equal(program.module()(x), expected(block, x))


def test_compiled_module_gives_the_same_bits(variants: object) -> None:
    block, x = Block(), randn(2, 40, 9, 7)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert_both_equal(compiled(x), expected(block, x))


def test_result_has_channels_last_in_memory_whatever_comes_in(variants: object) -> None:
    block, x = Block(), randn(2, 40, 9, 7)
    for form in (
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        y, dots = block(form)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert_both_equal((y, dots), expected(block, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_compared_in_their_own_precision(dtype: torch.dtype, variants: object) -> None:
    x = randn(1, 40, 3, 3).to(dtype)
    x[0, 0, 0, 0] = -1e-300  # not below 0 in anything but float64
    assert torch.equal(call.pack(x), pack_words((x < 0).permute(0, 2, 3, 1)))
    dots = call.conv_dot(x, pack_bits(randn(5, 40) < 0), operators.sizes_of(Geometry(40, 5)))
    assert torch.equal(dots, reference.dot(x < 0, pack_bits(randn(5, 40) < 0), Geometry(40, 5)))


def test_empty_batch_gives_an_empty_result(variants: object) -> None:
    y, dots = Block()(torch.zeros(0, 40, 9, 7))
    assert y.shape == (0, 34, 5, 7) and dots.shape == (0, 5, 5, 7)


def test_linear_is_a_matrix_product_of_signs(variants: object) -> None:
    x, w, scale, shift = randn(3, 4, 100), randn(70, 100, seed=1), randn(70, seed=2), randn(70, seed=3)
    sign = torch.where(x < 0, -1.0, 1.0), torch.where(w < 0, -1.0, 1.0)
    got = operators.linear(x, pack_bits(w < 0), scale, shift)
    assert torch.equal(got, scale * (sign[0] @ sign[1].T) + shift)


def test_layout_is_made_once_and_again_after_the_bits_change(variants: tuple[kernels.Variant, ...]) -> None:
    block, x = Block(), randn(1, 40, 9, 7)
    first = native.kernel_weight(block.bits, GEOMETRY, variants[0])
    assert native.kernel_weight(block.bits, GEOMETRY, variants[0]) is first
    block.bits.copy_(pack_bits(randn(*GEOMETRY.weight_shape, seed=9) < 0))
    assert native.kernel_weight(block.bits, GEOMETRY, variants[0]) is not first
    assert_both_equal(block(x), expected(block, x))
    known = len(_layouts)
    del block, first
    gc.collect()
    assert len(_layouts) < known


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"x": torch.zeros(2, 41, 9, 7)},
            r"input is torch.float32 \(2, 41, 9, 7\).*expected \(N, 40, H, W\)",
        ),
        ({"x": torch.zeros(2, 9, 7, 3, dtype=torch.int32)}, r"expected \(N, H, W, 2\)"),
        ({"scale": torch.zeros(33)}, r"scale is torch.float32 \(33,\).*expected torch.float32 \(34,\)"),
        ({"shift": torch.zeros(34, dtype=torch.float64)}, r"shift is torch.float64"),
        ({"residual": torch.zeros(2, 34, 9, 7)}, r"residual .*expected torch.float32 \(2, 34, 5, 7\)"),
        ({"threshold": torch.zeros(39)}, r"threshold .*expected torch.float32 \(40,\)"),
        ({"bits": torch.zeros(34, 44, dtype=torch.uint8)}, r"needs torch.uint8 \(34, 45\)"),
    ],
)
def test_what_the_kernels_would_misread_is_refused(
    change: dict[str, Tensor], message: str, variants: object
) -> None:
    block = Block()
    given = {
        "x": randn(2, 40, 9, 7),
        "bits": block.bits,
        "sizes": operators.sizes_of(GEOMETRY),
        "scale": block.scale,
    }
    with pytest.raises(Exception, match=message) as caught:
        call.conv(**{**given, "shift": block.shift, **change})
    assert type(caught.value).__module__ == UsageError.__module__


def test_without_the_extension_one_warning_and_the_same_bits() -> None:
    program = """
import sys, warnings
sys.modules["binarize.kernels._native"] = None
import torch
from binarize.packed import ops
from binarize.kernels.bits import pack_bits
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        y = ops.linear(torch.tensor([[1.0, -1.0, 1.0]]), pack_bits(torch.tensor([[False, True, True]])),
                       torch.ones(1), torch.zeros(1))
assert y.item() == 1, y
assert [str(w.message)[:32] for w in caught] == ["the native kernels are not built"], caught
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_conversion_and_training_do_not_miss_the_extension() -> None:
    program = """
import sys, warnings
sys.modules["binarize.kernels._native"] = None
warnings.simplefilter("error")
import torch
import binarize
layers = [torch.nn.Conv2d(16, 16, 3) for _ in range(3)]
converted = binarize.convert(torch.nn.Sequential(*layers), "bnn", example_input=torch.rand(1, 16, 8, 8))
converted(torch.rand(1, 16, 8, 8)).sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_variable_forces_the_reference_and_a_wrong_one_is_named() -> None:
    program = "from binarize.kernels import variants as kernels; print(kernels.active())"
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    run = lambda name: subprocess.run(  # noqa: E731
        [sys.executable, "-c", program],
        env={**environment, "BINARIZE_KERNELS": name},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run("reference").stdout == "None\n"
    assert "kernels 'avx3': this machine has" in run("avx3").stderr

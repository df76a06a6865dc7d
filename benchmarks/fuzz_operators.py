"""Arguments of every operator drawn far outside of what is meant: each call gives a tensor or an error of ours.

    python benchmarks/fuzz_operators.py                         50,000 calls
    python benchmarks/fuzz_operators.py --calls 3000 --first 7  one part of them again

Calls run in child processes, `CHUNK` of them each, derandomized: a chunk's number draws the same calls again. A child
says which call it begins, so that the call is known when a signal ends the child; the next call then begins a new one.
Counts outcomes by exception and by signal; ends with 1 where there was a signal or an exception that is not ours.
Under a sanitizer the same program runs with the extension of `make sanitize`.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import time
from typing import Any

CHUNK = 2500
# Errors that are answers: ours, those of torch's own schema of the operators, and of its allocator.
ANSWERS = ("UsageError", "CheckError", "result", "schema", "allocator", "memory")


def draw_call(draw: Any) -> tuple[str, dict[str, Any]]:
    """An operator's name and its arguments; about half of them as they should be."""
    from hypothesis import strategies as st

    name = draw(
        st.sampled_from(
            ["pack", "conv_dot", "conv", "conv_bits", "conv_and_bits", "conv_and_bits_", "float_conv"]
        )
    )
    arguments = FLOAT if name == "float_conv" else PACK if name == "pack" else LAYER
    return name, arguments(draw, name)


def number(draw: Any, usual: int) -> int:
    from hypothesis import strategies as st

    odd = st.sampled_from([-(2**62), -1, 0, 1, 2, 5, 4096, 2**24, 2**30 - 1, 2**31 - 1, 2**31, 2**32, 2**62])
    return draw(odd) if draw(st.integers(0, 39)) == 0 else usual


def tensor(draw: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A tensor of this shape and type, or in one of many ways another one."""
    import torch
    from hypothesis import strategies as st

    way = draw(st.integers(0, 99))
    if way == 1:
        shape = tuple(draw(st.integers(0, 9)) for _ in shape)
    if way == 2:
        shape = (*shape, 1) if draw(st.booleans()) else shape[1:]
    if way == 3:
        dtype = draw(
            st.sampled_from(
                [torch.int8, torch.float16, torch.float64, torch.bool, torch.int64, torch.complex64]
            )
        )
    if way == 4:
        return torch.empty(shape, dtype=dtype, device="meta")
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    numbers = torch.randint(-3, 4, shape, generator=generator)
    made = numbers.to(dtype) if dtype != torch.float32 else torch.randn(shape, generator=generator)
    if way == 5 and made.dim():
        return made[:1].expand(made.shape) if len(made) else made
    if way == 6 and made.dim() > 1:
        return made.transpose(-1, -2).contiguous().transpose(-1, -2)
    if way == 7:
        made = made.clone()
        storage = made.untyped_storage()
        storage.resize_(draw(st.integers(0, storage.nbytes())))
    if way == 8 and made.dtype == torch.float32:
        return made.to_sparse()
    if way == 9 and made.dtype == torch.float32:
        return torch.quantize_per_tensor(made, 0.1, 0, torch.quint8)
    if way == 10 and made.is_floating_point():
        return torch._neg_view(made)
    if way == 11 and made.dtype == torch.float32:
        raw = bytearray(b"\0" + made.numpy().tobytes())
        return torch.frombuffer(raw, dtype=torch.float32, offset=1).view(shape) if made.numel() else made
    if way == 12:
        with torch.inference_mode():
            return made.clone()
    if way == 13 and made.dim() == 4:
        return made.to(memory_format=torch.channels_last)
    return made


def zeroed(bits: Any) -> Any:
    """A tensor of zeros in the same place of a drawing; what torch itself cannot clamp stays as it is."""
    import torch

    if bits.is_complex():
        return bits
    # Where the memory is too short torch writes past its end.
    short = (
        not bits.is_meta and bits.layout == torch.strided and bits.untyped_storage().nbytes() < bits.nbytes
    )
    return bits if short else bits.clamp(0, 0)


def _may_turn(tensor: Any) -> bool:
    """Whether torch can lay a tensor out with channels last: one that is dense, and whole in memory."""
    import torch

    if tensor.layout != torch.strided or tensor.dim() != 4 or tensor.is_quantized or tensor.is_meta:
        return False
    return bool(tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize)


def image(draw: Any, channels: int) -> tuple[int, int, int, int]:
    from hypothesis import strategies as st

    return draw(st.integers(0, 2)), channels, draw(st.integers(1, 6)), draw(st.integers(1, 6))


def PACK(draw: Any, name: str) -> dict[str, Any]:
    import torch
    from hypothesis import strategies as st

    shape = image(draw, draw(st.integers(1, 70)))
    given = {"x": tensor(draw, shape, torch.float32)}
    if draw(st.booleans()):
        given["threshold"] = tensor(draw, (shape[1],), torch.float32)
    return given


def LAYER(draw: Any, name: str) -> dict[str, Any]:
    import torch
    from hypothesis import strategies as st

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, n = groups * draw(st.integers(1, 40)), groups * draw(st.integers(1, 40))
    usual = [*draw(st.tuples(*[st.integers(1, 3)] * 4)), *draw(st.tuples(*[st.integers(0, 3)] * 4)), 1, 1]
    sizes = [number(draw, one) for one in (c, *usual, groups, draw(st.integers(-1, 1)))]
    batch, _, height, width = shape = image(draw, c)
    kh, kw, sh, sw, top, bottom, left, right, *_ = usual
    high, wide = max(height + top + bottom - kh, 0) // sh + 1, max(width + left + right - kw, 0) // sw + 1
    planes = draw(st.sampled_from([1, 1, 1, 2, 9]))
    packed = draw(st.integers(0, 3)) == 0
    words = (batch, height, width, -(-c // 32))
    given: dict[str, Any] = {
        "x": tensor(draw, words, torch.int32) if packed else tensor(draw, shape, torch.float32),
        "bits": zeroed(tensor(draw, (n, -(-c // groups * kh * kw // 8)), torch.uint8))
        if draw(st.booleans())
        else torch.zeros((n, -(-(c // groups) * kh * kw // 8)), dtype=torch.uint8),
        "sizes": sizes,
        "zero_one": draw(st.booleans()),
    }
    if not packed or draw(st.integers(0, 9)) == 0:
        given["threshold"] = tensor(draw, (planes, c) if planes > 1 else (c,), torch.float32)
    needed = {"conv_dot": {}, "conv_bits": {"limit": (n,), "flip": (-(-n // 32),)}}.get(
        name, {"scale": (planes, n) if planes > 1 else (n,), "shift": (n,)}
    )
    if name.startswith("conv_and"):
        needed["next_threshold"] = (n,)
    if name == "conv_and_bits_" or ("scale" in needed and draw(st.booleans())):
        needed["residual"] = (batch, n, high, wide)
    if "scale" in needed:
        more = {"window_scale": (n,), "border": (2, n), "activation": (4, n)}
        needed |= {key: one for key, one in more.items() if draw(st.integers(0, 2)) == 0}
        given["activation_first"] = draw(st.booleans())
    for key, one in needed.items():
        given[key] = tensor(draw, one, torch.int32 if key in ("limit", "flip") else torch.float32)
    if name == "conv_and_bits_" and draw(st.booleans()) and _may_turn(given["residual"]):
        given["residual"] = given["residual"].to(memory_format=torch.channels_last)
        if draw(st.integers(0, 3)) == 0:
            given["x"] = given["residual"]
    return given


def FLOAT(draw: Any, name: str) -> dict[str, Any]:
    import torch
    from hypothesis import strategies as st

    shape = image(draw, draw(st.integers(1, 9)))
    n, kh, kw = draw(st.integers(1, 70)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pairs = {"stride": (1, 5), "padding": (0, 4)}
    given: dict[str, Any] = {
        "x": tensor(draw, shape, torch.float32),
        "weight": tensor(draw, (n, shape[1], kh, kw), torch.float32),
        "bias": tensor(draw, (n,), torch.float32),
        **{key: [number(draw, draw(st.integers(*ends))) for _ in range(2)] for key, ends in pairs.items()},
        "relu": draw(st.booleans()),
    }
    if draw(st.booleans()):
        given["pool"] = [number(draw, draw(st.integers(low, 4))) for low in (1, 1, 0)][
            : draw(st.sampled_from([3, 3, 3, 2]))
        ]
    if draw(st.integers(0, 2)) == 0:
        given["activation"] = tensor(draw, (4, n), torch.float32)
    return given


def outcome_of(name: str, given: dict[str, Any]) -> str:
    """What a call ends with: a result, an error of ours, or the name of another one."""
    import torch

    from binarize.errors import BinarizeError

    try:
        results = getattr(torch.ops.binarize, name)(**given)
    except BinarizeError as error:
        return type(error).__name__
    except MemoryError:
        return "memory"
    except RuntimeError as error:
        text = str(error)
        if "DefaultCPUAllocator" in text or "Storage size calculation overflowed" in text:
            return "allocator"
        if "Inplace update to inference tensor" in text or "value cannot be converted" in text:
            return "schema"
        return f"RuntimeError: {text[:90]}"
    except Exception as error:  # every other one is a finding, and told by its name
        return f"{type(error).__name__}: {str(error)[:90]}"
    for result in results if isinstance(results, tuple) else (results,):
        if not result.is_meta:
            result.contiguous().view(-1)[:1].tolist()
    return "result"


def run_chunk(chunk: int, skip: int) -> None:
    """Makes the calls of a chunk, from one on; prints each one's number before it and its outcome behind it."""
    import torch
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    import binarize.kernels.operators
    import binarize.packed.fused.float_conv  # noqa: F401

    torch.set_num_threads(1 + chunk % 2)
    made = 0

    @seed(chunk)
    @settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.composite(draw_call)())
    def each(drawn: tuple[str, dict[str, Any]]) -> None:
        nonlocal made
        made += 1
        if made <= skip or made > CHUNK:
            return
        print(f"> {made} {drawn[0]} {told(drawn[1])}", flush=True)
        print(f"< {outcome_of(*drawn)}", flush=True)

    each()


def told(given: dict[str, Any]) -> str:
    def one(value: Any) -> str:
        kind = type(value).__name__
        return (
            f"{value.dtype}{tuple(value.shape)}/{value.layout}@{value.device}"
            if kind == "Tensor"
            else repr(value)
        )

    return " ".join(f"{key}={one(value)}" for key, value in given.items()).replace("torch.", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first chunk")
    parser.add_argument("--chunk", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chunk is not None:
        run_chunk(options.chunk, options.skip)
        return 0
    counts: collections.Counter[str] = collections.Counter()
    samples, start, done, chunk = {}, time.time(), 0, options.first
    while done < options.calls:
        skip = 0
        while True:  # a signal ends a child; the next one goes on behind that call
            command = [sys.executable, __file__, "--chunk", str(chunk), "--skip", str(skip)]
            child = subprocess.run(command, capture_output=True, text=True, env=os.environ)
            lines = child.stdout.splitlines()
            calls = [line for line in lines if line.startswith("> ")]
            for call, line in zip(calls, (line[2:] for line in lines if line.startswith("< "))):
                counts[line] += 1
                samples.setdefault(line, f"chunk {chunk}, call {call[2:]}")
            done += len(calls)
            if child.returncode == 0:
                break
            name = (
                signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit {child.returncode}"
            )
            counts[name] += 1
            samples.setdefault(
                name, f"chunk {chunk}: {calls[-1] if calls else child.stderr[-800:]}\n{child.stderr[-2000:]}"
            )
            print(f"{name} at {samples[name]}", flush=True)
            if not calls:
                return 1
            skip = int(calls[-1].split()[1])
        chunk += 1
        print(f"{done} calls, {time.time() - start:.0f} s: {dict(counts.most_common())}", flush=True)
    findings = [name for name in counts if name not in ANSWERS]
    for name in findings:
        print(f"{counts[name]} times {name}\n    {samples[name]}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

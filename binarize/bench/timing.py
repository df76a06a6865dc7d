"""Functions timed in turns, and the memory they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch

from binarize.bench.rivals import Run

__all__ = ["interleaved", "peak_bytes"]


# Seconds that one sample takes at least: what is faster runs several times.
_SAMPLE = 0.002


def interleaved(
    runs: Mapping[str, Run], rounds: int, threads: int = 1, seconds: float = 60.0
) -> dict[str, float]:
    """Median seconds of each, all of them in turn; fewer rounds, but three, where they would take longer."""
    clock = time.process_time if threads == 1 else time.perf_counter
    repeats: dict[str, int] = {}
    for name, run in runs.items():
        run()
        start = clock()
        run()
        repeats[name] = max(1, int(_SAMPLE / max(clock() - start, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for number in range(rounds):
        if number >= 3 and time.perf_counter() > end:
            break
        for name, run in runs.items():
            # Not counted: after wide multiplications the clock stays low for a while, whoever comes next.
            for _ in range(repeats[name] // 2):
                run()
            start = clock()
            for _ in range(repeats[name]):
                run()
            samples[name].append((clock() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in samples.items()}


def peak_bytes(run: Run) -> int:
    """The most bytes that torch's allocator had given out at any moment of a run, beyond those before it."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    recorded = profile.kineto_results
    events = [] if recorded is None else [e for e in recorded.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak

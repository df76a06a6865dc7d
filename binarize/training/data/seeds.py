"""Random numbers that depend on what they are for, and not on what was drawn before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generator", "seed_all", "seed_of", "seeded"]


def seed_of(*numbers: int) -> int:
    """One seed (63 bits) for several numbers: a run's seed, an epoch, an image."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*numbers: int) -> torch.Generator:
    """A torch generator with that seed."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def seed_all(*numbers: int) -> None:
    """Seed the generators of Python, numpy and torch (all devices)."""
    seed = seed_of(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    # torch.manual_seed seeds every kind of device; for those not initialized yet it keeps the call, with its stack.
    if torch.accelerator.is_available():
        torch.manual_seed(seed)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Inside, the generators of Python, numpy and torch (CPU) have that seed; afterwards they go on as before."""
    seed = seed_of(*numbers)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

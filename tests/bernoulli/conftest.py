"""Test vectors of networks with random signs, computed in float64 without torch, to 12 digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "data" / "bernoulli_vectors.json"
    return json.loads(path.read_text(encoding="utf-8"))

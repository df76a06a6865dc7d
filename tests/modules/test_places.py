"""A module put at each place where another one stands."""

from __future__ import annotations

from torch import nn

from binarize.modules.places import set_everywhere


def test_every_path_of_a_shared_module_gets_the_new_one_and_no_other_does() -> None:
    shared, alike = nn.ReLU(), nn.ReLU()
    inner = nn.Sequential(shared, alike)
    root = nn.ModuleDict({"a": inner, "b": shared, "c": inner})
    new = nn.Tanh()
    assert set_everywhere(root, "a.0", new) == ["a.0", "b", "c.0"]
    assert root["a"][0] is root["b"] is root["c"][0] is new
    assert root["a"][1] is alike

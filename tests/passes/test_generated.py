"""A module with another forward is still the same object, and can be copied, pickled and looked at."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import traceback
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.capture import graph_model, trace_container
from binarize.capture.methods import hold_methods
from binarize.errors import CheckError, SourceError
from binarize.passes import generated
from binarize.passes.generated import forward_source, give_forward, is_generated, source_hash
from binarize.passes.rewrite import _generate
from binarize.sources import load


class Counted(nn.Module):
    """Has state of its own, a property and a method beside forward."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.label = "mine"

    @property
    def size(self) -> int:
        return self.fc.in_features

    def double(self, x: Tensor) -> Tensor:
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        return self.double(self.fc(x))


def given(module: nn.Module) -> nn.Module:
    give_forward(module, trace_container(module, {}))
    return module


def test_object_class_attributes_and_methods_stay() -> None:
    module = Counted()
    hook = module.register_forward_hook(lambda *_: None)
    before = (id(module), module.fc, list(module.state_dict()))
    given(module)
    assert (id(module), module.fc, list(module.state_dict())) == before
    assert isinstance(module, Counted)
    assert type(module).__name__ == "Counted" and type(module).__qualname__ == Counted.__qualname__
    assert (module.size, module.label) == (2, "mine")
    assert torch.equal(module.double(torch.ones(1)), torch.full((1,), 2.0))
    assert hook.id in module._forward_hooks
    assert repr(module) == repr(Counted()).replace("Counted", type(module).__name__)


def test_a_sequential_can_still_be_indexed_and_measured() -> None:
    module = given(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)))
    assert isinstance(module, nn.Sequential)
    assert len(module) == 3 and module[2].out_features == 4
    assert [type(child).__name__ for child in module] == ["Linear", "ReLU", "Linear"]


def test_equal_sources_of_one_class_share_one_class_and_others_do_not() -> None:
    first, second = given(Counted()), given(Counted())
    assert type(first) is type(second)
    other = Counted()
    graph = trace_container(other, {})
    next(node for node in graph.nodes if node.op == "call_function").args = (*list(graph.nodes)[1:2], 3)
    give_forward(other, graph)
    assert type(other) is not type(first)
    x = torch.ones(1, 2)
    assert torch.equal(other(x), other.fc(x) * 3)


def test_copies_and_pickles_compute_the_same_and_share_nothing() -> None:
    module = given(Counted())
    x = torch.randn(3, 2)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)]
    for other in copies:
        assert type(other) is type(module) and other.label == "mine"
        assert torch.equal(other(x), module(x))
        assert other.fc.weight.data_ptr() != module.fc.weight.data_ptr()


def test_a_pickle_names_only_the_class_its_source_and_torch() -> None:
    text = pickle.dumps(given(Counted()), protocol=0)
    assert b"torch.fx" not in text and b"torch\x00fx" not in text


def test_source_and_its_hash_tell_forwards_apart() -> None:
    module = Counted()
    assert not is_generated(module)
    source = give_forward(module, trace_container(module, {}))
    assert is_generated(module) and forward_source(module) == source
    assert source.lstrip().startswith("def forward(self, x")
    assert source_hash(source) == source_hash(forward_source(given(Counted())))
    assert source_hash(source) != source_hash(source + " ")


def test_an_error_in_the_new_forward_shows_its_line() -> None:
    module = given(Counted())
    try:
        module(torch.ones(1, 7))
    except RuntimeError as error:
        text = "".join(traceback.format_exception(error))
    assert "fc = self.fc(x)" in text and "Counted rewritten by binarize" in text


def test_keyword_arguments_and_defaults_are_those_of_the_class() -> None:
    model = nets.Keywords()
    graph = trace_container(model, {"mask": None})
    give_forward(model, graph)
    keywords = model.keywords(2)
    torch.testing.assert_close(model(**keywords), nets.Keywords.forward(model, **keywords), rtol=0, atol=0)


def test_training_flags_are_read_live_after_a_copy() -> None:
    model = given(nets.FunctionalDropout())
    x = nets.pictures(2)
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same.eval()(x), same(x))
        torch.manual_seed(0)
        first = same.train()(x)
        assert not torch.equal(first, same(x))


class Calls:
    """Pickled as a call of a function of ours that makes code from text."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("inside", [lambda one: one, lambda one: {"weight": torch.ones(1), "model": one}])
@pytest.mark.parametrize("which", ["class", "graph"])
def test_no_file_that_is_loaded_safely_reaches_what_runs_a_source(
    which: str, inside: Any, tmp_path: Path
) -> None:
    source = f"open({str(tmp_path / 'ran')!r}, 'w')"
    call = (
        Calls(generated._rebuild, nn.Module, source, {})
        if which == "class"
        else Calls(graph_model._rebuild_graph, graph_model.GraphModel, "x", {}, source, {})
    )
    torch.save(inside(call), tmp_path / "net.pt")
    with pytest.raises(SourceError):
        load(str(tmp_path / "net.pt"))
    assert not (tmp_path / "ran").exists()


def test_the_hash_of_the_printing_of_older_versions_is_still_taken() -> None:
    def given_by(digest: str) -> dict[str, str]:
        module = Counted()
        graph = trace_container(module, {})
        hold_methods(graph)
        return _generate(module, {"": graph}, {"": digest})

    printed = trace_container(Counted(), {}).python_code("self").src
    (now,) = given_by(hashlib.sha256(printed.encode()).hexdigest()).values()
    assert given_by(now) == {"": now} == {"": source_hash(forward_source(given(Counted())))}
    with pytest.raises(CheckError, match="differs from the saved one"):
        given_by("0" * 64)

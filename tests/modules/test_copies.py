"""The copy that is run and traced in the model's place, and the hooks that must not notice."""

from __future__ import annotations

import threading
from typing import Any

import nets
import torch
from torch import Tensor, nn

from binarize.modules.copies import copy_model, shadow
from binarize.modules.hooks import HOOK_TABLES, silenced_hooks


def test_shadow_holds_no_data_but_every_shape_name_and_flag() -> None:
    model = nets.BasicBlocks()
    model.stem.requires_grad_(False)
    model.blocks[0].eval()
    copy = shadow(model)
    for (name, tensor), (its_name, its) in zip(model.state_dict().items(), copy.state_dict().items()):
        assert its.is_meta
        assert (name, tensor.shape, tensor.dtype) == (its_name, its.shape, its.dtype)
    assert [p.requires_grad for p in copy.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [m.training for m in copy.modules()] == [m.training for m in model.modules()]
    assert [type(m) for m in copy.modules()] == [type(m) for m in model.modules()]


def test_shadow_on_the_device_shares_no_memory() -> None:
    model = nets.BasicBlocks()
    copy = shadow(model, meta=False)
    for mine, its in zip(model.state_dict().values(), copy.state_dict().values()):
        assert torch.equal(mine, its)
        assert mine.data_ptr() != its.data_ptr()


def test_tied_parameters_stay_tied() -> None:
    copy = shadow(nets.Tied())
    assert copy.conv1.weight is copy.conv2.weight


def test_hooks_are_left_out_even_those_that_cannot_be_copied() -> None:
    model = nets.BasicBlocks()
    lock = threading.Lock()
    model.blocks.register_forward_hook(lambda *_: lock.acquire())
    model.stem.register_forward_pre_hook(lock.__enter__)
    assert not any(getattr(module, name) for module in shadow(model).modules() for name in HOOK_TABLES)
    assert model.blocks._forward_hooks


def test_hooks_that_compute_a_weight_stay() -> None:
    model = nets.Parametrized()
    copy = shadow(model, meta=False).eval()
    assert len(copy.conv3._forward_pre_hooks) == 1
    assert torch.equal(copy(nets.pictures(2)), model.eval()(nets.pictures(2)))


def test_hooks_by_which_a_model_hands_its_values_on_stay() -> None:
    """As transformers installs them in the first forward pass, and then marks the model as having them."""
    model = nn.Sequential(nn.ReLU())
    heard: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        heard.append(output)

    hook.__module__ = "transformers.utils.output_capturing"
    model[0].register_forward_hook(hook)
    with silenced_hooks(model):
        model(torch.zeros(1))
    shadow(model)(torch.zeros(1, device="meta"))
    assert len(heard) == 2


def test_silenced_hooks_do_not_fire_and_come_back_in_order() -> None:
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    fired: list[str] = []
    handles = [model[i].register_forward_hook(lambda *_, i=i: fired.append(f"{i}")) for i in (0, 1, 0)]
    with silenced_hooks(model):
        model(torch.zeros(1))
        model[0].register_forward_hook(lambda *_: fired.append("new"))
        model(torch.zeros(1))
    assert fired == ["new"]
    fired.clear()
    model(torch.zeros(1))
    assert fired == ["0", "0", "new", "1"]
    for handle in handles:
        handle.remove()
    fired.clear()
    model(torch.zeros(1))
    assert fired == ["new"]


class _Arguments(dict[str, Any]):
    """A dictionary whose items are attributes, as many training scripts keep their arguments."""

    __getattr__ = dict.__getitem__


class _Locked(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 2))
        self.arguments, self.lock = _Arguments(scale=[2]), threading.Lock()


def test_what_cannot_be_copied_is_made_anew_or_shared() -> None:
    model = _Locked()
    for copy in (shadow(model), copy_model(model)):
        assert copy.arguments.scale == [2] and copy.arguments.scale is not model.arguments.scale
        assert type(copy.arguments) is _Arguments
        assert copy.lock is model.lock
        assert copy[0].weight is not model[0].weight

"""Nets of the kinds that small devices run: each has a C file with the packed model's bits, in little memory."""

from __future__ import annotations

import re

import pytest
import torch
from small_nets import NETS, inputs_of
from torch import nn

import binarize
from binarize.exporters.c.check import run_samples
from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.write import translate
from binarize.exporters.program import answers
from binarize.packed.freeze import pack_layers


def packed(name: str) -> nn.Module:
    torch.manual_seed(0)
    example = inputs_of(name, 2)
    given = example if len(example) > 1 else example[0]
    model = binarize.convert(NETS[name][1]().eval(), "bireal", example_input=given, calibrate=False)
    return pack_layers(binarize.freeze(model, (example, {})))


@pytest.mark.parametrize("name", NETS)
def test_the_c_file_computes_the_packed_models_bits_in_little_memory(name: str, compiler: str) -> None:
    model = packed(name)
    samples = [inputs_of(name, 1) for _ in range(2)]
    with torch.no_grad(), in_order():
        expected = [[y.float().flatten() for y in answers(model, (sample, {}))] for sample in samples]
    source, _ = translate(model, (samples[0], {}), "net")
    found = run_samples(source, samples, compiler, ("-Werror", "-O0"))
    for ours, theirs in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert source.ram_bytes <= 1.1 * source.ram_in_use
    body = source.text[source.text.rindex("net_run") :]
    assert len(re.findall("^    binary", body, re.M)) >= 1


def test_arguments_and_results_are_named_as_the_model_names_them() -> None:
    source, _ = translate(packed("two inputs"), (inputs_of("two inputs", 1), {}), "net")
    given = "const float *input_inputs_0, const float *input_inputs_1, float *output_class, float *output_sum"
    assert f"void net_run({given});" in source.text
    assert '   output_class  float[1][3], 3 numbers, "class" of the network' in source.text
    assert "#define NET_OUTPUT_SUM_SIZE 1" in source.text


def test_whole_numbers_are_taken_as_such() -> None:
    source, _ = translate(packed("words"), (inputs_of("words", 1), {}), "net")
    assert "void net_run(const int32_t *input, float *output);" in source.text

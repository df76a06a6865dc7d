"""Naive Bernoulli networks: the tables of gradients and layers, and what their steps cost.

    python benchmarks/bernoulli.py tables              1: steps until a random matrix is found, by gradient;
                                                       2: steps a second;
                                                       5: correlation of the soft and the hardened network, by layer
    python benchmarks/bernoulli.py ratios              forward and backward of a layer, against a float layer's
    python benchmarks/bernoulli.py tables --quick      the same on smaller numbers

Table 1: inputs are random ±1, targets the signs of their sums by a random ±1 matrix, and a layer is trained from a drawn
start until it gives 99 in 100 of them by its likelier side. Table 5 is of a small network on the bundled digits. Times are
processor times of one thread, the least of five.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.bernoulli.comparison import layer_correlations
from binarize.bernoulli.layers import BernoulliLinear
from binarize.bernoulli.probability import sign_probability
from binarize.demo.digits import load_digits

GRADIENTS = ("exact", "central3", "central5", "thomas", "clt", "edge4")
RATIOS = ("clt", "edge4", "exact")
MOST_STEPS = 400


def steps_until_found(gradient: str, seed: int, terms: int, outputs: int = 32) -> tuple[int, float]:
    """(steps until 99 of 100 signs are right, steps a second)."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(outputs, terms, generator=generator).sign()
    torch.manual_seed(seed)
    layer = BernoulliLinear(terms, outputs, forward="exact", gradient=gradient)
    optimizer = torch.optim.Adam([layer.weight], lr=0.1)
    begun = time.process_time()
    step = 0
    while step < MOST_STEPS:
        step += 1
        x = torch.randn(100, terms, generator=generator).sign()
        wanted = F.linear(x, matrix) >= 0
        p = (1 + layer(x)) / 2
        loss = F.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), wanted.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if ((p > 0.5) == wanted).float().mean() >= 0.99:
            break
    return step, step / (time.process_time() - begun)


def print_gradients(terms: int, seeds: int) -> None:
    """Tables 1 and 2."""
    print(
        f"gradient    steps, {seeds} seeds        steps a second    ({terms} terms, 32 outputs, batches of 100)"
    )
    for gradient in GRADIENTS:
        found = [steps_until_found(gradient, seed, terms) for seed in range(seeds)]
        steps = [step for step, _ in found]
        spread = f" +- {statistics.stdev(steps):.1f}" if seeds > 1 else ""
        text = f"{statistics.mean(steps):.1f}{spread}" + (" (not found)" if max(steps) == MOST_STEPS else "")
        print(f"{gradient:10}  {text:22}  {statistics.mean(rate for _, rate in found):8.2f}", flush=True)


def print_correlations(epochs: int) -> None:
    """Table 5."""
    digits = load_digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    images = digits.train_images
    model = binarize.convert(net, "naive-bernoulli", example_input=images[:128], calibrate=[images[:128]])
    binarize.finetune(model, "digits", epochs=epochs, teacher="none")
    hard = binarize.harden(copy.deepcopy(model))
    found = layer_correlations(model, hard, digits.held_out_images)
    scores = [binarize.evaluate(one, "digits").model.top1 for one in (model, hard)]
    print(
        "correlation of soft and hard, by layer: " + "  ".join(f"{name} {r:.2f}" for name, r in found.items())
    )
    print(f"top-1 on 359 held-out digits: {scores[0]:.1%} soft, {scores[1]:.1%} hard")


def least(run: Callable[[], object], times: int = 5) -> float:
    """The least processor time of some runs."""
    run()
    found = []
    for _ in range(times):
        begun = time.process_time()
        run()
        found.append(time.process_time() - begun)
    return min(found)


def print_ratios(sizes: tuple[tuple[int, int, int], ...]) -> None:
    """Forward and backward of a layer against those of a float one; and of whole mass functions with central3."""
    print(
        "terms  outputs  batch  float us/output  " + "  ".join(f"{way:>8}" for way in (*RATIOS, "central3"))
    )
    for terms, outputs, batch in sizes:
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(batch, terms, generator=generator) * 2 - 1).requires_grad_()
        theta = torch.tanh(torch.randn(outputs, terms, generator=generator) * 0.75).requires_grad_()
        g = torch.randn(batch, outputs, generator=generator)

        def run(function: Callable[[Tensor, Tensor], Tensor]) -> None:
            torch.autograd.grad(function(x, theta), (x, theta), g)  # noqa: B023

        plain = least(lambda: run(F.linear), 20)
        ratios = [least(lambda: run(lambda a, b: sign_probability(a, b, forward=way)), 2) for way in RATIOS]  # noqa: B023
        ratios.append(least(lambda: run(lambda a, b: sign_probability(a, b, None, "exact", "central3")), 1))
        shown = "  ".join(f"{ratio / plain:7.1f}x" for ratio in ratios)
        print(
            f"{terms:5}  {outputs:7}  {batch:5}  {1e6 * plain / batch / outputs:15.4f}  {shown}", flush=True
        )


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tables", "ratios"))
    parser.add_argument("--quick", action="store_true")
    quick, what = parser.parse_args().quick, parser.parse_args().what
    torch.set_num_threads(1)
    if what == "ratios":
        print_ratios(
            ((16, 16, 64), (256, 32, 16)) if quick else ((16, 16, 512), (256, 32, 128), (1152, 64, 32))
        )
        return
    print_gradients(terms=16 if quick else 64, seeds=1 if quick else 3)
    print_correlations(epochs=2 if quick else 10)


if __name__ == "__main__":
    main()

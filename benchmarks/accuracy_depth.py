"""What shortcuts bring, by depth: the rows depth-* of benchmarks/accuracy.py as a table and as a curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["depth_table", "draw_depth", "spread"]

NETWORKS: Mapping[str, str] = {
    "plain6": "6",
    "plain10": "10",
    "plain16": "16",
    "plain24": "24",
    "vgg11": "VGG-11",
}
# (scheme, ReLU) -> network -> shortcuts -> top-1 in per cent by seed.
Found = dict[tuple[str, str], dict[str, dict[str, dict[int, float]]]]


def depth_table(results: Iterable[Mapping[str, Any]]) -> str:
    """A row a network: the float network, without and with shortcuts, and the gain of the same seeds."""
    stored = list(results)
    lines = [
        "| convolutions | scheme | ReLU | float | without | with shortcuts | gain | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    floats: dict[str, dict[int, float]] = {}
    for one in _rows(stored):
        floats.setdefault(one["name"].split("-")[1], {})[one["seed"]] = 100 * one["float"]
    for (scheme, relu), by_network in sorted(_found(stored).items()):
        for network, words in NETWORKS.items():
            modes = by_network.get(network, {})
            both = sorted(modes.get("never", {}).keys() & modes.get("missing", {}).keys())
            gains = [modes["missing"][seed] - modes["never"][seed] for seed in both]
            if not modes:
                continue
            never, missing = (spread(list(modes.get(mode, {}).values())) for mode in ("never", "missing"))
            start, gain = spread(list(floats[network].values())), spread(gains, sign=True)
            lines.append(
                f"| {words} | `{scheme}` | {relu} | {start} | {never} | {missing} | {gain} | {len(both) or 1} |"
            )
    return "\n".join(lines)


def draw_depth(results: Iterable[Mapping[str, Any]], path: Path) -> None:
    """The curves of the plain networks as SVG: without shortcuts dashed, with them drawn through."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    plain = {name: int(words) for name, words in NETWORKS.items() if name.startswith("plain")}
    for (scheme, relu), by_network in sorted(_found(list(results)).items()):
        colour = None
        for mode, style in (("never", "--"), ("missing", "-")):
            points = [
                (depth, sum(seeds.values()) / len(seeds))
                for name, depth in plain.items()
                if (seeds := by_network.get(name, {}).get(mode))
            ]
            if len(points) > 1:
                label = f"{scheme}, {'with' if mode == 'missing' else 'without'}, ReLU {relu}"
                drawn = axes.plot(*zip(*points), style, marker="o", color=colour, label=label)
                colour = drawn[0].get_color()
    axes.set_xticks(list(plain.values()))
    axes.set_xlabel("convolutions")
    axes.set_ylabel("top-1 %")
    axes.grid(alpha=0.3)
    axes.legend()
    with rc_context({"svg.hashsalt": "depth"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _rows(results: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in results if one["name"].startswith("depth-") and not one["trial"]]


def _found(results: list[Mapping[str, Any]]) -> Found:
    found: Found = {}
    for one in _rows(results):
        _, network, scheme, shortcuts, _, relu = one["name"].split("-")
        seeds = found.setdefault((scheme, relu), {}).setdefault(network, {}).setdefault(shortcuts, {})
        seeds[one["seed"]] = 100 * one["top1"]
    return found


def spread(values: list[float], *, sign: bool = False) -> str:
    """The mean, and the least and the most where there are several."""
    if not values:
        return ""
    form = "+.2f" if sign else ".2f"
    mean = format(sum(values) / len(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"

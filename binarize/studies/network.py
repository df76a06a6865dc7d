"""The float network of a trial before it is trained or converted: its weights, then pruned, then with dropout."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from binarize.conversion.convert import plan
from binarize.errors import UsageError
from binarize.planning.cost import Totals, totals
from binarize.planning.plan import Decision
from binarize.sources import Source, load
from binarize.studies.grid.trial import Trial
from binarize.training.data.seeds import seeded

__all__ = ["drop_before_classifier", "float_costs", "prune", "source_of", "with_weights", "without_dropout"]


def source_of(trial: Trial, fetch: bool = False) -> Source:
    """What the trial's settings name as its float network; weights that are random are those of its seed.

    Published weights have to be on this disk unless `fetch` allows to download them.
    """
    shape = trial.get("input_shape")
    with seeded(trial.seed):
        return load(
            str(trial.place("model")),
            arch=trial.place("arch"),
            weights=trial.get("weights"),
            num_classes=trial.get("num_classes"),
            fetch=fetch,
            # So that nobody has to try which shapes it takes.
            input_shape=None if shape is None else (1, *shape),
        )


def with_weights(module: nn.Module, folder: Path) -> nn.Module:
    """The module with the weights of a trained float network."""
    from safetensors.torch import load_model

    load_model(module, str(folder / "model.safetensors"))
    return module


def prune(module: nn.Module, ratio: float, example: Tensor) -> None:
    """Cut away that share of the channels, those of the smallest weights, in place; the network's outputs stay.

    Torch-Pruning finds which channels hang together (Fang et al., 2023, https://arxiv.org/abs/2301.12900).

    Raises: UsageError where that package is missing.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise UsageError(
            "pruning needs the package torch-pruning: pip install 'torch-binarize[study]'"
        ) from error
    outputs = [module.get_submodule(name) for name in _last_layers(module, example)]
    training = module.training
    pruner = torch_pruning.pruner.MagnitudePruner(
        module.eval(),
        example[:1],
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=outputs,
    )
    pruner.step()
    module.train(training)


def drop_before_classifier(module: nn.Module, probability: float, example: Tensor) -> nn.Module:
    """The module with dropout before each layer that gives its outputs, found by data flow; in place where it can be.

    The layer at path P moves to P.1, and P.0 is the dropout.

    Raises: UsageError where no such layer is a module.
    """
    names = _last_layers(module, example)
    if not names:
        raise UsageError(
            f"dropout: no layer of {type(module).__name__} gives its outputs alone, so there is no place before it"
        )
    for name in names:
        layer = module.get_submodule(name)
        if not name:
            return nn.Sequential(nn.Dropout(probability), layer)
        module.set_submodule(name, nn.Sequential(nn.Dropout(probability), layer))
    return module


def without_dropout(module: nn.Module, example: Tensor) -> nn.Module:
    """What `drop_before_classifier` was given."""
    for name in _last_layers(module, example):
        outer, _, last = name.rpartition(".")
        pair = module.get_submodule(outer)
        assert last == "1" and isinstance(pair, nn.Sequential) and isinstance(pair[0], nn.Dropout)
        if not outer:
            return pair[1]
        module.set_submodule(outer, pair[1])
    return module


def float_costs(module: nn.Module, example: Tensor) -> Totals:
    """What the network costs as long as nothing in it is binary."""
    layers = plan(module, example_input=example).analysis.layers
    decisions = [Decision(layer, "keep", "float") for layer in layers]
    others = sum(p.numel() for p in module.parameters()) - sum(layer.params for layer in layers)
    return totals(decisions, others)


def _last_layers(module: nn.Module, example: Tensor) -> list[str]:
    """The paths of the layers that give the outputs."""
    layers = plan(module, example_input=example[:2]).analysis.layers
    known = dict(module.named_modules())
    return [layer.name for layer in layers if layer.position == "last" and layer.name in known]

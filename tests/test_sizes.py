"""Nothing grows beyond a screen: functions, parameter lists and files; what is still longer is listed, and only shrinks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "binarize"
# Lines of a function below its signature, parameters beside self, and lines of a file.
FUNCTION, PARAMETERS, FILE = 50, 6, 250
# Annotations `: Any`, and casts.
ANY, CASTS = 226, 42

# What is longer today. Nothing may be added; what has become short enough has to be taken out.
LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS = {
    "analysis/analyse.py _layer",
    "attention/multihead.py ExplicitAttention.forward",
    "bench/bench.py _layer",
    "binarizers/nonlinearity.py PiecewiseLinear.of",
    "conversion/convert.py convert",
    "conversion/convert.py plan",
    "exporters/c/pools.py average_pool",
    "exporters/c/sums.py _batch_norm",
    "exporters/c/sums.py _conv",
    "kernels/elementwise.py estimate",
    "kernels/elementwise.py unbend",
    "kernels/geometry.py kernel_geometry",
    "kernels/reference.py conv_affine",
    "layers/layer.py BinaryLayer.from_float",
    "report/report.py make_report",
    "report/words.py next_commands",
    "rules/load.py load_rule_set",
    "sources/load.py load",
    "studies/study.py _study",
    "studies/study.py study",
    "training/calibrate.py calibrate",
    "training/data/named.py open_data",
    "training/data/opened.py open_images",
    "training/evaluate.py evaluate",
    "training/finetune.py finetune",
    "training/fit.py _Part.__init__",
    "training/loop/task.py FineTuning.__init__",
    "training/prepare.py prepare",
    "training/trainer.py make_trainer",
}
BY_KEYWORDS = {
    "bernoulli/layers.py BernoulliConv2d.__init__",
    "binarizers/bernoulli.py Probabilities.__init__",
    "training/loop/binary_optimizers.py BayesBiNN.__init__",
}
LONG_FILES = {
    "capture/expressions.py",
    "capture/tape.py",
    "capture/tracer.py",
    "commands/convert.py",
    "commands/finetune.py",
    "layers/layer.py",
    "packed/graph/build.py",
    "rules/rule_set.py",
    "rules/schema.py",
    "rules/values.py",
    "training/fit.py",
    "training/loop/task.py",
}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the package with its place, "training/fit.py fit"; methods with their class."""
    for path in sorted(PACKAGE.rglob("*.py")):
        waiting: list[tuple[str, ast.AST]] = [("", ast.parse(path.read_text(encoding="utf-8")))]
        while waiting:
            prefix, node = waiting.pop()
            for child in ast.iter_child_nodes(node):
                if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield f"{path.relative_to(PACKAGE).as_posix()} {prefix}{child.name}", child
                if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    waiting.append((f"{prefix}{child.name}.", child))
                else:
                    waiting.append((prefix, child))


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines below the signature and the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    return len(
        [a for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]
    )


def counts(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether its parameters are its own choice.

    Those of a command are its options. A constructor that rule files or users call by keywords takes what they set, as
    torch's own do.
    """
    if name in BY_KEYWORDS:
        return False
    return not any(ast.unparse(decorator).startswith("command") for decorator in function.decorator_list)


def long_files() -> set[str]:
    found = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    return {name for name, path in found.items() if len(path.read_text(encoding="utf-8").splitlines()) > FILE}


def check(found: set[str], listed: set[str], limit: str) -> None:
    assert not found - listed, f"{limit}: cut these where they change their subject"
    assert not listed - found, "these are short by now: take them out of the list"


def test_a_function_is_a_screen() -> None:
    found = {name for name, function in functions() if lines(function) > FUNCTION}
    check(found, LONG_FUNCTIONS, f"more than {FUNCTION} lines")


def test_a_function_takes_few_parameters() -> None:
    found = {
        name for name, function in functions() if counts(name, function) and parameters(function) > PARAMETERS
    }
    check(found, MANY_PARAMETERS, f"more than {PARAMETERS} parameters; give a dataclass")


def test_a_file_is_short() -> None:
    check(long_files(), LONG_FILES, f"more than {FILE} lines")


def test_types_are_said() -> None:
    """`Any` and casts hide what a checker could know; what is left is at the edges, torch's and other libraries'."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert text.count(": Any") <= ANY and text.count("cast(") <= CASTS

"""Imports point down one list of rooms; only the command line and the terminal report draw on a terminal."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "binarize"

# From the bottom up. A room is a folder or a file right below `binarize`; its sub-folders belong to it.
ROOMS = (
    "shown_text", "errors", "failures", "former_names", "version", "disk", "trust", "demo", "kernels", "binarizers",
    "computed_weights", "plain_forward",
    "attention", "layers", "modules", "bernoulli", "inputs", "capture", "sources", "schemes", "analysis", "rules", "planning",
    "passes", "report", "calibration", "conversion", "checkpoint", "training", "packed", "exporters", "studies", "bench",
    "__init__", "commands", "cli", "__main__",
)  # fmt: skip
# What makes a command slow to begin, or need not be installed.
HEAVY = {
    "torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics", "ray", "torch_pruning", "onnx", "onnx_ir",
    "onnxscript", "onnxruntime", "openvino", "transformers", "matplotlib", "jinja2", "pydantic", "ruamel", "rich",
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def module_of(path: Path) -> str:
    parts = ["binarize", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found = module if module in MODULES else str(node.module)
                if found in MODULES:
                    yield found, node.lineno


def test_imports_point_down() -> None:
    upward = []
    for path, name in zip(FILES, NAMES, strict=True):
        own = room(module_of(path))
        for module, line in imports(path):
            other = room(module)
            if ROOMS.index(other) > ROOMS.index(own):
                upward.append(f"{name}:{line}: {module}")
    assert not upward


def test_no_file_imports_in_a_circle() -> None:
    reads = {module_of(path): {name for name, _ in imports(path)} - {module_of(path)} for path in FILES}
    # Its imports are for type checkers alone: every public name is imported when it is first used.
    reads["binarize"] = set()
    while leaves := [name for name, targets in reads.items() if not targets]:
        for name in leaves:
            del reads[name]
        for targets in reads.values():
            targets.difference_update(leaves)
    assert not reads


def test_every_room_says_what_its_files_are() -> None:
    missing = []
    for path in FILES:
        face = path.parent / "__init__.py"
        if path != face and path.parent != PACKAGE and path.name not in face.read_text(encoding="utf-8"):
            missing.append(str(path.relative_to(PACKAGE)))
    assert not missing


def test_a_room_has_at_most_ten_files() -> None:
    long = {"binarizers", "commands", "exporters/c"}
    count = Counter(str(path.parent.relative_to(PACKAGE)) for path in FILES if path.name != "__init__.py")
    assert not {name: number for name, number in count.items() if number > 10 and name not in long}


def loads() -> dict[str, set[str]]:
    """Heavy libraries that importing a module of ours loads, by its imports outside functions and for type checkers."""
    reads: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        reads[module] = set()
        waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                waiting += [*node.body, *node.orelse]
            elif isinstance(node, ast.Try):
                waiting += [*node.body, *(child for handler in node.handlers for child in handler.body)]
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                reads[module].update(named(node))
    found = {module: {name.split(".")[0] for name in names} & HEAVY for module, names in reads.items()}
    changed = True
    while changed:
        changed = False
        for module, names in reads.items():
            # A module's packages are imported with it.
            below = {part for name in {*names, module} for part in packages(name)} & found.keys()
            more = set().union(*(found[name] for name in below)) - found[module]
            changed |= bool(more)
            found[module] |= more
    return found


def named(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}


def packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def test_functions_import_of_ours_only_what_loads_a_heavy_library() -> None:
    found = loads()
    light = []
    for module, path in MODULES.items():
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                if not isinstance(node, (ast.Import, ast.ImportFrom)) or not named(node) & MODULES.keys():
                    continue
                if "binarize.kernels._native" in named(node):
                    continue  # which need not be built
                heavy = set().union(*(found[name] for name in named(node) & MODULES.keys()))
                if not heavy - found[module]:
                    light.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert not light


def test_only_commands_and_the_terminal_report_import_typer_or_rich() -> None:
    users = set()
    for path, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.split(".")[0] in ("typer", "rich", "click") for module in modules):
                users.add(Path(name).parts[0] if name.startswith("commands") else name)
    assert users <= {"cli.py", "commands", "report/drawing/console.py", "report/drawing/terminal.py"}


def test_only_the_process_of_a_command_says_what_happens_at_its_end() -> None:
    users = {
        name for path, name in zip(FILES, NAMES, strict=True) if "atexit" in path.read_text(encoding="utf-8")
    }
    # The other ends a process that it has begun.
    assert users <= {"cli.py", "exporters/openvino/child.py"}

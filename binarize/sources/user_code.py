"""Models made by the user's own code: `file.py:make_model`, `package.module:Net(num_classes=10)`.

Arguments are literals: they are read, never evaluated.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from torch import nn

from binarize.disk.file_name import is_file
from binarize.errors import SourceError, UsageError, did_you_mean
from binarize.sources.architectures import LIBRARIES
from binarize.sources.calls import parse_call
from binarize.sources.files.kinds import missing_file

__all__ = ["call_user_code", "code_digest", "import_place", "is_user_code"]

SPEC = re.compile(
    r"(?P<place>[^:()]+\.py|[A-Za-z_][\w.]*):(?P<call>[A-Za-z_]\w*(\.\w+)*\s*(\(.*\))?)", re.DOTALL
)


def is_user_code(spec: str) -> bool:
    """Whether a spec reads as `file.py:name`, or `package.module:name`."""
    return SPEC.fullmatch(spec) is not None


def call_user_code(spec: str, *, num_classes: int | None = None) -> nn.Module:
    """The module that the user's function, class or variable gives. Runs the user's code, which was named.

    Raises: SourceError where the code is missing, raises, or gives no module.
    """
    match = SPEC.fullmatch(spec)
    if match is None:
        raise SourceError(f"{spec}: expected file.py:make_model or package.module:Net(num_classes=10)")
    call = parse_call(match["call"])
    module = import_place(match["place"])
    target: Any = module
    for name in call.name.split("."):
        if not hasattr(target, name):
            known = [key for key, value in vars(target).items() if callable(value) and key[0] != "_"]
            near = did_you_mean(name, known) or (f"; it has {', '.join(known[:8])}" if known else "")
            raise SourceError(f"{match['place']} has no {name!r}{near}")
        target = getattr(target, name)
    if not isinstance(target, nn.Module):
        keywords = dict(call.keywords)
        if num_classes is not None:
            keywords = _with_classes(spec, target, keywords, num_classes)
        target = _run(f"{match['place']}:{call.name}", lambda: target(*call.args, **keywords))
    elif num_classes is not None:
        raise UsageError(f"{spec} is a ready model, so that num_classes cannot be passed to it")
    if not isinstance(target, nn.Module):
        raise SourceError(f"{spec} gave a {type(target).__name__}; expected a torch.nn.Module")
    return target


def code_digest(spec: str) -> str | None:
    """The sha256 of the Python file that a spec of user code names; None where it lies in no file. Runs nothing."""
    match = SPEC.fullmatch(spec)
    if match is None:
        return None
    place = match["place"]
    if not place.endswith(".py"):
        place = str(getattr(sys.modules.get(place), "__file__", None) or "")
    try:
        return hashlib.sha256(Path(place).read_bytes()).hexdigest() if place else None
    except OSError:
        return None


def _with_classes(spec: str, target: Any, keywords: dict[str, Any], num_classes: int) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        parameters = MappingProxyType({})
    if "num_classes" not in parameters:
        raise UsageError(f"{spec} takes no num_classes; give it in the call, as in NAME(10)")
    return {**keywords, "num_classes": num_classes}


def import_place(place: str) -> ModuleType:
    """The user's module, from a Python file or by its dotted name. Runs the user's code, which was named.

    Raises: SourceError where it is missing, or raises.
    """
    if not place.endswith(".py"):
        return _package(place)
    path = Path(place)
    if not is_file(path):
        raise SourceError(missing_file(path))
    path = path.resolve()
    # Under its own name, as if it had been imported from its folder; another one if that name is taken.
    for name in (path.stem, f"{path.stem}_{zlib.crc32(str(path).encode()):08x}"):
        loaded = sys.modules.get(name)
        if loaded is None:
            break
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
    return _run(place, lambda: _execute(name, path))


def _package(place: str) -> ModuleType:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)  # as `python -m` does; a console script does not
    try:
        if place.partition(".")[0] not in sys.modules and not _exists(place.partition(".")[0]):
            near = did_you_mean(place, LIBRARIES)
            raise SourceError(f"{place}: no file, library or Python package of this name{near}")
        return _run(place, lambda: importlib.import_module(place))
    finally:
        if added:
            _leave_out(here)


def _leave_out(folder: str) -> None:
    """Take a folder out of sys.path again, where the user's code has not done so itself."""
    with suppress(ValueError):
        sys.path.remove(folder)


def _exists(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)  # the file may have taken itself out
        raise
    finally:
        _leave_out(str(path.parent))
    return module


def _run(what: str, action: Callable[[], Any]) -> Any:
    """What `action` gives; anything the user's code raises becomes a SourceError that says where."""
    try:
        return action()
    except (Exception, SystemExit) as error:  # code of the user: it may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = f" ({frame.filename}:{frame.lineno})" if frame.filename != __file__ else ""
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise SourceError(f"{what} raised {type(error).__name__}: {reason}{line}") from error

"""Objects made of what a pickle says, by a closed list of makers.

The pickle itself is never executed: what was read inertly is walked from the inside out, and every part is made by a
function of ours. A module is made empty and gets its attributes after they were checked; its constructor is not
called. What can be written in few bytes and is endless when walked (lists that share lists, objects that hold
themselves, deep nesting) is refused.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from binarize.sources.files.pickles.allow_list import StandIn
from binarize.sources.files.pickles.inert import Made, Members, Named, Pairs, Stored
from binarize.sources.files.pickles.instance_dicts import (
    HOOK_FIELDS,
    HostileObject,
    check_attributes,
    check_hook_object,
    check_module,
)
from binarize.sources.files.pickles.plain_makers import PLAIN, STATEFUL, checked_keys, constant, enumerated
from binarize.sources.files.pickles.records import Records, reference_of
from binarize.sources.files.pickles.stored_tensors import Tensors

__all__ = ["Rebuild"]

ATOMS = frozenset({bool, bytearray, bytes, float, int, str, type(None)})
# Containers and objects one in another; modules one in another; parts when those that are shared count each time.
HEIGHT, MODULE_HEIGHT, PARTS = 256, 64, 10_000_000
# Containers and objects at most: some ten times those of the largest models.
OBJECTS = 400_000
# Paths of modules and tensors, and the letters of all those paths.
PATHS, LETTERS = 1 << 18, 1 << 26


class Rebuild:
    """Makes the object of one file. `allowed` are the classes and functions by name; others become stand-ins."""

    def __init__(self, records: Records, allowed: Mapping[str, Any]) -> None:
        self._allowed = allowed
        self._tensors = Tensors(records)
        self._made: dict[int, object] = {}
        # Of each object: its height, and its parts.
        self._measures: dict[int, tuple[int, int]] = {}
        # Of a module: its height, the paths below it, and their letters.
        self._modules: dict[int, tuple[int, int, int]] = {}

    def of(self, root: object) -> object:
        """The object. Raises: HostileObject, ValueError and the like."""
        if type(root) in ATOMS:
            return root
        made, opened = self._made, {id(root)}
        inner = _inner(root)
        frames = [(root, inner, iter(inner))]
        while frames:
            node, inner, rest = frames[-1]
            for child in rest:
                if id(child) in made:
                    continue
                if id(child) in opened:
                    self._refuse_circle(child)
                elif below := _inner(child):
                    if len(frames) == HEIGHT:
                        raise ValueError(f"objects are nested more than {HEIGHT} deep")
                    opened.add(id(child))
                    frames.append((child, below, iter(below)))
                    break
                else:
                    self._measure(child, below)
                    made[id(child)] = self._make(child)
            else:
                frames.pop()
                opened.discard(id(node))
                self._measure(node, inner)
                made[id(node)] = self._make(node)
        return made[id(root)]

    def _refuse_circle(self, node: object) -> None:
        """A stand-in has None where it would hold itself; everything else may not."""
        if not (isinstance(node, Made) and self._is_foreign(node)):
            raise HostileObject("an object in it holds itself")

    def _is_foreign(self, node: Made) -> bool:
        return not node.called and node.name not in self._allowed and node.name not in PLAIN

    def _measure(self, node: object, inner: list[object]) -> None:
        height, parts = 0, len(node) if isinstance(node, (list, tuple)) else 0
        for child in inner:
            above, more = self._measures.get(id(child), (0, 0))
            height, parts = max(height, above), parts + more
        if height >= HEIGHT:
            raise ValueError(f"objects are nested more than {HEIGHT} deep")
        if len(self._measures) == OBJECTS:
            raise ValueError(f"it has more than {OBJECTS:,} containers and objects")
        if parts > PARTS:
            raise ValueError(
                f"it has more than {PARTS:,} parts when those that are shared are counted each time"
            )
        self._measures[id(node)] = (height + 1, parts + 1)

    def _value(self, node: object) -> Any:
        return node if type(node) in ATOMS else self._made.get(id(node))

    def _values(self, nodes: Iterable[object]) -> list[Any]:
        return [node if type(node) in ATOMS else self._made.get(id(node)) for node in nodes]

    def _make(self, node: object) -> object:
        if isinstance(node, Made):
            return self._object(node)
        if isinstance(node, Pairs):
            return self._put({}, node)
        if isinstance(node, Members):
            found = checked_keys(self._values(node))
            return frozenset(found) if node.frozen else set(found)
        if isinstance(node, list):
            return self._values(node)
        if isinstance(node, tuple):
            return tuple(self._values(node))
        if isinstance(node, Stored):
            return reference_of(node)
        if isinstance(node, Named):
            return self._named(node)
        raise ValueError(f"a {type(node).__name__} is not expected in a checkpoint")

    def _named(self, node: Named) -> object:
        """What a name stands for as a value; of what only our makers know, the name itself."""
        if (found := constant(node.name)) is not None:
            return found
        if node.name in self._allowed:
            return self._allowed[node.name]
        known = node.name in PLAIN or node.name.startswith(("torch.", "numpy."))
        return node if known else StandIn.of(None)

    def _put(self, target: dict[Any, Any], items: list[object]) -> dict[Any, Any]:
        keys = checked_keys(self._values(items[::2]))
        target.update(zip(keys, self._values(items[1::2])))
        return target

    def _object(self, node: Made) -> object:
        state = self._value(node.state)
        if self._is_foreign(node):
            return StandIn.of(state)
        name = node.name
        kind = self._allowed.get(name)
        if kind is not None and not node.called:
            if node.args or node.items or node.values:
                raise HostileObject(f"a {kind.__name__} in it is made with arguments")
            return self._filled(kind, state)
        args = self._values(node.args)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            made: Any = enumerated(kind, tuple(args))
        elif kind is not None:
            raise HostileObject(f"it calls {name}")
        else:
            made = (PLAIN.get(name) or self._tensors.makers[name])(*args)
        if node.items and type(made) in (OrderedDict, Counter):
            self._put(made, node.items)
        elif node.items:
            raise HostileObject(f"it puts items into what {name} gives")
        if node.values:
            raise HostileObject(f"it appends to what {name} gives")
        if node.state is None:
            return made
        if name not in STATEFUL:
            raise HostileObject(f"it gives a state to what {name} gives")
        return STATEFUL[name](made, state)

    def _filled(self, kind: Any, state: object) -> object:
        """An object of an allowed class, made without its constructor."""
        if not isinstance(kind, type):
            raise HostileObject(f"it makes an object of {kind.__name__}, which is no class")
        if issubclass(kind, nn.Module):
            attributes = check_module(kind, state)
            measures = self._measured(attributes)
            module = object.__new__(kind)
            kind.__setstate__(module, attributes)  # torch's own: it fills in what older versions had not
            self._modules[id(module)] = measures
            return module
        made = object.__new__(kind)
        check = check_hook_object if kind in HOOK_FIELDS else check_attributes
        vars(made).update(check(kind, state))
        return made

    def _measured(self, attributes: dict[str, Any]) -> tuple[int, int, int]:
        """Height, paths and letters of a module, the sum of those of its children, each time they are used."""
        height, paths, letters = 1, 1, 0
        for table in ("_parameters", "_buffers", "_modules"):
            for name, value in attributes[table].items():
                inner = self._modules.get(id(value), (0, 1, 0)) if table == "_modules" else (0, 1, 0)
                height = max(height, inner[0] + 1)
                paths += inner[1]
                letters += inner[2] + inner[1] * (len(name) + 1)
        if height > MODULE_HEIGHT:
            raise ValueError(f"modules are nested more than {MODULE_HEIGHT} deep")
        if paths > PATHS or letters > LETTERS:
            raise ValueError("it has too many modules when those that are shared are counted each time")
        return height, paths, letters


def _inner(node: object) -> list[object]:
    """What has to be made before."""
    if isinstance(node, Made):
        found: Any = (*node.args, node.state, *node.items, *node.values)
    else:
        found = node if isinstance(node, (list, tuple)) else ()
    return [child for child in found if type(child) not in ATOMS]

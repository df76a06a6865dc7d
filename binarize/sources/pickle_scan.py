"""Reads a pickle without doing anything it says.

A pickle is a program for a small stack machine, and only some of its instructions reach outside: naming a
global, calling what was named, making an object of it. Here those leave inert records (`Named`, `Made`,
`Stored`) on the stack, so that afterwards one can see which names a file needs, which of them it would call,
and what it holds.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import IO, Any

__all__ = ["Made", "Named", "Scan", "Stored", "scan"]

# Python 2 names that torch.save still writes, since it uses protocol 2.
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(eq=False)
class Named:
    """A global that the pickle names."""

    name: str


@dataclass(eq=False)
class Made:
    """What the pickle would get from calling or instantiating `maker`."""

    maker: object
    args: tuple[object, ...]
    state: object = None
    items: dict[Hashable, object] = field(default_factory=dict)
    values: list[object] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.maker.name if isinstance(self.maker, Named) else type(self.maker).__name__


@dataclass(eq=False)
class Stored:
    """A reference to data outside the pickle: a tensor's storage."""

    reference: object


@dataclass
class Scan:
    """The names a pickle needs (`called`: as functions), the storages it refers to and what it holds."""

    root: object
    names: set[str]
    called: set[str]
    stored: list[Stored]
    protocol: int


def scan(file: IO[bytes]) -> Scan:
    """Reads one pickle from `file`, up to its end mark.

    Raises: ValueError, IndexError, KeyError, TypeError where the pickle is damaged.
    """
    machine = _Machine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in what may well be a damaged file
        for opcode, argument, _ in pickletools.genops(file):
            step = getattr(machine, opcode.name, None)
            if step is None:
                machine.constant(opcode, argument)
            else:
                step(argument)
    return Scan(machine.stack[-1], machine.names, machine.called, machine.stored, machine.protocol)


class _Machine:
    """One method an instruction, named as `pickletools` names it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()
        self.called: set[str] = set()
        self.stored: list[Stored] = []
        self.protocol = 0

    def constant(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        if opcode.stack_before or len(opcode.stack_after) != 1:
            raise ValueError(f"instruction {opcode.name} is not expected in a checkpoint")
        self.stack.append(argument)

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def named(self, module: str, name: str) -> Named:
        full = f"{RENAMED.get(module, module)}.{name}"
        self.names.add(full)
        return Named(full)

    def make(self, maker: object, args: object, *, call: bool) -> Made:
        if not isinstance(args, tuple):
            raise TypeError("arguments are not a tuple")
        if call:
            self.called.add(maker.name if isinstance(maker, Named) else repr(type(maker).__name__))
        return Made(maker, args)

    # What reaches outside.

    def GLOBAL(self, argument: str) -> None:
        self.stack.append(self.named(*argument.split(" ", 1)))

    def STACK_GLOBAL(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(str(module), str(name)))

    def extension(self, argument: int) -> None:
        self.stack.append(self.named("copyreg", f"extension_{argument}"))

    EXT1 = EXT2 = EXT4 = extension

    def REDUCE(self, _: object) -> None:
        args, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(maker, args, call=True))

    def NEWOBJ(self, _: object) -> None:
        args, maker = self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(maker, args, call=False))

    def NEWOBJ_EX(self, _: object) -> None:
        keywords, args, maker = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(maker, (*args, keywords), call=False))

    def INST(self, argument: str) -> None:
        maker = self.named(*argument.split(" ", 1))
        self.stack.append(self.make(maker, tuple(self.since_mark()), call=True))

    def OBJ(self, _: object) -> None:
        maker, *args = self.since_mark()
        self.stack.append(self.make(maker, tuple(args), call=True))

    def BUILD(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def PERSID(self, argument: object) -> None:
        self.stored.append(Stored(argument))
        self.stack.append(self.stored[-1])

    def BINPERSID(self, _: object) -> None:
        self.PERSID(self.stack.pop())

    # Containers.

    def MARK(self, _: object) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def POP_MARK(self, _: object) -> None:
        self.since_mark()

    def POP(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def DUP(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def EMPTY_LIST(self, _: object) -> None:
        self.stack.append([])

    def EMPTY_TUPLE(self, _: object) -> None:
        self.stack.append(())

    def EMPTY_DICT(self, _: object) -> None:
        self.stack.append({})

    def EMPTY_SET(self, _: object) -> None:
        self.stack.append(set())

    def TUPLE1(self, _: object) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def TUPLE2(self, _: object) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def TUPLE3(self, _: object) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def TUPLE(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def LIST(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def FROZENSET(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(frozenset(items))

    def DICT(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(dict(zip(items[::2], items[1::2])))

    def put_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Made) else target).update(zip(items[::2], items[1::2]))

    def SETITEM(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put_items([key, value])

    def SETITEMS(self, _: object) -> None:
        self.put_items(self.since_mark())

    def put_values(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.values if isinstance(target, Made) else target).extend(items)

    def APPEND(self, _: object) -> None:
        self.put_values([self.stack.pop()])

    def APPENDS(self, _: object) -> None:
        self.put_values(self.since_mark())

    def ADDITEMS(self, _: object) -> None:
        items = self.since_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(items)

    # The memo, and what only frames the stream.

    def PUT(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    BINPUT = LONG_BINPUT = PUT

    def MEMOIZE(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def GET(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    BINGET = LONG_BINGET = GET

    def PROTO(self, argument: int) -> None:
        self.protocol = argument

    def ignored(self, _: object) -> None:
        return None

    FRAME = STOP = ignored

    def NONE(self, _: object) -> None:
        self.stack.append(None)

    def NEWTRUE(self, _: object) -> None:
        self.stack.append(True)

    def NEWFALSE(self, _: object) -> None:
        self.stack.append(False)

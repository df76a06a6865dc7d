"""Reads a pickle without doing anything it says.

A pickle is a program for a small stack machine, and only some of its instructions reach outside: naming a
global, calling what was named, making an object of it. Here those leave inert records on the stack. Nothing is
hashed or compared either: dictionaries and sets stay lists, since the hash of nested tuples can take for ever, or end
the process.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from binarize.sources.files.inert import Made, Members, Named, Pairs, Stored

__all__ = ["Scan", "scan"]

# Python 2 names that torch.save still writes, since it uses protocol 2.
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}

# Far above what models and checkpoints need. Time and memory stay within a few seconds and 1 GB.
INSTRUCTIONS = 2_000_000
NAME_LENGTH = 400
INTEGER_BITS = 1024


@dataclass
class Scan:
    """The names a pickle needs (`called`: as functions), the storages it refers to and what it holds."""

    root: object
    names: set[str]
    called: set[str]
    stored: list[Stored]


def scan(file: IO[bytes]) -> Scan:
    """Reads one pickle from `file`, up to its end mark.

    Raises: ValueError, IndexError, KeyError, TypeError where the pickle is damaged.
    """
    machine = _Machine()
    steps = _steps(machine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in what may well be a damaged file
        for _ in range(INSTRUCTIONS):
            code = file.read(1)
            if code == b".":
                break
            if not code:
                raise ValueError("the pickle ends before its end mark")
            reader, step = steps[code] if code in steps else _unknown(code)
            step(reader(file) if reader is not None else None)
        else:
            raise ValueError(f"its pickle has more than {INSTRUCTIONS:,} instructions")
    if len(machine.stack) != 1 or machine.outer:
        raise ValueError("its pickle does not end with one object")
    return Scan(machine.stack[-1], machine.names, machine.called, machine.stored)


Step = Callable[[Any], None]
Reader = Callable[[IO[bytes]], Any]


def _steps(machine: _Machine) -> dict[bytes, tuple[Reader | None, Step]]:
    """What reads the argument of each instruction, and what carries it out."""
    steps: dict[bytes, tuple[Reader | None, Step]] = {}
    for opcode in pickletools.opcodes:
        step: Step | None = getattr(machine, opcode.name, None)
        if step is not None:
            steps[opcode.code.encode("latin-1")] = (opcode.arg.reader if opcode.arg else None, step)
    return steps


def _unknown(code: bytes) -> NoReturn:
    raise ValueError(f"instruction {code!r} is not expected in a checkpoint")


class _Machine:
    """One method an instruction, named as `pickletools` names it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()
        self.called: set[str] = set()
        self.stored: list[Stored] = []
        self.puts = 0

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def named(self, module: object, name: object) -> Named:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("the name of a global is no text")
        if len(module) + len(name) > NAME_LENGTH:
            raise ValueError(f"the name of a global has more than {NAME_LENGTH} characters")
        full = f"{RENAMED.get(module, module)}.{name}"
        self.names.add(full)
        return Named(full)

    def make(self, maker: object, args: object, *, call: bool) -> Made:
        if not isinstance(args, tuple):
            raise TypeError("arguments are not a tuple")
        if call:
            self.called.add(maker.name if isinstance(maker, Named) else repr(type(maker).__name__))
        return Made(maker, args, call)

    # What reaches outside.

    def GLOBAL(self, argument: str) -> None:
        self.stack.append(self.named(*argument.split(" ", 1)))

    def STACK_GLOBAL(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(module, name))

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
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Made) or target.state is not None:
            raise TypeError("its pickle gives a state to what takes none")
        target.state = state

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
        self.stack.append(Pairs())

    def EMPTY_SET(self, _: object) -> None:
        self.stack.append(Members([], frozen=False))

    def of_last(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("its pickle takes more than there is")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def TUPLE1(self, _: object) -> None:
        self.stack[-1] = (self.stack[-1],)

    def TUPLE2(self, _: object) -> None:
        self.of_last(2)

    def TUPLE3(self, _: object) -> None:
        self.of_last(3)

    def TUPLE(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def LIST(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def FROZENSET(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(Members(items, frozen=True))

    def DICT(self, _: object) -> None:
        items = self.since_mark()
        self.stack.append(Pairs())
        self.put_items(items)

    def put_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise ValueError("a key without a value")
        if isinstance(target, Made):
            target.items.extend(items)
        elif isinstance(target, Pairs):
            target.extend(items)
        else:
            raise TypeError("its pickle puts items into what takes none")

    def SETITEM(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put_items([key, value])

    def SETITEMS(self, _: object) -> None:
        self.put_items(self.since_mark())

    def put_values(self, items: list[Any], kind: type[list[Any]]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target = target.values
        elif type(target) is not kind or (isinstance(target, Members) and target.frozen):
            raise TypeError("its pickle appends to what takes nothing")
        target.extend(items)

    def APPEND(self, _: object) -> None:
        self.put_values([self.stack.pop()], list)

    def APPENDS(self, _: object) -> None:
        self.put_values(self.since_mark(), list)

    def ADDITEMS(self, _: object) -> None:
        self.put_values(self.since_mark(), Members)

    # The memo, and what only frames the stream.

    def PUT(self, argument: int) -> None:
        self.puts += 1
        if not 0 <= argument <= 2 * self.puts:  # picklers count; other numbers could be chosen to collide
            raise ValueError(f"memory number {argument} out of order")
        self.memo[argument] = self.stack[-1]

    BINPUT = LONG_BINPUT = PUT

    def MEMOIZE(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def GET(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    BINGET = LONG_BINGET = GET

    def ignored(self, _: object) -> None:
        return None

    PROTO = FRAME = ignored

    # Values.

    def NONE(self, _: object) -> None:
        self.stack.append(None)

    def NEWTRUE(self, _: object) -> None:
        self.stack.append(True)

    def NEWFALSE(self, _: object) -> None:
        self.stack.append(False)

    def value(self, argument: object) -> None:
        self.stack.append(argument)

    BININT = BININT1 = BININT2 = FLOAT = BINFLOAT = value
    BINBYTES = SHORT_BINBYTES = BINBYTES8 = BYTEARRAY8 = value

    def integer(self, argument: int) -> None:
        if argument.bit_length() > INTEGER_BITS:
            raise ValueError(f"an integer of more than {INTEGER_BITS} bits")
        self.stack.append(argument)

    INT = LONG = LONG1 = LONG4 = integer

    def text(self, argument: str) -> None:
        argument.encode()  # raises where it is no Unicode
        self.stack.append(argument)

    STRING = UNICODE = BINUNICODE = SHORT_BINUNICODE = BINUNICODE8 = text

    def text_or_bytes(self, argument: str) -> None:
        """What Python 2 called a string."""
        raw = argument.encode("latin-1")
        try:
            self.stack.append(raw.decode())
        except UnicodeDecodeError:
            self.stack.append(raw)

    BINSTRING = SHORT_BINSTRING = text_or_bytes

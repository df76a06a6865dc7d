"""Reads a pickle without doing anything it says.

A pickle is a program for a small stack machine, and only some of its instructions reach outside: naming a
global, calling what was named, making an object of it. Here those leave inert records on the stack."""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from binarize.sources.files.pickles.inert import Made, Named, Stored
from binarize.sources.files.pickles.stack_machine import StackMachine

__all__ = ["Scan", "scan"]

# Python 2 names that torch.save still writes, since it uses protocol 2.
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}

# Far above what models and checkpoints need. Time and memory stay within a few seconds and 1 GB.
INSTRUCTIONS = 2_000_000
NAME_LENGTH = 400


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


class _Machine(StackMachine):
    """The instructions that reach outside, each of which leaves a record of what it names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.called: set[str] = set()
        self.stored: list[Stored] = []

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

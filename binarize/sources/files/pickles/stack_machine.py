"""The stack of a pickle, and the instructions that do not reach outside: containers, the memo and plain values.

Nothing is hashed or compared: dictionaries and sets stay lists, since the hash of nested tuples can take for ever, or
end the process.
"""

from __future__ import annotations

from typing import Any

from binarize.sources.files.pickles.inert import Made, Members, Pairs

__all__ = ["StackMachine"]

INTEGER_BITS = 1024


class StackMachine:
    """One method an instruction, named as `pickletools` names it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.puts = 0

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

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

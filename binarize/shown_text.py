"""Text from outside (names of layers, files, rules) as it is shown: nothing in it steers what shows it.

A terminal obeys control characters, and marks of direction turn the order of what stands beside them around. Each place
that text is written to for people or into other languages escapes it there: the terminal and the HTML page as a whole,
Markdown where a cell or a sentence begins.
"""

from __future__ import annotations

import re

__all__ = ["json_shown", "one_line", "shown"]

# Control characters but tab and line feed, marks of direction and of no width, separators, halves of pairs, tags.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """The text with escapes (`\\x1b`) for what would steer a terminal or turn text around; lines stay."""
    return _STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """The same for a name, which is no text of several lines."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def json_shown(document: str) -> str:
    """JSON text of the same value without such characters."""
    return _STEERING.sub(_json_escape, document)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04x}"

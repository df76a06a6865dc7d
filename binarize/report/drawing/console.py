"""The one way of text to a terminal: a console that shows control characters and does not obey them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from binarize.shown_text import shown

__all__ = ["PlainConsole"]


class PlainConsole(Console):
    """A console whose own codes (colours, the spinner's) pass, and none that stand in what it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What rich writes, with escapes in the text."""
        return self._escaped(super().render(renderable, options))

    def _escaped(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        for segment in segments:
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)

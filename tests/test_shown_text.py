"""Text from outside steers nothing that shows it: terminal, JSON on a terminal, Markdown, HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import binarize
from binarize.commands.console.screen import Screen
from binarize.report.drawing.html import to_html
from binarize.report.drawing.markdown import to_markdown
from binarize.report.drawing.terminal import to_text
from binarize.report.report import Report
from binarize.shown_text import json_shown, one_line, shown

STEERING = [
    chr(c) for c in (*range(9), 11, 13, 27, 127, 0x9B, 0x9D, 0x200B, 0x202E, 0x2066, 0x2028, 0xFEFF, 0xD800)
]
HOSTILE = [
    "`<script>alert(1)</script>",
    "a` | <img src=x onerror=alert(1)>",
    "a\\|<script>",
    "\x1b]0;owned\x07\x1b[31m",
    "\x9b31m",
    "\u202egpj",
    "a\nb\rc",
    "[red]x[/red]",
    "[link=http:evil]x[/link]",
    ":bug:",
    "*x*_y_",
    "&lt;",
    "{{ 7*7 }}",
]


@pytest.mark.parametrize("mark", STEERING, ids=ascii)
def test_marks_are_escaped_and_all_else_stays(mark: str) -> None:
    text = f"é→日本 ×\t{mark}\n"
    for made in (shown(text), one_line(text)):
        assert mark not in made and made.startswith("é→日本 ×") and made.encode()
    assert shown("é→日本 ×\t\n") == "é→日本 ×\t\n" and one_line("a\n\tb") == "a\\n\\tb"
    document = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(json_shown(document)) == {"name": text} and mark not in json_shown(document)


def test_a_tag_beyond_the_first_plane_stays_itself_in_json() -> None:
    assert json.loads(json_shown('"\U000e0041"')) == "\U000e0041"


def test_what_a_command_prints_holds_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    for json_wanted in (False, True):
        screen = Screen(json=json_wanted, stdout=__import__("sys").stdout)
        text = "".join(HOSTILE)
        screen.show(text)
        for say in (screen.note, screen.warn, screen.error):
            say(text)
        screen.document({text: text})
    out, err = capsys.readouterr()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out + err)
    assert "[red]x[/red]" in out and "[red]x[/red]" in err and ":bug:" in err


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


@pytest.fixture(scope="module")
def report() -> Report:
    names = [name for name in HOSTILE if "." not in name]
    net = nn.Sequential(nn.Linear(4, 16))
    for name in names:
        net.add_module(name, nn.Linear(16, 16))
    net.add_module("end", nn.Linear(16, 2))
    model = binarize.convert(net, "bireal", example_input=torch.randn(8, 4), calibrate=False)
    found: Report = model.report
    assert {row.name for row in found.rows} >= set(names)
    return found


def test_a_report_shows_odd_names_as_they_are(report: Report) -> None:
    for width in (60, 100, 200):
        text = to_text(report, width, all_rows=True)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[red]x[/red]" in text and "\\x1b]0;owned\\x07" in text and "a\\nb\\rc" in text


def test_markdown_cells_end_where_they_should(report: Report) -> None:
    text = to_markdown(report)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}
    assert len(widths) == 1
    outside_code = re.sub(r"(?<!\\)`[^`]*`", "", text)
    assert not re.search(r"(?<!\\)<", outside_code)


def test_html_holds_no_tag_of_a_name(report: Report) -> None:
    page = to_html(report)
    parser, plain = Tags(), Tags()
    parser.feed(page)
    net = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2))
    model = binarize.convert(net, "bireal", example_input=torch.randn(8, 4), calibrate=False)
    plain.feed(to_html(model.report))
    assert parser.found == plain.found and "49" not in re.findall(r"<td[^>]*>(49)<", page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)

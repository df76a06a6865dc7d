"""The pages of docs/: every command and every block of Python on them runs as written, and every link leads somewhere.

Blocks of a page run one after another in one empty folder. A block whose info string names a file (```yaml mine.yaml)
is written to it. A block of shell that begins with `# not run here: why` is left out. They run with `pytest --docs`,
as `make docs` does; the links are checked in every run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Written by the build itself.
MADE = {"commands.md", "python.md", "rules.md", "schemes.md", "exit-codes.md"}
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if "_build" not in page.parts and not (page.parent.name == "reference" and page.name in MADE)
]
BLOCK = re.compile(r"^```(python|sh|yaml)( \S+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Their blocks are checked by tests of their own.
ELSEWHERE = {"architecture.md"}


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, file or "", text) of each block that runs or is written."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        (language, file.strip(), text)
        for language, file, text in found
        if not text.startswith("# not run here: ")
    ]


RUNNING = [page for page in PAGES if name_of(page) not in ELSEWHERE and blocks(page)]


@pytest.mark.docs
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    # The command may stand beside this interpreter, or be on the path already.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    for language, file, text in blocks(page):
        if file:
            (tmp_path / file).write_text(text, encoding="utf-8")
            continue
        assert language != "yaml", f"a block of YAML without a file: {text[:60]}"
        words = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        there = (page.parent / target).resolve()
        assert there.exists() or (there.parent == DOCS / "reference" and there.name in MADE), target


def test_every_page_has_its_place_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {
        line
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in block.splitlines()
    }
    pages = {name_of(page).removesuffix(".md") for page in PAGES} - {"index"}
    assert pages <= listed
    assert {f"reference/{name.removesuffix('.md')}" for name in MADE} <= listed

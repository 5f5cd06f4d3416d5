"""The guide to long-term memory: its blocks of Python run, and links between pages lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.running import ROOT
from tests.harness.stack import Stack

GUIDE = ROOT / "docs" / "store.md"
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINKS = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")
PAGES = sorted({*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "examples" / "README.md"})


def test_every_block_of_the_guide_runs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = stack.new_tenant(("read", "write", "admin"))
    monkeypatch.setenv("TENURE_TARGET", stack.target)
    monkeypatch.setenv("TENURE_API_KEY", tenant.api_key)
    text = GUIDE.read_text()
    names: dict[str, object] = {}

    for block in BLOCKS.finditer(text):
        above = text.count("\n", 0, block.start(1))
        exec(compile("\n" * above + block[1], str(GUIDE), "exec"), names)

    assert names["embedded"] == 12
    names["saver"].close()  # type: ignore[attr-defined]


def headings(text: str) -> Iterator[str]:
    """Yield the names under which headings can be linked to."""
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for path, anchor in LINKS.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in headings(target.read_text()), f"{path}#{anchor}"

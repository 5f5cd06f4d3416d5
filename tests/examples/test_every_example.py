"""All examples together: none is forgotten, and each prints what it prints on LangGraph's own saver."""

from __future__ import annotations

import importlib

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from tenure_client import TenureSaver

from tests.examples.running import ROOT, lines_of, with_numbered_ids

SCRIPTS = sorted(path.stem for path in (ROOT / "examples").glob("[a-z]*.py"))
NOT_ON_INMEMORYSAVER = {"demo", "housekeeping"}


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in NOT_ON_INMEMORYSAVER])
def test_an_example_prints_the_same_as_on_inmemorysaver(name: str, saver: TenureSaver) -> None:
    main = importlib.import_module(f"examples.{name}").main

    printed = with_numbered_ids(lines_of(main, saver))

    assert printed == with_numbered_ids(lines_of(main, InMemorySaver()))
    assert printed


def test_housekeeping_is_what_inmemorysaver_cannot_do() -> None:
    from examples import housekeeping

    with pytest.raises(NotImplementedError):
        lines_of(housekeeping.main, InMemorySaver())


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_table_in_the_readme_names_every_example(name: str) -> None:
    table = (ROOT / "examples" / "README.md").read_text()

    assert f"]({name}.py)" in table

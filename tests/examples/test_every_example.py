"""All examples together: none is forgotten, and each prints what it prints on LangGraph's own saver."""

from __future__ import annotations

import importlib

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from tenure_client import TenureSaver, TenureStore

from tests.examples.running import ROOT, lines_of, with_numbered_ids

SCRIPTS = sorted(path.stem for path in (ROOT / "examples").glob("[a-z]*.py"))
WITH_A_STORE = {"long_term_memory", "semantic_memory", "summary_memory"}
NOT_IN_MEMORY = {"demo", "housekeeping", "node_cache", "shared_memory", "single_writer"}


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - NOT_IN_MEMORY - WITH_A_STORE))
def test_an_example_prints_the_same_as_on_inmemorysaver(name: str, saver: TenureSaver) -> None:
    main = importlib.import_module(f"examples.{name}").main

    printed = with_numbered_ids(lines_of(main, saver))

    assert printed == with_numbered_ids(lines_of(main, InMemorySaver()))
    assert printed


@pytest.mark.parametrize("name", sorted(WITH_A_STORE))
def test_an_example_prints_the_same_as_on_inmemorystore(name: str, saver: TenureSaver) -> None:
    example = importlib.import_module(f"examples.{name}")
    index = getattr(example, "INDEX", None)

    printed = lines_of(example.main, saver, TenureStore(saver.connection, index=index))

    assert printed == lines_of(example.main, InMemorySaver(), InMemoryStore(index=index))
    assert printed


def test_housekeeping_is_what_inmemorysaver_cannot_do() -> None:
    from examples import housekeeping

    with pytest.raises(NotImplementedError):
        lines_of(housekeeping.main, InMemorySaver())


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_table_in_the_readme_names_every_example(name: str) -> None:
    table = (ROOT / "examples" / "README.md").read_text()

    assert f"]({name}.py)" in table

"""Looking after a tenant's memory from the command line: `python -m tenure_client`.

The key comes from TENURE_API_KEY, or from a target of the form tenure://KEY@host:port.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from langgraph.store.base import IndexConfig

from tenure_client.errors import TenureError
from tenure_client.store import TenureStore

_WIDTH = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        return _rebuild_index(given)
    except (TenureError, ValueError, ImportError, AttributeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tenure_client", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rebuild = commands.add_parser(
        "rebuild-index",
        help="embed all items anew, after the embedder has been changed",
        description="Embeds all items anew. Broken off, it goes on where it was when it is started again. "
        "Needs a key with the scopes read, write and admin, and no rules.",
    )
    rebuild.add_argument(
        "--embed",
        required=True,
        help="a provider string such as openai:text-embedding-3-small, or module.name of a function, an "
        "embedder or its class",
    )
    rebuild.add_argument("--dims", required=True, type=int, help="length of its vectors")
    rebuild.add_argument("--fields", nargs="+", help="paths that are embedded; by default the whole item")
    rebuild.add_argument("--embedder", help="its name, if the application's index configuration gives it one")
    rebuild.add_argument("--target", help="host:port; by default TENURE_TARGET")
    rebuild.add_argument("--insecure", action="store_true", help="plaintext to another machine")
    rebuild.add_argument("--ca", help="PEM file with the certificates to trust")
    rebuild.add_argument("--json", action="store_true", help="print the outcome as JSON, and no progress")
    return parser


def _rebuild_index(given: argparse.Namespace) -> int:
    config: dict[str, Any] = {
        "dims": given.dims,
        "embed": given.embed if ":" in given.embed else _imported(given.embed),
        "fields": given.fields,
    }
    if given.embedder:
        config["embedder"] = given.embedder
    index: IndexConfig = config  # type: ignore[assignment]
    with TenureStore(given.target, index=index, ca=given.ca, insecure=given.insecure) as store:
        done = store.rebuild_index(None if given.json else show_progress)
    if given.json:
        sys.stdout.write(json.dumps({"embedded": done}) + "\n")
    else:
        sys.stdout.write(f"embedded {done:,} items\n")
    return 0


def show_progress(done: int, total: int) -> None:
    """Draw a bar on standard error; a line for each page if that is no terminal."""
    full = _WIDTH if not total else _WIDTH * done // total
    bar = f"[{'#' * full}{'.' * (_WIDTH - full)}] {done:,} of {total:,} items"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{bar}" if done < total else f"\r{bar}\n")
    else:
        sys.stderr.write(f"{bar}\n")
    sys.stderr.flush()


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"--embed {name}: give a provider string with ':', or module.name of an embedder")
    found = getattr(importlib.import_module(module), attribute)
    return found() if isinstance(found, type) else found


if __name__ == "__main__":
    sys.exit(main())

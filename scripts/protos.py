"""Generate `proto/tenure/v1/*_pb2*` from the .proto files; with `--check` say whether they are current."""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SOURCES = sorted((PROTO / "tenure" / "v1").glob("*.proto"))


def include_paths() -> list[str]:
    """Return the -I options: ours, googleapis-common-protos' and protoc's own."""
    googleapis = Path(status_pb2.__file__).parents[2]
    return [f"-I{PROTO}", f"-I{googleapis}", f"-I{files('grpc_tools') / '_proto'}"]


def generate(target: Path) -> None:
    """Write the generated modules below `target`."""
    options = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", *include_paths(), *options, *map(str, SOURCES)])
    if status:
        raise SystemExit(f"protoc failed with status {status}")
    # A service stub for a file without services holds only a version check.
    for source in SOURCES:
        if "\nservice " not in source.read_text():
            (target / "tenure" / "v1" / f"{source.stem}_pb2_grpc.py").unlink()


def stale() -> list[str]:
    """Return the names of generated files that differ from what the .proto files give."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in (Path(folder) / "tenure" / "v1").iterdir()}
    kept = {path.name: path.read_bytes() for path in (PROTO / "tenure" / "v1").glob("*_pb2*")}
    return sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if names := stale():
            raise SystemExit(f"generated code is not current, run `make proto`: {', '.join(names)}")
    else:
        generate(PROTO)

"""Run buf on the protos, offline: `python -m scripts.buf lint | breaking`.

buf would fetch google/rpc/status.proto from its registry. So protoc compiles a descriptor image with the
copy that googleapis-common-protos installs, and buf reads the image.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

from scripts import tags
from scripts.protos import PROTO, include_paths

CONFIG = PROTO / "buf.yaml"


class CompileError(Exception):
    """protoc refused the protos; it has said why on stderr."""


def compile_image(protos: Path, image: Path) -> None:
    """Compile the .proto files below `protos` with their comments into a descriptor image.

    Raises:
        CompileError: protoc refused them.
    """
    sources = sorted(str(path) for path in protos.rglob("*.proto"))
    options = [f"--descriptor_set_out={image}", "--include_imports", "--include_source_info"]
    if protoc.main(["protoc", f"-I{protos}", *include_paths()[1:], *options, *sources]):
        raise CompileError(str(protos))


def lint(protos: Path = PROTO) -> subprocess.CompletedProcess[str]:
    """Return buf's verdict on names and comments; its output lists the faults."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        compile_image(protos, image)
        return _buf("lint", str(image))


def breaking(before: Path, protos: Path = PROTO) -> subprocess.CompletedProcess[str]:
    """Return buf's verdict on changes since the protos below `before`; its output lists the breaking ones."""
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "old.binpb", Path(folder) / "new.binpb"
        compile_image(before, old)
        compile_image(protos, new)
        return _buf("breaking", str(new), "--against", str(old))


def breaking_since_release() -> int:
    """Compare with the newest release and return the exit status; 0 with a reason if there is none."""
    try:
        tag = tags.newest()
    except tags.NoTag as reason:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tags.extract(tag, Path(folder), "proto")
        verdict = breaking(Path(folder) / "proto")
    print(verdict.stdout + verdict.stderr, end="")
    print(f"compared with {tag}")
    return verdict.returncode


def _buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    executable = Path(sysconfig.get_path("scripts")) / "buf"
    command = [str(executable), *arguments, "--config", str(CONFIG)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main(arguments: list[str]) -> int:
    """Run one of the two commands and return the exit status."""
    if arguments == ["breaking"]:
        return breaking_since_release()
    if arguments == ["lint"]:
        verdict = lint()
        print(verdict.stdout + verdict.stderr, end="")
        return verdict.returncode
    print("usage: python -m scripts.buf lint | breaking", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

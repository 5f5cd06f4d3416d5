"""Rules about the files of the repository: `python -m scripts.tree`.

- No module has more than 400 lines; those above 300 are listed, as the next ones to split.
- Pinned requirements have hashes and name no host, so that any index or mirror serves them.
- No uv.lock is tracked: it records the address of a registry beside every package.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CEILING = 400
LARGE = 300
FOLDERS = ("benchmarks", "client", "examples", "scripts", "server", "tests")
PIN = re.compile(r"^[A-Za-z0-9][\w.-]*(\[[\w,.-]+\])?==\S+( ; [^#]+)?( --hash=sha256:[0-9a-f]{64})+$")


def module_sizes(root: Path = ROOT) -> dict[str, int]:
    """Return the number of lines of each hand-written module, by path."""
    modules = (path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in modules}


def requirement_faults(text: str) -> list[str]:
    """Return what is wrong with a requirements file: every entry must be a pin with sha256 hashes."""
    entries = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [
        f"not a pin with hashes: {entry.split(' --hash')[0]}"
        for entry in entries
        if entry and not entry.startswith("#") and ("://" in entry or not PIN.match(entry))
    ] + [f"a comment names a host: {entry}" for entry in entries if entry.startswith("#") and "://" in entry]


def tracked_locks() -> list[str]:
    """Return the uv.lock files that git tracks; none outside a git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "uv.lock", "**/uv.lock"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:
        return []


def main() -> int:
    """Print the faults and return 1 if there are any."""
    faults = [f"{name} is tracked" for name in tracked_locks()]
    sizes = sorted(module_sizes().items(), key=lambda entry: -entry[1])
    faults += [
        f"{name} has {lines} lines, the ceiling is {CEILING}" for name, lines in sizes if lines > CEILING
    ]
    pinned = sorted((ROOT / "requirements").glob("*.txt"))
    for path in pinned:
        faults += [f"{path.name}: {fault}" for fault in requirement_faults(path.read_text())]
    for fault in faults:
        print(fault)
    if large := [f"{name} ({lines})" for name, lines in sizes if LARGE < lines <= CEILING]:
        print(f"above {LARGE} lines: {', '.join(large)}")
    print(f"{len(sizes)} modules, {len(pinned)} requirements files")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

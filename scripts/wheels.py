"""Build the wheels of a release again: `python -m scripts.wheels v0.1.0` writes them to dist/v0.1.0/.

So that a later client can be tested against an earlier server, and the other way round. Reads the tag's
tree out of git; the checkout stays as it is. A second call finds the wheels and does nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import tags

MEMBERS = ("proto", "client", "server")
DIST = tags.ROOT / "dist"


def build(tag: str) -> list[Path]:
    """Return the three wheels of a tag in the order of `MEMBERS`, built if they are not there yet.

    Raises:
        NoTag: There is no such tag.
        subprocess.CalledProcessError: pip could not build them.
    """
    folder = DIST / tag
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=_made(DIST)) as scratch:
            tree, wheels = Path(scratch) / "tree", Path(scratch) / "wheels"
            tags.extract(tag, tree, *MEMBERS)
            wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
            wheel += ["--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels)]
            subprocess.run([*wheel, *(str(tree / member) for member in MEMBERS)], check=True)
            # Renamed when all are done: a folder that is there is complete.
            wheels.rename(folder)
    return [next(folder.glob(f"tenure_{member}-*.whl")) for member in MEMBERS]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def main(arguments: list[str]) -> int:
    """Build the wheels of one tag, the newest if none is named, and print their paths."""
    try:
        tag = arguments[0] if arguments else tags.newest()
        wheels = build(tag)
    except tags.NoTag as reason:
        print(f"no wheels: {reason}", file=sys.stderr)
        return 1
    print("\n".join(str(wheel.relative_to(tags.ROOT)) for wheel in wheels))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

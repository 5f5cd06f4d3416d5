"""Released versions: the newest tag, and what the tree held at it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class NoTag(Exception):
    """There is no release to compare with; the text says why."""


def newest() -> str:
    """Return the newest release tag `v<version>`.

    Raises:
        NoTag: There is none, or this is not a git checkout.
    """
    try:
        tags = _git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
    except (OSError, subprocess.CalledProcessError) as error:
        stderr = getattr(error, "stderr", None)
        raise NoTag(f"git cannot list tags: {stderr.decode().strip() if stderr else error}") from error
    if not tags:
        raise NoTag("there is no tag v* yet")
    return tags[0]


def extract(tag: str, folder: Path, *paths: str) -> None:
    """Write `paths` as they were at `tag` below `folder`; nothing in the checkout changes.

    Raises:
        NoTag: There is no such tag, or it has none of the paths.
    """
    try:
        archive = _git("archive", "--format=tar", f"refs/tags/{tag}", "--", *paths)
    except subprocess.CalledProcessError as error:
        raise NoTag(f"cannot read {tag}: {error.stderr.decode().strip()}") from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout

"""Rehearse the Dockerfile without a container engine: `python -m scripts.image`.

Runs the COPY and RUN instructions of its build stage in a scratch folder, with /src and /opt moved there, and
looks at the environment that the image would hold. Installs the pinned packages, so it needs an index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ABSENT = ("langgraph", "langchain_core", "langsmith", "ormsgpack", "tenure_client", "pip")
PRESENT = ("tenure.v1", "tenure_server", "psycopg_binary", "redis", "opentelemetry.exporter.otlp")
PROBE = """
import sys
from importlib.util import find_spec
for name in sys.argv[1:]:
    try:
        if find_spec(name):
            print(name)
    except ModuleNotFoundError:
        pass
"""


def instructions(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage as (keyword, rest), continued lines joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, joined.splitlines()):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((keyword, rest.strip()))
    return stages


def rehearse(scratch: Path) -> Path:
    """Run the build stage below `scratch` and return the environment that it made."""
    source, opt = scratch / "src", scratch / "opt"
    source.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for keyword, rest in instructions((ROOT / "Dockerfile").read_text())[0]:
        if keyword == "COPY":
            *names, target = rest.split()
            for name in names:
                _copy(ROOT / name, source / target / Path(name).name if len(names) > 1 else source / target)
        elif keyword == "RUN":
            command = rest.replace("/opt/", f"{opt}/")
            print(f"+ {command}", flush=True)
            subprocess.run(["bash", "-ceu", command], cwd=source, env=environment, check=True)
    return opt / "tenure"


def faults(environment: Path) -> list[str]:
    """Return what is wrong with an environment: what it must not hold, and what does not run."""
    python = [str(environment / "bin" / "python"), "-I", "-c", PROBE]
    asked = subprocess.run([*python, *ABSENT, *PRESENT], capture_output=True, text=True, check=True)
    found = set(asked.stdout.split())
    wrong = [f"{name} is installed" for name in ABSENT if name in found]
    wrong += [f"{name} is missing" for name in PRESENT if name not in found]
    shown = subprocess.run(
        [str(environment / "bin" / "tenure"), "--help"], capture_output=True, text=True, check=False
    )
    if shown.returncode or "serve" not in shown.stdout:
        wrong.append(f"`tenure --help` fails: {shown.stderr.strip() or shown.stdout}")
    return wrong


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def main() -> int:
    """Rehearse, print the faults, and return 1 if there are any."""
    with tempfile.TemporaryDirectory() as scratch:
        wrong = faults(rehearse(Path(scratch)))
    print("\n".join(wrong) or "the image's environment is as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

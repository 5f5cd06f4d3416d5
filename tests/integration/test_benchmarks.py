"""`python -m benchmarks` keeps what it has measured when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_interrupted_run_reports_and_writes_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    endless = ["--quick", "--only", "chat-1", "--systems", "memory", "--rounds", "1000"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "benchmarks", *endless, "--json", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        while "turns/s" not in (line := run.stdout.readline()):
            assert line, "the run ended"
        run.send_signal(signal.SIGINT)
        told = run.stdout.read()
    assert run.returncode == 0
    assert "interrupted" in told
    written = json.loads(file.read_text())
    assert written["interrupted"] is True
    assert written["samples"]
    assert {row["system"] for row in written["figures"]} == {"memory"}

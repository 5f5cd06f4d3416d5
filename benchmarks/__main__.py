"""`python -m benchmarks`: runs the benchmarks and prints the tables."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

import click

from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.systems import SYSTEMS, System
from benchmarks.targets import Target, targets
from benchmarks.workloads import workloads as all_workloads
from benchmarks.workloads.base import Workload

_DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A reduced set with small counts, in less than a minute.")
@click.option("--only", "chosen", metavar="NAME,...", multiple=True, help="Run these workloads only.")
@click.option("--systems", metavar="NAME,...", help="Run these systems only; ratios need `postgres`.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="Rounds of each workload; slow ones are run once unless --only names them. Default: 1 to 5.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it all.")
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Draw plots into a folder.")
@click.option("--docs", is_flag=True, help="Write JSON and plots to docs/benchmarks, after Ctrl-C too.")
@click.option("--list", "list_only", is_flag=True, help="List workloads and systems, or those named.")
def main(
    quick: bool,
    chosen: tuple[str, ...],
    systems: str | None,
    rounds: int | None,
    json_file: Path | None,
    plots: Path | None,
    docs: bool,
    list_only: bool,
) -> None:
    """Measure Tenure and every saver or store that an agent could pick instead, in turn, on this machine."""
    known = all_workloads(quick=quick)
    always = tuple(name for name, workload in known.items() if not workload.on_request)
    wanted = _named(known, ",".join(chosen or always), "--only")
    if rounds is not None:
        # What runs once takes long or says the same each time.
        wanted = {
            name: replace(workload, rounds=rounds) if chosen or quick or workload.rounds > 1 else workload
            for name, workload in wanted.items()
        }
    names = _named(SYSTEMS, systems or ",".join(SYSTEMS), "--systems")
    if list_only:
        _list(wanted if chosen else known, names)
        return
    # Heavy and of no use to `--help` and `--list`.
    from benchmarks.machine import facts
    from benchmarks.runner import Runner
    from benchmarks.servers import Servers

    signal.signal(signal.SIGTERM, _stop)
    started = time.monotonic()
    with _folder() as folder:
        click.echo("starting Postgres and Valkey")
        with Servers(folder) as servers:
            machine = facts(servers)
            runner = Runner(servers, list(wanted.values()), list(names), quick=quick, folder=folder)
            results, interrupted = runner.results, False
            try:
                runner.run()
            except KeyboardInterrupt:
                interrupted = True
                click.echo("\ninterrupted; what was measured until now:")
            log = runner.log_tail()
    goals = targets(results, wanted)
    click.echo("\n" + report(results, list(wanted.values()), goals, machine, quick=quick))
    click.echo(f"\n{len(results.samples)} samples in {time.monotonic() - started:.0f} s")
    if log:
        click.echo(f"\nWhat failed clients wrote last:\n{log}")
    if not results.samples:
        return
    everything = _everything(results, list(wanted.values()), goals, machine, quick=quick)
    everything["interrupted"] = interrupted
    if docs:
        json_file, plots = json_file or _DOCS / "results.json", plots or _DOCS
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(everything, indent=1, allow_nan=False) + "\n")
    if plots is not None:
        from benchmarks.plots import draw

        for file in draw(everything, plots):
            click.echo(f"wrote {file.name}")


def _everything(
    results: Results, wanted: list[Workload], goals: list[Target], machine: dict[str, str], *, quick: bool
) -> dict[str, Any]:
    everything = {
        "quick": quick,
        "machine": machine,
        "systems": {name: system.label for name, system in SYSTEMS.items()},
        "workloads": {workload.name: workload.title for workload in wanted},
        "targets": [
            {
                "target": goal.label.strip(),
                "measured": goal.measured,
                "floor": goal.floor,
                "goal": goal.goal,
                "unit": goal.unit.strip(),
                "verdict": goal.verdict,
            }
            for goal in goals
        ],
        "figures": results.rows(wanted),
        "samples": [
            {
                "workload": sample.workload,
                "system": sample.system,
                "round": sample.number,
                "error": sample.error,
                "measures": {measure.metric: [measure.value, measure.cpu_ms] for measure in sample.measures},
            }
            for sample in results.samples
        ],
        "skipped": results.skipped,
    }
    return cast("dict[str, Any]", _finite(everything))


def _finite(value: Any) -> Any:
    """Return it with null for what JSON cannot say: the latency of a saturated system."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _list(workloads: dict[str, Workload], systems: dict[str, System]) -> None:
    for workload in workloads.values():
        click.echo(f"({workload.part}) {workload.name:<16} {workload.title}")
    click.echo("\nsystems:")
    for system in systems.values():
        click.echo(f"    {system.name:<16} {system.label}")


def _named(known: dict[str, Any], listed: str, option: str) -> dict[str, Any]:
    names = [name.strip() for name in listed.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(
            f"there is no {', '.join(unknown)}; there are {', '.join(known)}", param_hint=option
        )
    return {name: found for name, found in known.items() if name in names}


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards. Other accounts may pass it: as root, Postgres is one."""
    folder = Path(tempfile.mkdtemp(prefix="tenure-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop(*_: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()

"""Plots of a run for the documentation, as SVG and PNG. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_OURS, _REFERENCE, _OTHER = "#0b7a75", "#4a5568", "#b8c0cc"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "tenure",
}
_BARS = (
    ("chat-32", "turns/s", "32 conversations at once, turns/s", False),
    ("procs-4x8", "turns/s", "4 client processes x 8 conversations, turns/s", False),
    ("chat-1", "p50", "A lone conversation, ms per turn (p50)", False),
    ("long", "p50 tail", "A conversation of 400 turns, ms per turn (p50 of the last turns)", False),
    ("long", "stored", "A conversation of 400 turns, KB stored", True),
    ("get-1MiB", "held", "Get of a 1 MiB state that the client holds, ms", False),
    ("storm", "cold", "500 threads read at once after a restart, threads/s", False),
    ("store-put-32", "8 processes x 4, puts/s", "8 client processes x 4 that put small items, puts/s", False),
    ("store-get-32", "8 processes x 4, gets/s", "8 client processes x 4 that get small items, gets/s", False),
    ("store-vector-100k", "p50", "Semantic search in 100,000 items, ms (p50)", False),
)
_CPU = ("chat-32", "turns/s", "32 conversations at once, CPU ms per turn over all processes")


def draw(run: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what a run measured.

    Args:
        run: What the JSON holds.
        folder: Made if need be.

    Returns:
        The files; plots of which nothing was measured are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        return [file for name, figure in _figures(run) for file in _save(figure, folder / name)]


def _figures(run: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for workload, metric, title, logarithmic in _BARS:
        rows = _rows(run, workload, metric)
        if rows:
            name = f"{workload}-{metric.replace(',', '').replace('/', '-per-').replace(' ', '-')}"
            yield name, _bars(run, rows, title, lambda row: row, logarithmic=logarithmic)
    rows = [row for row in _rows(run, *_CPU[:2]) if row["cpu_ms_per_operation"]]
    if rows:
        yield f"{_CPU[0]}-cpu", _bars(run, rows, _CPU[2], lambda row: row["cpu_ms_per_operation"])
    load = [row for row in run["figures"] if row["workload"] == "load"]
    if load:
        yield "load", _load(run, load)


def _rows(run: dict[str, Any], workload: str, metric: str) -> list[dict[str, Any]]:
    return [row for row in run["figures"] if (row["workload"], row["metric"]) == (workload, metric)]


def _bars(
    run: dict[str, Any],
    rows: list[dict[str, Any]],
    title: str,
    summary: Callable[[dict[str, Any]], dict[str, float]],
    *,
    logarithmic: bool = False,
) -> Any:
    figure, axes = plt.subplots(figsize=(7.5, 0.7 + 0.36 * len(rows)))
    for place, row in enumerate(rows):
        value = summary(row)
        spread = [[value["median"] - value["low"]], [value["high"] - value["median"]]]
        axes.barh(place, value["median"], color=_colour(row["system"]), height=0.7)
        axes.errorbar(value["median"], place, xerr=spread, color="black", linewidth=0.8, capsize=2)
        axes.annotate(
            f"{value['median']:,.3g}" if value["median"] < 1000 else f"{value['median']:,.0f}",
            (value["high"], place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(title)
    if logarithmic:
        axes.set_xscale("log")
    return figure


def _load(run: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), sharex=True, sharey=True)
    for axes, percent in zip(panels, (50, 99), strict=True):
        for system in dict.fromkeys(row["system"] for row in rows):
            points = [
                (int(row["metric"].split()[-1].removesuffix("/s")), row["median"])
                for row in rows
                if row["system"] == system
                and row["metric"].startswith(f"p{percent} ")
                and row["median"] is not None
            ]
            if not points:
                continue
            ours = system.startswith("tenure")
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                label=run["systems"][system],
                linewidth=2 if ours else 1.2,
                linestyle="--" if system == "tenure-tls" else "-",
                color=_OURS if ours else _REFERENCE if system == "postgres" else None,
            )
        axes.set_yscale("log")
        axes.set_xlabel("turns/s that arrive")
        axes.set_title(f"p{percent} of a turn, ms")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _colour(system: str) -> str:
    if system.startswith("tenure"):
        return _OURS
    return _REFERENCE if system == "postgres" else _OTHER


def _save(figure: Any, path: Path) -> list[Path]:
    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    # Without the date, so that the same run gives the same file.
    figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=144)
    plt.close(figure)
    return files

"""The workloads, each in a full and a quick size."""

from __future__ import annotations

from benchmarks.workloads import stores
from benchmarks.workloads.base import ALL, SCALED, Workload
from benchmarks.workloads.fair import Fair
from benchmarks.workloads.load import OpenLoop, Soak
from benchmarks.workloads.long import Long, Wire
from benchmarks.workloads.reading import Histories, LargeGets
from benchmarks.workloads.storm import Storm
from benchmarks.workloads.sweep import Sweep
from benchmarks.workloads.turns import Turns

MIB = 1 << 20
_MEASURED_ON_WIRE = ("postgres", "plainredis", "tenure", "tenure-tls")
_RANDOM_TEXT = (
    "Words of random letters, on which Postgres' compression gains nothing: the text that the targets were "
    "set with."
)
_PROSE_TEXT = (
    "Words that compress as English prose does, which helps savers that store the whole list again most. "
    "Both texts are shown, and neither is chosen to flatter: targets keep their text, English is nearer "
    "to this one."
)
_FAIR = (
    "What CPU load does to the quiet tenant is the machine's doing: it burns the flood's CPU time and sends "
    "nothing. What the flood does beyond that is queueing in the server."
)
_SWEEP = (
    "A policy keeps 3 checkpoints of each of 8 threads. The sweeper, a process of its own, starts again "
    "50 ms after it has ended. CPU time per write is that of all processes: the sweeper's is "
    "in it, with what it clears before writes begin."
)


def workloads(*, quick: bool) -> dict[str, Workload]:
    """Return the workloads by name, in the order in which they run."""
    made = [*_quick(), *stores.quick()] if quick else [*_full(), *stores.full()]
    return {workload.name: workload for workload in made}


def _full() -> list[Workload]:
    return [
        Turns(
            name="chat-1", part="a", title="1 conversation", turns=60, warm_up=5, systems=ALL[:-1], rounds=5
        ),
        Turns(
            name="chat-32",
            part="a",
            title="32 conversations at once",
            turns=10,
            conversations=32,
            systems=ALL,
            rounds=5,
        ),
        Long(
            name="long",
            part="b",
            title="1 conversation of 400 turns",
            note=_RANDOM_TEXT,
            turns=400,
            tail=50,
            fresh=True,
        ),
        Long(
            name="long-prose",
            part="b",
            title="the same, in words that compress as prose does",
            note=_PROSE_TEXT,
            turns=400,
            tail=50,
            prose=True,
            systems=("postgres", "sqlite", "tenure"),
            rounds=1,
            fresh=True,
        ),
        Wire(
            name="wire",
            part="b",
            title="1 conversation of random letters, bytes on the wire (counting pass; from turn 1,500 on "
            "Tenure only: others would write gigabytes)",
            turns=1500,
            tail=20,
            marks=(400, 1500),
            heavy=400,
            systems=_MEASURED_ON_WIRE,
            rounds=1,
        ),
        Turns(name="fanout-16", part="c", title="16 tasks side by side", graph="fanout", turns=30),
        Turns(
            name="state-1MiB",
            part="d",
            title="1 MiB of bytes, edited",
            graph="edit",
            turns=20,
            warm_up=2,
            size=MIB,
        ),
        Turns(
            name="state-1MiB-new",
            part="d",
            title="1 MiB of bytes, all new",
            graph="replace",
            turns=20,
            warm_up=2,
            size=MIB,
        ),
        Turns(
            name="state-16MiB",
            part="d",
            title="16 MiB of bytes, edited",
            graph="edit",
            turns=6,
            warm_up=2,
            size=16 * MIB,
        ),
        LargeGets(
            name="get-1MiB", part="d", title="get of a 1 MiB bytes state", size=MIB, threads=20, gets=50
        ),
        Histories(
            name="history",
            part="e",
            title="reads of a thread of 200 turns",
            turns=200,
            limit=100,
            states=50,
            shorts=3,
            fulls=1,
        ),
        Turns(
            name="delta",
            part="f",
            title="1 conversation, messages in a DeltaChannel",
            graph="delta",
            turns=60,
            warm_up=5,
        ),
        Storm(
            name="storm",
            part="g",
            title="500 threads of 10 turns read at once",
            threads=500,
            turns=10,
            systems=SCALED,
        ),
        OpenLoop(
            name="load",
            part="h",
            title="turns arrive at fixed rates, whether or not those before have ended",
            rates=(25, 50, 100, 200),
            seconds=6.0,
            rounds=1,
        ),
        Turns(
            name="procs-4x8",
            part="i",
            title="4 client processes with 8 conversations each",
            turns=10,
            conversations=8,
            processes=4,
            systems=SCALED,
        ),
        Fair(
            name="fair",
            part="j",
            title="puts and gets of a quiet tenant at 25/s, beside another one at 20 times that",
            note=_FAIR,
            rate=25,
            share=20,
            seconds=12.0,
            systems=("tenure",),
            rounds=1,
        ),
        Sweep(
            name="sweep",
            part="m",
            title="100 writes/s on 8 threads, without a sweeper and beside one that runs every 50 ms",
            note=_SWEEP,
            rate=100,
            threads=8,
            keep=3,
            interval=0.05,
            seconds=2.5,
            systems=("tenure",),
        ),
        Soak(
            name="soak",
            part="h",
            title="40 turns/s for 10 minutes: the server's memory (runs only if named by --only)",
            rates=(40,) * 10,
            seconds=60.0,
            systems=("postgres", "tenure"),
            rounds=1,
            on_request=True,
        ),
    ]


def _quick() -> list[Workload]:
    """Some of the same names with small sizes."""
    few = ("memory", "postgres", "tenure")
    both = ("postgres", "tenure")
    return [
        # The first one: places are shared, and what is stored is weighed.
        Long(
            name="long",
            part="b",
            title="1 conversation of 100 turns",
            turns=100,
            tail=20,
            systems=both,
            rounds=1,
            judged=False,
        ),
        Turns(
            name="chat-1", part="a", title="1 conversation", turns=20, systems=(*few, "tenure-sync"), rounds=1
        ),
        Turns(
            name="chat-32",
            part="a",
            title="32 conversations at once",
            turns=4,
            conversations=32,
            warm_up=1,
            systems=few,
            rounds=1,
        ),
        Wire(
            name="wire",
            part="b",
            title="1 conversation, bytes on the wire",
            turns=40,
            tail=5,
            marks=(20, 40),
            heavy=40,
            systems=both,
            rounds=1,
            judged=False,
        ),
        LargeGets(
            name="get-1MiB",
            part="d",
            title="get of a 1 MiB bytes state",
            size=MIB,
            threads=5,
            gets=20,
            systems=both,
            rounds=1,
        ),
        Storm(
            name="storm",
            part="g",
            title="60 threads of 2 turns read at once",
            threads=60,
            turns=2,
            systems=both,
            rounds=1,
        ),
        Turns(
            name="procs-4x8",
            part="i",
            title="4 client processes with 8 conversations each",
            turns=4,
            conversations=8,
            processes=4,
            warm_up=1,
            systems=both,
            rounds=1,
        ),
    ]

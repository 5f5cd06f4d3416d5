"""What retention keeps, as plainly as it can be said: the reference that the database is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[str, str]
"""Namespace and checkpoint id."""


@dataclass(frozen=True)
class Step:
    """A checkpoint.

    Attributes:
        age: Hours since it was stored.
        parent: Its parent's id.
        caller: The root checkpoint that called the subgraph it is of.
        deltas: DeltaChannels that its metadata counts.
        versions: Version of each channel.
        format: LangGraph's `v`.
        sends: Whether it has writes to the tasks channel.
        written: Hours since its latest write was stored.
    """

    ns: str
    id: str
    age: float
    parent: str | None = None
    caller: str | None = None
    deltas: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = 4
    sends: bool = False
    written: float = float("inf")

    @property
    def place(self) -> Place:
        return self.ns, self.id


@dataclass(frozen=True)
class Thread:
    """A thread.

    Attributes:
        steps: Its checkpoints.
        age: Hours since it was made.
        heads: The latest checkpoint of namespaces where it is not the greatest id.
        pins: Pinned checkpoints.
        pinned: Whether it is pinned as a whole.
        held: Whether a legal hold covers it.
        leased: Whether a writer has a lease.
    """

    id: str
    steps: Sequence[Step]
    age: float
    heads: Mapping[str, str] = field(default_factory=dict)
    pins: frozenset[Place] = frozenset()
    pinned: bool = False
    held: bool = False
    leased: bool = False

    @property
    def last(self) -> float:
        """Hours since something was stored in it."""
        return min([self.age, *(min(step.age, step.written) for step in self.steps)])


@dataclass(frozen=True)
class Rules:
    """A policy for threads; ages in hours."""

    prefix: str = ""
    max_age: float | None = None
    max_idle: float | None = None
    keep_last: int | None = None
    floor: int = 0


def rules_of(thread: Thread, policies: Iterable[Rules]) -> Rules | None:
    """Return the policy that counts."""
    matching = [rules for rules in policies if thread.id.startswith(rules.prefix)]
    return max(matching, key=lambda rules: len(rules.prefix), default=None)


def expired(thread: Thread, policies: Iterable[Rules], *, evicted: bool = False) -> set[Place] | None:
    """Return what of a thread has expired, None for all of it."""
    rules = rules_of(thread, policies)
    if rules is None or thread.held or thread.pinned:
        return set()
    limits = [limit for limit in (rules.max_age, rules.max_idle) if limit is not None]
    over = not thread.leased and (evicted or any(thread.last >= limit for limit in limits))
    if over and not rules.floor and not thread.pins:
        return None
    return {step.place for step in thread.steps} - _kept(thread, rules, over)


def _kept(thread: Thread, rules: Rules, over: bool) -> set[Place]:
    by_place = {step.place: step for step in thread.steps}
    kept: set[Place] = set()
    for ns in {step.ns for step in thread.steps}:
        newest = _newest_first(thread, ns)
        for rank, step in enumerate(newest, start=1):
            young = rules.max_age is None or step.age < rules.max_age
            few = rules.keep_last is None or rank <= rules.keep_last
            if rank <= max(rules.floor, 1) or step.place in thread.pins or (not over and young and few):
                kept.add(step.place)
    for place in list(kept):
        for channel in by_place[place].deltas:
            kept |= set(_way(by_place, place, channel))
    for place in list(kept):
        step = by_place[place]
        parent = by_place.get((step.ns, step.parent or ""))
        if step.format < 4 and parent is not None and parent.sends:
            kept.add(parent.place)
    for ns in {step.ns for step in thread.steps if ":" in step.ns}:
        caller = ("", _newest_first(thread, ns)[0].caller or "")
        pinned = any(place[0] == ns for place in thread.pins)
        if caller in by_place and caller not in kept and not pinned:
            kept = {place for place in kept if place[0] != ns}
    return kept


def _newest_first(thread: Thread, ns: str) -> list[Step]:
    steps = sorted((step for step in thread.steps if step.ns == ns), key=lambda step: step.id, reverse=True)
    head = thread.heads.get(ns)
    return sorted(steps, key=lambda step: step.id != head)


def _way(by_place: Mapping[Place, Step], start: Place, channel: str) -> Iterable[Place]:
    """Yield a checkpoint and its ancestors, up to the nearest with a value of the channel."""
    place: Place | None = start
    seen = set()
    while place in by_place and place not in seen:
        assert place is not None
        seen.add(place)
        yield place
        step = by_place[place]
        if channel in step.versions or step.parent is None:
            return
        place = (step.ns, step.parent)

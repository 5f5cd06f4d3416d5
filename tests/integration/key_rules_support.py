"""A tenant that two teams share, each with a key that is limited to threads of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum

import grpc
from tenure.v1 import checkpoints_pb2 as pb

from tests.harness.stack import Stack, TenantHandle
from tests.integration.tenants_support import Ids, contents
from tests.integration.wire_support import Wire

REFUSED = "OUTSIDE_RULES"


class How(Enum):
    """How the rules of a key apply to an RPC."""

    NAMED = "each thread or namespace that it names must be allowed"
    ALL = "it finds what it is about by itself: all must be allowed, unless it names one"
    SHOWN = "it shows what may be read"
    NOTHING = "it reaches nothing"
    SHARE = "keys with the same rules share what they have"


THREADS = {
    "Write": How.NAMED,
    "WriteSliced": How.NAMED,
    "Read": How.NAMED,
    "ReadSliced": How.NAMED,
    "Session": How.NAMED,
    "List": How.ALL,
    "GetChannelHistory": How.NAMED,
    "ListThreads": How.SHOWN,
    "DeleteThread": How.NAMED,
    "DeleteForRuns": How.ALL,
    "CopyThread": How.NAMED,
    "PruneThreads": How.NAMED,
    "GetServerInfo": How.NOTHING,
}
"""Every RPC about threads, or about nothing."""
ITEMS = {
    "Batch": How.NAMED,
    "BatchSliced": How.NAMED,
    "GetIndex": How.SHOWN,
    "SetIndex": How.ALL,
    "ListUnembedded": How.SHOWN,
    "PutVectors": How.NAMED,
    "PutVectorsSliced": How.NAMED,
}
"""Every RPC about items; searches and listings in a batch show what may be read."""
RESULTS = {"Get": How.SHARE, "Set": How.SHARE, "Clear": How.SHARE}
"""Every RPC about results of nodes."""


@dataclass(frozen=True)
class Team:
    """A service that shares the tenant: its key is limited to the threads with its prefix.

    Attributes:
        wire: Its channel.
        own: Names of what it has stored.
        canary: Text that is in everything it has stored.
    """

    wire: Wire
    own: Ids
    canary: str


@dataclass(frozen=True)
class Shared:
    """A tenant with two teams, and a key that is not limited."""

    tenant: TenantHandle
    everywhere: Wire
    a: Team
    b: Team

    def stored(self, team: Team | None = None) -> list[tuple[bytes, ...]]:
        """Return all that the tenant has, or all that is below a team's prefix."""
        prefix = "" if team is None else team.own.thread[:2]
        threads = self.everywhere.call("ListThreads", pb.ListThreadsRequest(prefix=prefix))
        found = [thread.thread_id for thread in threads.message(pb.ListThreadsResponse).threads]
        listings = [self.everywhere.call("List", pb.ListRequest(thread_id=thread)) for thread in found]
        assert all(listing.code is grpc.StatusCode.OK for listing in listings)
        return [threads.messages, *(listing.messages for listing in listings)]


@contextmanager
def shared(stack: Stack, a: str = "threads:a-:rw", b: str = "threads:b-:rw") -> Iterator[Shared]:
    """Make a tenant, and in it two teams with these rules; both have stored the same things."""
    tenant = stack.new_tenant()
    with ExitStack() as closing:
        everywhere = closing.enter_context(Wire(stack.target, tenant.api_key))
        teams = []
        for name, rule in (("a", a), ("b", b)):
            wire = closing.enter_context(Wire(stack.target, stack.new_key(tenant, rule)))
            canary = f"canary{secrets.token_hex(4)}"
            own = ids_below(f"{name}-{canary}")
            stored = everywhere.call("Write", pb.WriteRequest(mutations=contents(own, canary)))
            assert {result.status.code for result in stored.message(pb.WriteResponse).results} == {0}
            teams.append(Team(wire, own, canary))
        yield Shared(tenant, everywhere, *teams)


def ids_below(start: str) -> Ids:
    """Return names that occur nowhere else."""
    return Ids(start + secrets.token_hex(8), "", "point", f"run{secrets.token_hex(8)}")

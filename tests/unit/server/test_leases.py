"""Leases behind the gate: the times they may have, and the account of writers that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tenure.v1 import checkpoints_pb2 as pb
from tenure.v1 import common_pb2
from tenure_server import telemetry
from tenure_server.limits import Limits
from tenure_server.wire import leases
from tenure_server.wire.requests import Requests

from tests.unit.server.serving import operation, serving
from tests.unit.server.spans import recording

REQUESTS = Requests(Limits())


@pytest.mark.parametrize(("asked", "given"), [(0, 30_000), (1000, 1000), (3_600_000, 3_600_000)])
def test_a_lease_lasts_as_long_as_is_asked_for(asked: int, given: int) -> None:
    message = pb.AcquireLeaseRequest(operation=operation(), thread_id="t", ttl_ms=asked, holder="é 🦜")
    assert leases.acquire(REQUESTS, message)[1:] == ("t", "é 🦜", given)
    prolonged = pb.RenewLeaseRequest(
        operation=operation(), thread_id="t", ttl_ms=asked, lease_token=2**63 - 1
    )
    assert leases.renew(REQUESTS, prolonged)[1:] == ("t", 2**63 - 1, given)


@pytest.mark.parametrize("parent", [None, "", "1"])
def test_a_put_says_what_it_expects(parent: str | None) -> None:
    message = pb.Mutation(
        operation=operation(),
        put=pb.PutCheckpoint(
            ref=pb.CheckpointRef(thread_id="t", checkpoint_id="2"),
            checkpoint=common_pb2.Blob(type="msgpack"),
            expected_parent=parent,
        ),
    )
    assert REQUESTS.mutation(message, "mutations[0]").expected_parent == parent  # type: ignore[union-attr]


class Counter:
    """Stands in for a counter of OpenTelemetry."""

    def __init__(self) -> None:
        self.counted: list[Any] = []

    def add(self, amount: int, attributes: dict[str, str]) -> None:
        self.counted.append((amount, attributes))


async def test_refusals_are_counted_by_tenant_and_are_events_of_the_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans: InMemorySpanExporter = recording(monkeypatch)
    counter = Counter()
    monkeypatch.setattr(telemetry, "writers_refused", counter)
    async with serving() as served:
        acquire = pb.AcquireLeaseRequest(operation=operation(), thread_id="t")
        held = await served.stub.AcquireLease(acquire, metadata=served.metadata)
        again = pb.AcquireLeaseRequest(operation=operation(), thread_id="t")
        with pytest.raises(Exception, match="only writer"):
            await served.stub.AcquireLease(again, metadata=served.metadata)
        writes = pb.PutWrites(ref=pb.CheckpointRef(thread_id="t", checkpoint_id="1"))
        refused = pb.Mutation(operation=operation(), put_writes=writes)
        stored = pb.Mutation(operation=operation(), put_writes=writes)
        stored.put_writes.lease_token = held.lease_token
        request = pb.WriteRequest(mutations=[refused, stored, refused])
        reply = await served.stub.Write(request, metadata=served.metadata)
        assert [_reason(result.status) for result in reply.results] == [
            "ERROR_REASON_STALE_WRITER",
            "",
            "ERROR_REASON_STALE_WRITER",
        ]
        label = telemetry.tenant_labels.of(served.tenant)
    reasons = ["LEASE_HELD", "STALE_WRITER", "STALE_WRITER"]
    assert counter.counted == [(1, {"reason": reason, "tenure.tenant": label}) for reason in reasons]
    events = [
        (span.name.rpartition("/")[2], event.name, dict(event.attributes or {}))
        for span in spans.get_finished_spans()
        for event in span.events
    ]
    assert events == [
        ("AcquireLease", "tenure.writer_refused", {"reason": "LEASE_HELD"}),
        ("Write", "tenure.writer_refused", {"reason": "STALE_WRITER"}),
        ("Write", "tenure.writer_refused", {"reason": "STALE_WRITER"}),
    ]


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return info.reason

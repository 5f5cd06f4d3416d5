"""A tenant that floods, with a rate and without: the others do not feel it, and metrics show who it is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from tenure_server.domain import TenantId
from tenure_server.telemetry import tenant_hash

from tests.harness.otlp_metrics import metric_sink
from tests.harness.processes import PATIENCE
from tests.harness.server import ServerProcess
from tests.harness.stack import Stack
from tests.integration.checkpoints_support import SLOW
from tests.integration.quota_support import flood, quota_callers, reader

OK, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
CALLS = 5000 if SLOW else 1000
"""Of the tenant that does not flood: with fewer, one failure would be more than a thousandth."""
RATE = 50.0

Readings = Mapping[frozenset[tuple[str, str]], float]


@pytest.mark.parametrize("limited", [True, False], ids=["with a rate", "without"])
def test_a_flood_leaves_others_alone_and_is_seen_in_metrics_by_tenant(
    stack: Stack, run_folder: Path, limited: bool
) -> None:
    noisy, quiet = stack.new_tenant(), stack.new_tenant()
    if limited:
        with quota_callers(stack.admin_target, stack.new_operator()) as (operator,):
            operator.set(noisy.tenant_id, operations_per_second=RATE, burst_seconds=0.1)
    done = threading.Event()
    outcomes: Counter[grpc.StatusCode] = Counter()
    flooded: Counter[grpc.StatusCode] = Counter()
    with metric_sink() as sink:
        server = ServerProcess(
            run_folder,
            stack.database,
            stack.redis_url,
            env={
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink.target}",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
            },
        )
        try:
            target = server.start().target

            def keep_flooding() -> None:
                while not done.is_set():
                    flooded.update(flood([target], noisy.api_key, 0.5, threads=8))

            flooding = threading.Thread(target=keep_flooding)
            flooding.start()
            channel, read = reader(target, quiet.api_key)
            with channel:
                for _ in range(CALLS):
                    outcomes[read(1)] += 1
            done.set()
            flooding.join()

            shown = {
                name: tenant_hash(TenantId(UUID(tenant.tenant_id)))
                for name, tenant in (("noisy", noisy), ("quiet", quiet))
            }

            def count(readings: Readings, name: str, outcome: str) -> float:
                return readings.get(frozenset({("tenure.tenant", shown[name]), ("outcome", outcome)}), 0)

            readings = sink.wait_for(
                "tenure.tenant.operations",
                lambda found: (
                    count(found, "quiet", "ok") == outcomes[OK]
                    and count(found, "noisy", "ok") + count(found, "noisy", "refused") == flooded.total()
                ),
                PATIENCE,
            )
        finally:
            server.close()
    assert outcomes[OK] >= 0.999 * CALLS
    assert count(readings, "noisy", "refused") == flooded[REFUSED]
    assert (flooded[REFUSED] > flooded[OK]) is limited
    assert flooded[OK] > 0
    assert not [named for named in readings if noisy.tenant_id in str(named)]

"""How much runs at once."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import uuid4

import pytest
from tenure_server import auth, errors
from tenure_server.admission import SESSIONS, SLICED, STREAMS, UNARY, Admission, Room
from tenure_server.domain import TenantId

SERVICE = "/tenure.v1.CheckpointService/"
ROOMS = [
    ("Write", UNARY),
    ("Read", UNARY),
    ("List", STREAMS),
    ("GetChannelHistory", STREAMS),
    ("WriteSliced", SLICED),
    ("Session", SESSIONS),
]


def _tenants() -> tuple[TenantId, TenantId]:
    return TenantId(uuid4()), TenantId(uuid4())


@pytest.mark.parametrize(("method", "room"), ROOMS)
def test_a_tenant_has_so_many_slots_and_leaves_room_for_others(method: str, room: Room) -> None:
    tenant, other = _tenants()
    admission = Admission()
    with ExitStack() as running:
        for _ in range(room.per_tenant):
            running.enter_context(admission.slot(SERVICE + method, tenant))
        with pytest.raises(errors.Overloaded) as caught, admission.slot(SERVICE + method, tenant):
            pass
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 0
        with admission.slot(SERVICE + method, other):
            pass
    with admission.slot(SERVICE + method, tenant):
        pass


@pytest.mark.parametrize(("method", "room"), ROOMS)
def test_all_tenants_together_have_so_many_slots(method: str, room: Room) -> None:
    admission = Admission()
    with ExitStack() as running:
        for _ in range(room.in_all):
            running.enter_context(admission.slot(SERVICE + method, TenantId(uuid4())))
        with pytest.raises(errors.Overloaded), admission.slot(SERVICE + method, TenantId(uuid4())):
            pass


def test_streams_take_no_slots_of_calls() -> None:
    tenant, _ = _tenants()
    admission = Admission()
    with ExitStack() as running:
        for _ in range(STREAMS.per_tenant):
            running.enter_context(admission.slot(SERVICE + "List", tenant))
        for _ in range(SLICED.per_tenant):
            running.enter_context(admission.slot(SERVICE + "ReadSliced", tenant))
        for _ in range(UNARY.per_tenant):
            running.enter_context(admission.slot(SERVICE + "Read", tenant))


def test_a_slot_is_free_again_after_a_failure() -> None:
    tenant, _ = _tenants()
    admission = Admission()
    for _ in range(2 * SLICED.in_all):
        with pytest.raises(ZeroDivisionError), admission.slot(SERVICE + "WriteSliced", tenant):
            raise ZeroDivisionError


def test_a_refusal_takes_no_slot() -> None:
    tenant, _ = _tenants()
    admission = Admission()
    with ExitStack() as running:
        for _ in range(SLICED.per_tenant):
            running.enter_context(admission.slot(SERVICE + "WriteSliced", tenant))
        for _ in range(SLICED.in_all):
            with pytest.raises(errors.Overloaded), admission.slot(SERVICE + "WriteSliced", tenant):
                pass
        with admission.slot(SERVICE + "WriteSliced", TenantId(uuid4())):
            pass


def test_tenants_that_left_are_forgotten() -> None:
    admission = Admission()
    for _ in range(1000):
        with admission.slot(SERVICE + "Read", TenantId(uuid4())):
            pass
    assert len(admission._running) <= 1


def test_the_rooms_name_methods_that_exist() -> None:
    names = {method.rsplit("/", 1)[1] for method in auth.RULES}
    assert {method for method, _ in ROOMS} | {"ReadSliced"} <= names


def test_a_tenant_with_a_limit_of_its_own_runs_no_more_calls_of_any_kind_but_sessions() -> None:
    tenant, other = _tenants()
    admission = Admission()
    with ExitStack() as running:
        for method in ("Read", "List"):
            running.enter_context(admission.slot(SERVICE + method, tenant, 2))
        for method in ("Write", "WriteSliced"):
            with pytest.raises(errors.RateLimited) as caught, admission.slot(SERVICE + method, tenant, 2):
                pass
            assert caught.value.metadata == {"limit": "max_concurrency", "maximum": "2"}
        with admission.slot(SERVICE + "Session", tenant, 2), admission.slot(SERVICE + "Read", other, 2):
            pass
        with admission.slot(SERVICE + "Read", tenant, 3):
            pass
    with admission.slot(SERVICE + "Read", tenant, 1):
        pass
    assert len(admission._running) <= 3

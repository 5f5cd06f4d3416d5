"""Typed state, with the saver's default settings."""

from __future__ import annotations

import contextlib
import io

from tenure_client import TenureSaver

from examples import typed_state
from examples.typed_state import Customer, Money, Status


def test_models_data_classes_and_enums_come_back_as_what_they_were(saver: TenureSaver) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        stored = typed_state.main(saver)

    assert stored == {
        "customer": Customer(name="Bob", vip=True),
        "total": Money(1999, "EUR"),
        "status": Status.PAID,
    }
    assert stored["status"] is Status.PAID

"""How long Hypothesis looks: briefly and the same every time, or long with TENURE_TEST_SLOW=1."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = os.environ.get("TENURE_TEST_SLOW", "0") not in {"", "0"}


def load() -> None:
    """Set the defaults of every Hypothesis test of the run.

    No example has a deadline: the machine may be busy, and no test asserts a time.
    """
    common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("quick", common, max_examples=100, derandomize=True)
    settings.register_profile("slow", common, max_examples=5_000)
    settings.load_profile("slow" if SLOW else "quick")

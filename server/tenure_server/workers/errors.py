"""What parent and workers agree on about their end."""

from __future__ import annotations

from tenure_server.errors import TenureError

CLOSING = 4.0
"""Seconds that a worker gets after its drain, to close pools and send telemetry; pods get 5."""


class WorkersFailed(TenureError):
    """Workers cannot be kept alive, or did not end when asked; ends the process with an error."""

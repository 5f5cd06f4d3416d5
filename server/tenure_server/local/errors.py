"""What local mode cannot do."""

from __future__ import annotations


class DevError(Exception):
    """Local mode cannot start; the message says why and what to do."""

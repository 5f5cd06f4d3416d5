"""Who calls: set once by the gate, read only by servicers, which pass the tenant on explicitly."""

from __future__ import annotations

from contextvars import ContextVar

from tenure_server.domain import Principal

principal: ContextVar[Principal] = ContextVar("principal")
"""The caller of the RPC that the current task serves."""

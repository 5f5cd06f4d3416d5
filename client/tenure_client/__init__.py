"""Tenure's client: short-term memory of LangGraph agents, kept by a Tenure server.

from tenure_client import TenureSaver

graph = builder.compile(checkpointer=TenureSaver("127.0.0.1:7443", api_key="tn_..."))
"""

from tenure_client.connection import Connection
from tenure_client.errors import (
    Conflict,
    DeadlineExceeded,
    DeltaChannelInUse,
    FailedPrecondition,
    InvalidRequest,
    LimitExceeded,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    ServerError,
    TenureError,
    ThreadExists,
    ThreadNotFound,
    Unauthenticated,
    Unavailable,
    UnreadableValue,
    UntrustedType,
)
from tenure_client.saver import TenureSaver
from tenure_client.serde import TenureSerializer

__all__ = [
    "Conflict",
    "Connection",
    "DeadlineExceeded",
    "DeltaChannelInUse",
    "FailedPrecondition",
    "InvalidRequest",
    "LimitExceeded",
    "OutcomeUnknown",
    "Overloaded",
    "PermissionDenied",
    "QuotaExceeded",
    "ServerError",
    "TenureError",
    "TenureSaver",
    "TenureSerializer",
    "ThreadExists",
    "ThreadNotFound",
    "Unauthenticated",
    "Unavailable",
    "UnreadableValue",
    "UntrustedType",
]

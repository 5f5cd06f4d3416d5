"""Tenure's client: short-term and long-term memory of LangGraph agents, kept by a Tenure server.

from tenure_client import TenureSaver, TenureStore

saver = TenureSaver("127.0.0.1:7443", api_key="tn_...")
graph = builder.compile(checkpointer=saver, store=TenureStore(saver.connection))
"""

from tenure_client.cache import TenureCache
from tenure_client.connection import Connection
from tenure_client.errors import (
    Conflict,
    DeadlineExceeded,
    DeltaChannelInUse,
    FailedPrecondition,
    IndexMismatch,
    InvalidRequest,
    LeaseHeld,
    LegalHold,
    LimitExceeded,
    OutcomeUnknown,
    OutsideRules,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    StaleWriter,
    TenureError,
    ThreadExists,
    ThreadNotFound,
    Unauthenticated,
    Unavailable,
    UnreadableValue,
    UntrustedType,
)
from tenure_client.hashing_embeddings import HashingEmbeddings
from tenure_client.local_embeddings import LocalEmbeddings
from tenure_client.saver import TenureSaver
from tenure_client.serde import TenureSerializer
from tenure_client.single_writer import SingleWriter
from tenure_client.store import TenureStore

__all__ = [
    "Conflict",
    "Connection",
    "DeadlineExceeded",
    "DeltaChannelInUse",
    "FailedPrecondition",
    "HashingEmbeddings",
    "IndexMismatch",
    "InvalidRequest",
    "LeaseHeld",
    "LegalHold",
    "LimitExceeded",
    "LocalEmbeddings",
    "OutcomeUnknown",
    "OutsideRules",
    "Overloaded",
    "PermissionDenied",
    "QuotaExceeded",
    "RateLimited",
    "ServerError",
    "SingleWriter",
    "StaleWriter",
    "TenureCache",
    "TenureError",
    "TenureSaver",
    "TenureSerializer",
    "TenureStore",
    "ThreadExists",
    "ThreadNotFound",
    "Unauthenticated",
    "Unavailable",
    "UnreadableValue",
    "UntrustedType",
]

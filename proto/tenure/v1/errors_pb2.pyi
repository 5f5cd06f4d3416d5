from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_FIELD: _ClassVar[ErrorReason]
    ERROR_REASON_OPERATION_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_SCOPE_MISSING: _ClassVar[ErrorReason]
    ERROR_REASON_THREAD_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_THREAD_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_DELTA_CHANNEL_IN_USE: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_QUOTA_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_CHUNKS_MISSING: _ClassVar[ErrorReason]
    ERROR_REASON_INDEX_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_OUTSIDE_RULES: _ClassVar[ErrorReason]
    ERROR_REASON_TENANT_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_KEY_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_STALE_WRITER: _ClassVar[ErrorReason]
    ERROR_REASON_LEASE_HELD: _ClassVar[ErrorReason]
    ERROR_REASON_RATE_LIMITED: _ClassVar[ErrorReason]
    ERROR_REASON_LEGAL_HOLD: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_FIELD: ErrorReason
ERROR_REASON_OPERATION_MISMATCH: ErrorReason
ERROR_REASON_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_SCOPE_MISSING: ErrorReason
ERROR_REASON_THREAD_NOT_FOUND: ErrorReason
ERROR_REASON_THREAD_EXISTS: ErrorReason
ERROR_REASON_DELTA_CHANNEL_IN_USE: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_QUOTA_EXCEEDED: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_UNAVAILABLE: ErrorReason
ERROR_REASON_CONFLICT: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_CHUNKS_MISSING: ErrorReason
ERROR_REASON_INDEX_MISMATCH: ErrorReason
ERROR_REASON_OUTSIDE_RULES: ErrorReason
ERROR_REASON_TENANT_NOT_FOUND: ErrorReason
ERROR_REASON_KEY_NOT_FOUND: ErrorReason
ERROR_REASON_STALE_WRITER: ErrorReason
ERROR_REASON_LEASE_HELD: ErrorReason
ERROR_REASON_RATE_LIMITED: ErrorReason
ERROR_REASON_LEGAL_HOLD: ErrorReason

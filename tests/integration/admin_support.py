"""AdminService as its callers see it: RPCs with a key, and one valid request for each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tenure.v1 import admin_pb2 as pb
from tenure.v1 import admin_pb2_grpc
from tenure_client import TenureSaver, Unauthenticated

from tests.harness.processes import PATIENCE
from tests.harness.stack import Stack, TenantHandle

ADMIN_ENV = {"TENURE_ADMIN_LISTEN": "127.0.0.1:0"}

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods]
OPERATOR_ONLY = {"CreateTenant", "ListTenants", "SuspendTenant", "ResumeTenant", "DeleteTenant"}
OF_A_KEY = {"RotateKey", "ExpireKey", "RevokeKey"}


class Refusal(Exception):
    """What a refused call tells its caller; two that tell the same are equal."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        status = status_pb2.Status()
        status.ParseFromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        self.reason = info.reason.removeprefix("ERROR_REASON_")
        self.told = (error.code(), error.details(), status.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Caller:
    """Somebody with a key."""

    stub: Any
    api_key: str

    def call(self, request: Message) -> Any:
        """Call the RPC that a request belongs to.

        Raises:
            Refusal: It was refused.
        """
        method = getattr(self.stub, type(request).__name__.removesuffix("Request"))
        try:
            return method(request, metadata=(("authorization", f"Bearer {self.api_key}"),), timeout=30)
        except grpc.RpcError as error:
            raise Refusal(error) from None

    def refusal(self, request: Message) -> Refusal:
        """Call it and return why it was refused."""
        try:
            answer = self.call(request)
        except Refusal as refused:
            return refused
        raise AssertionError(f"not refused: {answer}")


@contextmanager
def callers(target: str, *api_keys: str) -> Iterator[list[Caller]]:
    """Give a caller for each key, all on one connection."""
    with grpc.insecure_channel(target) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        yield [Caller(stub, key) for key in api_keys]


def request_of(method: str, tenant_id: str, key_id: str) -> Message:
    """Return a valid request about a tenant and a key of it."""
    made: Message = getattr(pb, f"{method}Request")()
    given = {
        "tenant_id": tenant_id,
        "key_id": key_id,
        "name": "test",
        "scopes": [pb.SCOPE_READ],
        "expires_in": 3600.0,
    }
    for name, value in given.items():
        if name in made.DESCRIPTOR.fields_by_name:
            if isinstance(value, list):
                getattr(made, name).extend(value)
            else:
                setattr(made, name, value)
    return made


def key_id_of(api_key: str) -> str:
    """Return the public part of a key."""
    return api_key.split("_")[2]


def new_admin(stack: Stack) -> TenantHandle:
    """Make a tenant with an admin's key."""
    return stack.new_tenant(("admin",))


def works(target: str, api_key: str) -> bool:
    """Tell whether a server takes a key."""
    with TenureSaver(target, api_key=api_key) as saver:
        try:
            saver.setup()
        except Unauthenticated:
            return False
    return True


def wait_until_refused(target: str, api_key: str) -> float:
    """Return after how many seconds a key stopped working."""
    started = time.monotonic()
    while works(target, api_key):
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.05)
    return time.monotonic() - started

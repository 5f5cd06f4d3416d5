"""ServerService: what clients talk to."""

from __future__ import annotations

import grpc
from tenure.v1 import server_pb2 as pb
from tenure.v1 import server_pb2_grpc

from tenure_server.limits import Limits
from tenure_server.wire import replies


class ServerService(server_pb2_grpc.ServerServiceServicer):
    """See server.proto."""

    def __init__(self, limits: Limits) -> None:
        self._info = replies.server_info(limits)

    async def GetServerInfo(
        self,
        request: pb.GetServerInfoRequest,
        context: grpc.aio.ServicerContext[pb.GetServerInfoRequest, pb.GetServerInfoResponse],
    ) -> pb.GetServerInfoResponse:
        return self._info

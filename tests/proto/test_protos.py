"""The protocol keeps its own rules: those that buf checks, and those that only this project has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from tenure.v1 import (
    admin_pb2,
    cache_pb2,
    checkpoints_pb2,
    common_pb2,
    errors_pb2,
    quotas_pb2,
    retention_pb2,
    server_pb2,
    store_pb2,
    writers_pb2,
)

from scripts import buf, protos

ADMIN_PORT: list[FileDescriptor] = [
    module.DESCRIPTOR for module in (admin_pb2, quotas_pb2, retention_pb2, writers_pb2)
]
FILES: list[FileDescriptor] = [
    *ADMIN_PORT,
    *(
        module.DESCRIPTOR
        for module in (cache_pb2, checkpoints_pb2, common_pb2, errors_pb2, server_pb2, store_pb2)
    ),
]
METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]
# Slices of another message, and what is no operation on a tenant's data.
WITHOUT_OPERATION = {
    *("WriteSliced", "BatchSliced", "PutVectorsSliced", "GetServerInfo"),
    *(
        method.name
        for file in ADMIN_PORT
        for service in file.services_by_name.values()
        for method in service.methods
    ),
}


def messages() -> Iterator[Descriptor]:
    """Yield every message, nested ones too."""
    waiting = [message for file in FILES for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        yield message


def carries_operation(request: Descriptor) -> bool:
    """Say whether a request, or each entry of its batch, has the identity, time and trace of an operation."""
    field = request.fields_by_name.get("operation")
    if field is not None:
        return bool(field.message_type.full_name == "tenure.v1.Operation")
    inner = [field.message_type for field in request.fields if field.message_type is not None]
    return bool(inner) and all(carries_operation(message) for message in inner)


def test_every_proto_file_is_covered_here() -> None:
    assert {file.name for file in FILES} == {str(path.relative_to(protos.PROTO)) for path in protos.SOURCES}


def test_generated_code_is_what_the_protos_give() -> None:
    assert protos.stale() == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_operation_says_who_retries_it_and_for_how_long_it_is_wanted(method: MethodDescriptor) -> None:
    assert carries_operation(method.input_type) is (method.name not in WITHOUT_OPERATION)


def test_a_request_of_another_tenant_cannot_be_written_down() -> None:
    """But for those of administration, which has a port, and an authorization, of its own."""
    named = [field for message in messages() for field in message.fields if "tenant" in field.name]
    administration = {file.name for file in ADMIN_PORT}
    assert {field.file.name for field in named} == administration
    for file in FILES:
        assert file in ADMIN_PORT or administration.isdisjoint(one.name for one in file.dependencies)


def test_enums_start_with_a_value_that_means_nothing() -> None:
    enums = [enum for file in FILES for enum in file.enum_types_by_name.values()]
    assert {enum.name for enum in enums} >= {"ErrorReason", "PruneStrategy"}
    for enum in enums:
        prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.name).upper()[1:]
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"


def test_metadata_stays_text_and_ids_are_never_numbers() -> None:
    """A Struct would turn 3 into 3.0; ids are opaque to us and compared bytewise."""
    for message in messages():
        for field in message.fields:
            if field.name.endswith("_json") or field.name.endswith(("thread_id", "checkpoint_id", "_ns")):
                assert field.type == field.TYPE_STRING, field.full_name
            assert field.message_type is None or not field.message_type.full_name.endswith("Struct")


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A copy of the protos to break."""
    shutil.copytree(protos.PROTO / "tenure", tmp_path / "tenure", ignore=shutil.ignore_patterns("*.py*"))
    return tmp_path


def edit(protos_folder: Path, old: str, new: str) -> None:
    path = protos_folder / "tenure" / "v1" / "checkpoints.proto"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_buf_finds_no_fault() -> None:
    verdict = buf.lint()
    assert (verdict.returncode, verdict.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("  // At most 256 mutations.\n", "", "comment"),
        ("bool omitted = 3;", "bool isOmitted = 3;", "lower_snake_case"),
        ("message CopyThreadResponse {}", "message CopyReply {}", "CopyThread"),
        ("PRUNE_STRATEGY_DELETE_ALL = 2;", "DELETE_ALL = 2;", "prefixed"),
    ],
    ids=["no-comment", "field-name", "response-name", "enum-prefix"],
)
def test_buf_refuses_what_the_style_forbids(edited: Path, old: str, new: str, fault: str) -> None:
    edit(edited, old, new)
    if "message Copy" in new:
        edit(edited, "returns (CopyThreadResponse)", "returns (CopyReply)")
    verdict = buf.lint(edited)
    assert verdict.returncode != 0
    assert fault in verdict.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bool omitted = 3;", "bool left_out = 3;"),
        ("bool omitted = 3;", "bool omitted = 4;"),
        ("bool omitted = 3;", "uint32 omitted = 3;"),
        ("  rpc DeleteThread(DeleteThreadRequest) returns (DeleteThreadResponse);\n", ""),
    ],
    ids=["rename", "renumber", "retype", "remove-method"],
)
def test_buf_refuses_a_change_that_breaks_a_released_client(edited: Path, old: str, new: str) -> None:
    edit(edited, old, new)
    assert buf.breaking(protos.PROTO, edited).returncode != 0


def test_buf_accepts_an_addition(edited: Path) -> None:
    edit(edited, "bool omitted = 3;", "bool omitted = 3;\n  // More.\n  bool more = 4;")
    verdict = buf.breaking(protos.PROTO, edited)
    assert (verdict.returncode, verdict.stdout) == (0, "")

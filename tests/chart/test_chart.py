"""The Helm chart renders, is valid Kubernetes, and sets the server up as the server understands it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from tenure_server.config import Config

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tenure"
KUBERNETES = ("1.27", "1.37")

PLAINTEXT: dict[str, Any] = {"tls": {"enabled": False}, "insecureListen": True}
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.internal/tenure", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 5,
    "service": {"port": 8443, "headless": False, "annotations": {"team": "memory"}},
    "admin": {
        "port": 9445,
        "networkPolicy": {"enabled": True, "from": [{"podSelector": {"matchLabels": {"a": "b"}}}]},
    },
    "drainSeconds": 40,
    "logLevel": "debug",
    "workers": 4,
    "poolSize": 32,
    "otel": {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER_ARG": 0.5},
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "memory", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
}
VALUES = {
    "defaults": {},
    "plaintext": PLAINTEXT,
    "everything": EVERYTHING,
    "no-migration": {"migration": {"enabled": False}},
    "no-admin": {"admin": {"enabled": False}},
    "closed-admin": {"admin": {"networkPolicy": {"enabled": True}}},
}


def render(values: dict[str, Any], name: str = "memory") -> dict[str, dict[str, Any]]:
    """Return the manifests that the values give, by file."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values=values, name=name, namespace="agents")
    return {
        Path(path).stem: yaml.safe_load(text)
        for path, text in files.items()
        if path.endswith(".yaml") and text.strip()
    }


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(manifest)["containers"]
    return dict(only)


def environment(manifest: dict[str, Any], secrets: dict[str, str]) -> dict[str, str]:
    """Return the environment of the pod's process, secrets filled in; an absent optional one is not set."""
    variables = {}
    for entry in container(manifest)["env"]:
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        elif (key := entry["valueFrom"]["secretKeyRef"])["key"] in secrets:
            variables[entry["name"]] = secrets[key["key"]]
        else:
            assert key.get("optional"), f"{entry['name']} is required and not in the secret"
    return variables


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_renders_manifests_that_old_and_new_kubernetes_accept(values: dict[str, Any]) -> None:
    manifests = render(values)
    assert {"deployment", "service"} <= manifests.keys()
    for version in KUBERNETES:
        for manifest in manifests.values():
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_lints_without_a_warning(values: dict[str, Any]) -> None:
    report = helm.lint(CHART, values=values, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"replicaz": 3}, "replicaz"),
        ({"replicas": "three"}, "/replicas"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"existingSecret": ""}, "/existingSecret"),
        ({"service": {"port": 443}}, "/service/port"),
        ({"admin": {"port": 7444}}, "/admin/port"),
        ({"otel": {"AWS_SECRET": "x"}}, "AWS_SECRET"),
        ({"poolSize": 0}, "/poolSize"),
        ({"workers": 0}, "/workers"),
        ({"workers": 65}, "/workers"),
        ({"workers": "auto"}, "/workers"),
    ],
    ids=lambda value: str(value),
)
def test_refuses_values_that_cannot_work_and_names_them(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=re.escape(fault)):
        render(values)


def test_without_tls_it_renders_only_if_told_that_this_is_meant() -> None:
    with pytest.raises(helm.HelmRenderError, match="clear text"):
        render({"tls": {"enabled": False}})
    assert (
        environment(
            render(PLAINTEXT)["deployment"], {"TENURE_DATABASE_URL": "x", "TENURE_OPS_DATABASE_URL": "y"}
        )["TENURE_INSECURE_LISTEN"]
        == "1"
    )
    assert "TENURE_INSECURE_LISTEN" not in str(render({}))


@pytest.mark.parametrize("values", [{}, PLAINTEXT, EVERYTHING], ids=["defaults", "plaintext", "everything"])
def test_the_server_accepts_the_environment_that_the_chart_gives(
    values: dict[str, Any], tmp_path: Path
) -> None:
    deployment = render(values)["deployment"]
    secrets = {
        "TENURE_DATABASE_URL": "postgresql://tenure_app@db/tenure",
        "TENURE_OPS_DATABASE_URL": "postgresql://tenure_ops@db/tenure",
    }
    variables = environment(deployment, secrets)
    for name in {"TENURE_TLS_CERT", "TENURE_TLS_KEY"} & variables.keys():
        file = tmp_path / Path(variables[name]).name
        file.write_text("pem")
        variables[name] = str(file)
    config = Config.from_env(variables)
    assert config.database_url == "postgresql://tenure_app@db/tenure"
    assert config.redis_url is None
    assert config.workers == values.get("workers", 1)
    assert pod(deployment)["terminationGracePeriodSeconds"] == config.drain + 5
    assert int(config.listen.rpartition(":")[2]) == container(deployment)["ports"][0]["containerPort"]


def test_every_variable_of_the_chart_is_one_that_the_server_reads() -> None:
    """A name the server does not know would be ignored without a word."""
    server = "\n".join(path.read_text() for path in (ROOT / "server" / "tenure_server").glob("*.py"))
    read = set(re.findall(r'"(TENURE_[A-Z_]+)"', server))
    for values in (PLAINTEXT, {}):
        for manifest in render(values).values():
            if "template" in manifest["spec"]:
                names = {entry["name"] for entry in container(manifest)["env"]}
                assert {name for name in names if name.startswith("TENURE_")} <= read


def test_pods_never_see_the_owner_of_the_database() -> None:
    manifests = render({"existingSecret": "app", "migration": {"existingSecret": "owner"}})
    assert "owner" not in str(pod(manifests["deployment"]))
    assert "'app'" not in str(pod(manifests["migration"]))


def test_migrates_before_pods_are_replaced_and_out_of_the_reach_of_calls() -> None:
    manifests = render({})
    job = manifests["migration"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert container(job)["args"] == ["migrate"]
    assert container(job)["image"] == container(manifests["deployment"])["image"]
    selector = manifests["service"]["spec"]["selector"].items()
    assert not selector <= job["spec"]["template"]["metadata"]["labels"].items()
    assert "migration" not in render({"migration": {"enabled": False}})


def test_the_service_finds_the_pods_at_the_port_where_they_listen() -> None:
    for values in (EVERYTHING, {}):
        manifests = render(values)
        (port,) = manifests["service"]["spec"]["ports"]
        listening = container(manifests["deployment"])["ports"][0]
        assert (port["targetPort"], port["port"]) == (listening["name"], listening["containerPort"])
        labels = manifests["deployment"]["spec"]["template"]["metadata"]["labels"]
        assert manifests["service"]["spec"]["selector"].items() <= labels.items()
    assert manifests["service"]["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in render(EVERYTHING)["service"]["spec"]


def test_administration_has_a_service_of_its_own_that_can_be_closed() -> None:
    manifests = render(EVERYTHING)
    (port,) = manifests["adminservice"]["spec"]["ports"]
    listening = {
        entry["name"]: entry["containerPort"] for entry in container(manifests["deployment"])["ports"]
    }
    assert (port["targetPort"], port["port"], listening["admin"]) == ("admin", 9445, 9445)
    assert [entry["name"] for entry in manifests["service"]["spec"]["ports"]] == ["grpc"]
    open_to_all, closed = manifests["adminpolicy"]["spec"]["ingress"]
    assert {entry["port"] for entry in open_to_all["ports"]} == listening.keys() - {"admin"}
    assert "from" not in open_to_all
    assert closed["from"] == EVERYTHING["admin"]["networkPolicy"]["from"]
    nobody = render({"admin": {"networkPolicy": {"enabled": True}}})["adminpolicy"]["spec"]["ingress"]
    assert "admin" not in str(nobody)


def test_administration_can_be_left_out_and_then_needs_no_database_role() -> None:
    manifests = render({"admin": {"enabled": False}})
    assert not {"adminservice", "adminpolicy"} & manifests.keys()
    variables = environment(manifests["deployment"], {"TENURE_DATABASE_URL": "x"})
    assert "TENURE_ADMIN_LISTEN" not in variables
    with pytest.raises(helm.HelmRenderError, match="port of its own"):
        render({"admin": {"port": 7443}})


@pytest.mark.parametrize("values", [{}, PLAINTEXT], ids=["tls", "plaintext"])
def test_probes_ask_the_health_service_in_plaintext(values: dict[str, Any]) -> None:
    """Kubernetes' gRPC probes cannot speak TLS, and so they must never point at a TLS port."""
    served = container(render(values)["deployment"])
    variables = {entry["name"]: entry.get("value", "") for entry in served["env"]}
    listen = variables["TENURE_LISTEN" if values else "TENURE_HEALTH_LISTEN"]
    expected = int(listen.rpartition(":")[2])
    probes = {name: served[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {expected}
    assert probes["readinessProbe"]["service"] == ""
    assert probes["livenessProbe"]["service"] == "liveness"


@pytest.mark.parametrize("name", ["deployment", "migration"])
def test_containers_have_no_more_rights_than_they_need(name: str) -> None:
    manifest = render({})[name]
    rights = container(manifest)["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert pod(manifest)["securityContext"]["runAsNonRoot"] is True
    assert pod(manifest)["securityContext"]["runAsUser"] > 0
    assert pod(manifest)["automountServiceAccountToken"] is False
    assert {mount["mountPath"] for mount in container(manifest)["volumeMounts"]} >= {"/tmp"}


def test_long_and_plain_release_names_give_valid_names() -> None:
    assert render({}, name="tenure")["service"]["metadata"]["name"] == "tenure"
    long = render({}, name="m" * 53)
    assert all(len(manifest["metadata"]["name"]) <= 63 for manifest in long.values())


def test_the_readme_describes_every_value() -> None:
    described = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name in values if f"`{name}" not in described] == []

"""The overlays as kustomize builds them, against Kubernetes' own schemas and its rules for pods."""

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
DEPLOYMENTS = ("cpu", "gpu")
OVERLAYS = (*DEPLOYMENTS, "kserve")
VERSIONS = ("1.30", "1.37")
"""Oldest and newest Kubernetes that the manifests are held against."""

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="needs kubectl, which builds the overlays"
)


@functools.cache
def build(overlay: str) -> dict[str, dict]:
    """Return an overlay's resources by kind."""
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / overlay], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    assert len({resource["kind"] for resource in resources}) == len(resources)
    return {resource["kind"]: resource for resource in resources}


def pod(overlay: str) -> dict:
    """Return the specification of an overlay's pods."""
    resources = build(overlay)
    if "Deployment" in resources:
        return resources["Deployment"]["spec"]["template"]["spec"]
    # KServe's predictor is a pod's specification with fields of its own.
    return {
        name: value
        for name, value in resources["InferenceService"]["spec"]["predictor"].items()
        if name not in ("minReplicas", "maxReplicas")
    }


def containers(overlay: str) -> list[dict]:
    return [*pod(overlay).get("initContainers", []), *pod(overlay)["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_follows_the_schemas(overlay: str, version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    as_pod = {"apiVersion": "v1", "kind": "Pod", "spec": pod(overlay)}
    for resource in [*build(overlay).values(), as_pod]:
        if resource["kind"] != "InferenceService":  # KServe's, not Kubernetes'
            schemas.validate(resource, version, strict=True)
    as_pod["spec"] = as_pod["spec"] | {"tolerationz": []}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(as_pod, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    """What the namespace enforces, and a root filesystem that nobody writes to."""
    security = pod(overlay)["securityContext"]
    assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(overlay)["automountServiceAccountToken"] is False
    for container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert not container["image"].endswith((":latest", "dim-server", "dim-export"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mounts_have_volumes_and_volumes_are_used(overlay: str) -> None:
    mounted = {mount["name"] for c in containers(overlay) for mount in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod(overlay)["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_triton_writes_where_it_has_to(overlay: str) -> None:
    """Photos pass through /dev/shm, of which a container has 64 MB unless it is told."""
    (triton,) = pod(overlay)["containers"]
    places = {mount["mountPath"]: mount["name"] for mount in triton["volumeMounts"]}
    volumes = {volume["name"]: volume.get("emptyDir") for volume in pod(overlay)["volumes"]}
    assert volumes[places["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert volumes[places["/tmp"]]


@pytest.mark.parametrize("overlay", DEPLOYMENTS)
def test_resources_point_at_each_other(overlay: str) -> None:
    resources = build(overlay)
    template = resources["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert resources["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["Service"]["spec"]["selector"] == labels
    assert resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in template["spec"]["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels
    target = resources["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "dim")
    (triton,) = template["spec"]["containers"]
    ports = {port["name"] for port in triton["ports"]}
    rules = resources["NetworkPolicy"]["spec"]["ingress"]
    admitted = {port["port"] for rule in rules for port in rule["ports"]}
    offered = {port["targetPort"] for port in resources["Service"]["spec"]["ports"]}
    assert offered < admitted <= ports
    assert resources["NetworkPolicy"]["spec"]["egress"] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clients_find_every_pod_and_new_ones(overlay: str) -> None:
    """By a name that resolves to all of them, asked again whenever a connection is too old."""
    (triton,) = pod(overlay)["containers"]
    flags = [*triton.get("command", []), *triton.get("args", [])]
    assert any(flag.startswith("--grpc-max-connection-age=") for flag in flags)
    if overlay in DEPLOYMENTS:
        assert build(overlay)["Service"]["spec"]["clusterIP"] == "None"
        assert "preStop" in triton["lifecycle"]  # until the name has lost the pod


def test_only_who_is_meant_to_gets_in() -> None:
    rules = build("cpu")["NetworkPolicy"]["spec"]["ingress"]
    assert {rule["ports"][0]["port"]: rule["from"] for rule in rules} == {
        "grpc": [{"podSelector": {"matchLabels": {"dim-client": "true"}}}],
        "metrics": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
    }


def test_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    (metric,) = build("cpu")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    adapter = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_server_that_stops_has_the_time_that_it_takes(overlay: str) -> None:
    """preStop, then what Triton gives requests in flight, then the end."""
    (triton,) = pod(overlay)["containers"]
    pause = triton.get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})
    seconds = int(pause["preStop"]["exec"]["command"][1])
    assert pod(overlay)["terminationGracePeriodSeconds"] > seconds + 30


def test_engine_is_built_where_it_is_served() -> None:
    (export,) = pod("gpu")["initContainers"]
    (triton,) = pod("gpu")["containers"]
    assert export["resources"] == triton["resources"]
    assert export["resources"]["limits"]["nvidia.com/gpu"] == 1
    (volume,) = [volume for volume in pod("gpu")["volumes"] if volume["name"] == "models"]
    assert volume["emptyDir"]  # of this pod, so of this GPU
    (mount,) = [mount for mount in triton["volumeMounts"] if mount["name"] == "models"]
    assert mount["readOnly"] is True


def test_one_release_of_nvidias_everywhere() -> None:
    """The engine is built by the TensorRT that Triton will load it with."""
    release = containers("gpu")[1]["image"].rpartition(":")[2].removesuffix("-py3")
    dockerfile = (ROOT / "deploy/export.Dockerfile").read_text()
    assert f"ARG NVIDIA_RELEASE={release}\n" in dockerfile
    compose = (ROOT / "deploy/compose.yaml").read_text()
    assert set(re.findall(r"NVIDIA_RELEASE:-([\d.]+)", compose)) == {release}


def test_triton_is_started_the_same_way_with_compose_and_kubernetes() -> None:
    (triton,) = pod("gpu")["containers"]
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    command = compose["services"]["triton-gpu"]["command"]
    shared = [word.replace("$$", "$") for word in command]  # Compose's escape
    assert triton["command"][: len(shared)] == shared
    assert all("connection-age" in flag for flag in triton["command"][len(shared) :])


def test_images_have_the_same_tag_everywhere() -> None:
    text = (ROOT / "deploy/compose.yaml").read_text() + json.dumps([*map(containers, OVERLAYS)])
    assert len(set(re.findall(r"dim-(?:server|export):([\w.]+)", text))) == 1

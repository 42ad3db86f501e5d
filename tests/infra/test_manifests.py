"""Container, compose and cluster files, checked by the tools that know their formats.

Nothing is built or started here: that needs a container engine or a cluster.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from flows.recipes import RECIPES
from infra.register import PREFECT_FILE

INFRA = PREFECT_FILE.parent
BIN = Path(sys.executable).parent
CONTAINERFILES = [INFRA / "containers" / f"Containerfile.{kind}" for kind in ("cpu", "cuda")]
COMPOSE = INFRA / "containers" / "compose.yaml"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
KUBERNETES_VERSION = "1.33"

SECRET_NAME = re.compile(r"password|secret|token|auth_string|_key$", re.IGNORECASE)
# Names of places where a secret is, and of things that are none.
HARMLESS = {"AWS_ACCESS_KEY_ID"}


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping at any depth."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from mappings(value)
    elif isinstance(node, list):
        for value in node:
            yield from mappings(value)


def pod_templates(document: Any) -> list[Any]:
    return [
        m["template"]
        for m in mappings(document)
        if "containers" in m.get("template", {}).get("spec", {})
    ]


ALL_PODS = [
    pytest.param(template, id=f"{path.stem}-{number}")
    for path in MANIFESTS
    for document in documents(path)
    for number, template in enumerate(pod_templates(document))
]


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_container_files_pass_hadolint(path: Path) -> None:
    done = subprocess.run([BIN / "hadolint", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_images_are_pinned_healthy_and_not_root(path: Path) -> None:
    lines = path.read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM python\nRUN cd /tmp && sudo pip install torch\n")
    done = subprocess.run([BIN / "hadolint", bad], capture_output=True, text=True)
    assert done.returncode != 0
    assert "DL3006" in done.stdout


def test_the_compose_file_fits_the_compose_specification() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_bounded_checked_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":\d+\.\d+", service["image"])
    assert service["user"] not in ("root", "0", "0:0")
    assert service["cap_drop"] == ["ALL"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    runs_once = service.get("restart") in ("no", "on-failure")
    image_checks = service["image"].startswith("spikeline") and name == "worker"
    assert runs_once or image_checks or "test" in service["healthcheck"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_what_services_wait_for_exists() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]


def test_no_secret_has_a_value_in_the_compose_file() -> None:
    found = 0
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name) and name not in HARMLESS:
                found += 1
                # A reference without a default fails where the variable is not set.
                is_file = name.endswith("_FILE") and value.startswith("/run/secrets/")
                assert is_file or re.fullmatch(r"(\$\{\w+:\?[^}]+\},?)+", value), name
    assert found > 5


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_core_kinds_fit_the_kubernetes_schema(path: Path) -> None:
    for document in documents(path):
        if not document["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("template", ALL_PODS)
def test_pods_fit_the_kubernetes_schema(template: Any) -> None:
    """Pod templates inside KubeRay's kinds, which the core schema does not reach."""
    document = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "checked"},
        "template": template,
    }
    kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_a_misspelt_field_of_a_pod_is_refused() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "a:1", "comand": ["a"]}]}}
    document = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("template", ALL_PODS)
def test_pods_are_pinned_bounded_checked_and_not_root(template: Any) -> None:
    spec = template["spec"]
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "spikeline"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert "automountServiceAccountToken" in spec
    for container in spec["containers"]:
        assert re.search(r":\d+\.\d+\.\d+", container["image"])
        assert container["resources"].keys() == {"requests", "limits"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in spec.get("volumes", [])}
        for variable in container.get("env", []):
            if SECRET_NAME.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


class Strict(BaseModel):
    """KubeRay's operator validates with an open schema; a misspelt field would be dropped."""

    model_config = ConfigDict(extra="forbid")


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(HeadGroup):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class ClusterSpec(Strict):
    rayVersion: str
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: dict[str, Any] = {}


class JobSpec(Strict):
    entrypoint: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: ClusterSpec


def cluster_specs() -> list[ClusterSpec]:
    (cluster,) = documents(INFRA / "kubernetes" / "ray-cluster.yaml")
    (job,) = documents(INFRA / "kubernetes" / "rayjob.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    return [
        ClusterSpec.model_validate(cluster["spec"]),
        JobSpec.model_validate(job["spec"]).rayClusterSpec,
    ]


def test_ray_clusters_are_of_the_installed_version_and_ask_for_a_token() -> None:
    import ray

    for spec in cluster_specs():
        assert spec.rayVersion == ray.__version__
        for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
            variables = {v["name"] for v in group.template["spec"]["containers"][0]["env"]}
            assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= variables
        for group in spec.workerGroupSpecs:
            assert group.minReplicas <= group.replicas <= group.maxReplicas


def test_the_ray_job_is_a_command_that_is_understood() -> None:
    from flows.overrides import apply_overrides

    (job,) = documents(INFRA / "kubernetes" / "rayjob.yaml")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["spikeline", "pipeline"]
    assert words[words.index("--recipe") + 1] in RECIPES
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    recipe = apply_overrides(
        RECIPES["librispeech-100h"],
        [f"workers.num_workers={words[words.index('--workers') + 1]}", *settings],
    )
    assert recipe.fan_out.kind == "ray"
    assert recipe.workers.min_workers == 1


def test_the_cluster_launcher_file_fits_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (cluster,) = documents(INFRA / "ray" / "cluster.yaml")
    validate_config(prepare_config(cluster))
    cluster["available_node_types"]["cpu"]["min_workers"] = "many"
    with pytest.raises(Exception, match="many"):
        validate_config(prepare_config(cluster))


def test_every_recipe_has_a_deployment() -> None:
    """A recipe that no form offers cannot be started from the UI: add it to infra/prefect.yaml."""
    deployments = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    offered = {
        d["parameters"]["recipe"] for d in deployments if d["entrypoint"].endswith(".pipeline_flow")
    }
    assert offered == set(RECIPES)


def test_the_demo_comes_first_then_pipelines_then_stages() -> None:
    """The UI lists deployments by name."""
    deployments = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    by_name = sorted(deployments, key=lambda deployment: deployment["name"])
    assert by_name[0]["name"] == "demo"
    assert "start here" in by_name[0]["tags"]
    kinds = [d["tags"][-1] for d in by_name]
    assert kinds == sorted(kinds, key=["pipeline", "stage"].index)

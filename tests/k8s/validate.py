"""Checks the Kubernetes manifests: schemas, and that they agree with the image and the service.

Usage: validate.py [--binary target/debug/taskcast]

Renders k8s/base with `kubectl kustomize` (no cluster is needed), validates every object strictly against the schemas of
Kubernetes (PyPI kubernetes-validate) and of the Prometheus operator (podmonitor.mjs), an unknown kind being a mistake,
and compares ports, probes, the drain and every TASKCAST_ variable with the Dockerfile and with the binary itself.
Then it breaks the manifests in known ways and fails if a breakage goes unnoticed. Exit 0: all is well; 1: mistakes.

Environment: KUBECTL (default `kubectl`), TESTS_NODE_MODULES (where npm put what podmonitor.mjs imports).
"""

import argparse
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES_VERSION = "1.37.0"
PUBLIC_PORT = 6161
OPERATIONS_PORT = 6162
# What Kubernetes puts into a pod beside a Service named taskcast, and beside one named taskcast-redis.
SERVICE_LINKS = {
    "TASKCAST_PORT": "tcp://10.0.0.1:6161",
    "TASKCAST_PORT_6161_TCP": "tcp://10.0.0.1:6161",
    "TASKCAST_PORT_6161_TCP_ADDR": "10.0.0.1",
    "TASKCAST_PORT_6161_TCP_PORT": "6161",
    "TASKCAST_PORT_6161_TCP_PROTO": "tcp",
    "TASKCAST_SERVICE_HOST": "10.0.0.1",
    "TASKCAST_SERVICE_PORT": "6161",
    "TASKCAST_SERVICE_PORT_PUBLIC": "6161",
    "TASKCAST_REDIS_PORT": "tcp://10.0.0.2:6379",
    "TASKCAST_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
    "TASKCAST_REDIS_SERVICE_HOST": "10.0.0.2",
}


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def render(folder):
    result = run([os.environ.get("KUBECTL", "kubectl"), "kustomize", str(folder)])
    if result.returncode != 0:
        sys.exit(f"kubectl kustomize {folder}: {result.stderr.strip()}")
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def name_of(manifest):
    return f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"


def of_kind(manifests, kind):
    return [manifest for manifest in manifests if manifest.get("kind") == kind]


def check_schemas(manifests):
    operator = [manifest for manifest in manifests if str(manifest.get("apiVersion")).startswith("monitoring.coreos.com/")]
    for manifest in manifests:
        if manifest in operator:
            continue
        try:
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{name_of(manifest)}: Kubernetes {KUBERNETES_VERSION} has no kind {manifest.get('kind')} in {manifest.get('apiVersion')}"
        except kubernetes_validate.ValidationError as error:
            yield f"{name_of(manifest)}: {error.message} at {'/'.join(map(str, error.path))}"
    if operator:
        script = pathlib.Path(__file__).with_name("podmonitor.mjs")
        result = run(["node", str(script)], input=json.dumps(operator))
        if result.returncode != 0:
            yield from (result.stdout + result.stderr).strip().splitlines()


def check_references(manifests):
    """Every name that the Deployment points at exists, and every selector finds its pods."""
    accounts = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ServiceAccount")}
    configurations = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ConfigMap")}
    secret = example_secret()
    for deployment in of_kind(manifests, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        pod = deployment["spec"]["template"]["spec"]
        if pod.get("serviceAccountName") not in accounts:
            yield f"the pod's service account {pod.get('serviceAccountName')} is not among {sorted(accounts)}"
        for source in pod["containers"][0].get("envFrom", []):
            if source.get("configMapRef", {}).get("name") not in configurations:
                yield f"envFrom names {source}, which does not exist"
        for variable in pod["containers"][0].get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and (reference["name"] != secret["metadata"]["name"] or reference["key"] not in secret["stringData"]):
                yield f"{variable['name']} comes from {reference}, which secret.example.yaml does not show"
        for volume in pod.get("volumes", []):
            for item in volume.get("secret", {}).get("items", []):
                if item["key"] not in secret["stringData"]:
                    yield f"volume {volume['name']} mounts the key {item['key']}, which secret.example.yaml does not show"
        selectors = [("Deployment", deployment["spec"]["selector"]["matchLabels"])]
        selectors += [(name_of(service), service["spec"]["selector"]) for service in of_kind(manifests, "Service")]
        selectors += [(name_of(m), m["spec"]["selector"].get("matchLabels", {})) for m in of_kind(manifests, "PodMonitor")]
        for who, selector in selectors:
            if not selector.items() <= labels.items():
                yield f"{who} selects {selector}, but the pods are labelled {labels}"


def check_ports_and_probes(manifests):
    """Ports are the service's defaults, the image exposes them, and each probe asks for a page that exists."""
    exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if exposed is None or exposed.group(1).split() != [str(PUBLIC_PORT), str(OPERATIONS_PORT)]:
        yield f"the Dockerfile does not EXPOSE {PUBLIC_PORT} {OPERATIONS_PORT}"
    for deployment in of_kind(manifests, "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if ports != {"public": PUBLIC_PORT, "operations": OPERATIONS_PORT}:
            yield f"the container's ports are {ports}"
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            asked = container.get(probe, {}).get("httpGet", {})
            if (asked.get("path"), asked.get("port")) != (path, "operations"):
                yield f"the {probe} asks {asked}, not {path} on the port operations"
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            if (port["port"], port["targetPort"]) != (PUBLIC_PORT, "public"):
                yield f"{name_of(service)} offers {port}; only the public port belongs there"
    for monitor in of_kind(manifests, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if (endpoint.get("port"), endpoint.get("path")) != ("operations", "/metrics"):
                yield f"{name_of(monitor)} scrapes {endpoint}"


def check_rollout_and_rights(manifests):
    """A rollout leaves time to drain and never fewer pods; the pod has no rights that it does not need."""
    cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    for deployment in of_kind(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        container = pod["containers"][0]
        drain = int(settings(manifests, {}).get("TASKCAST_DRAIN_SECONDS", "0"))
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if not 0 < drain < grace:
            yield f"TASKCAST_DRAIN_SECONDS is {drain}, terminationGracePeriodSeconds is {grace}: the drain is cut short"
        if deployment["spec"]["strategy"].get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield "a rollout may take a pod away before its successor is ready"
        if cargo is None or not container["image"].endswith(":" + cargo.group(1)):
            yield f"the image is {container['image']}, Cargo.toml's version is another"
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        wanted = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for key, value in wanted.items():
            if context.get(key) != value:
                yield f"securityContext.{key} is {context.get(key)}, not {value}"
        if f"USER {context.get('runAsUser')}:{context.get('runAsGroup')}" not in (ROOT / "Dockerfile").read_text():
            yield "the Dockerfile's USER is another than the pod's"
        for key in ("automountServiceAccountToken", "enableServiceLinks"):
            if pod.get(key) is not False:
                yield f"{key} is not false"


def check_settings(manifests, binary):
    """The binary itself takes every setting that the pod is given, and refuses one that does not exist."""
    with tempfile.TemporaryDirectory(prefix="taskcast-k8s-") as folder:
        given = settings(manifests, mounted_files(manifests, pathlib.Path(folder)))
        outside = {name: value for name, value in os.environ.items() if not name.startswith("TASKCAST_")}
        environment = {**outside, **SERVICE_LINKS, **given}
        accepted = run([binary, "check-config"], env=environment)
        if accepted.returncode != 0:
            yield f"check-config exits {accepted.returncode} with the pod's settings:\n{accepted.stdout}{accepted.stderr}"
        refused = run([binary, "check-config"], env={**environment, "TASKCAST_NO_SUCH_SETTING": "1"})
        if refused.returncode != 64:
            yield f"check-config exits {refused.returncode}, not 64, with TASKCAST_NO_SUCH_SETTING: it notices no misspelling"


def example_secret():
    return yaml.safe_load((ROOT / "k8s/base/secret.example.yaml").read_text())


def mounted_files(manifests, folder):
    """Writes the mounted secrets into `folder`; answers which path in the pod is which path here."""
    secret = example_secret()
    paths = {}
    for deployment in of_kind(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        items = {volume["name"]: volume.get("secret", {}).get("items", []) for volume in pod.get("volumes", [])}
        for mount in pod["containers"][0].get("volumeMounts", []):
            for item in items.get(mount["name"], []):
                here = folder / item["path"]
                here.write_text(secret["stringData"][item["key"]])
                paths[f"{mount['mountPath']}/{item['path']}"] = str(here)
    return paths


def settings(manifests, paths):
    """The environment of the container, with paths in the pod replaced by `paths`."""
    configurations = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(manifests, "ConfigMap")}
    secret = example_secret()
    environment = {}
    for deployment in of_kind(manifests, "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        for source in container.get("envFrom", []):
            environment.update(configurations.get(source.get("configMapRef", {}).get("name"), {}))
        for variable in container.get("env", []):
            if "value" in variable:
                environment[variable["name"]] = paths.get(variable["value"], variable["value"])
            else:
                environment[variable["name"]] = secret["stringData"].get(variable["valueFrom"]["secretKeyRef"]["key"], "")
    return environment


CHECKS = (check_schemas, check_references, check_ports_and_probes, check_rollout_and_rights)


def mistakes(manifests):
    return [mistake for check in CHECKS for mistake in check(manifests)]


def breakages():
    """Known mistakes, each a name and a function that makes it; every one must be noticed."""

    def pod(manifests):
        return of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]

    def container(manifests):
        return pod(manifests)["containers"][0]

    return {
        "a misspelled field": lambda m: container(m).update(livenesProbe={}),
        "a field of the wrong type": lambda m: of_kind(m, "Deployment")[0]["spec"].update(replicas="two"),
        "an unknown kind": lambda m: m.append({"apiVersion": "v1", "kind": "Sevrice", "metadata": {"name": "taskcast"}}),
        "a PodMonitor's misspelled field": lambda m: of_kind(m, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(prot="operations"),
        "a PodMonitor's port as a number": lambda m: of_kind(m, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port=6162),
        "a service account that does not exist": lambda m: pod(m).update(serviceAccountName="other"),
        "a selector that finds nothing": lambda m: of_kind(m, "Service")[0]["spec"].update(selector={"app": "other"}),
        "a drain longer than the grace period": lambda m: pod(m).update(terminationGracePeriodSeconds=30),
        "a probe of another page": lambda m: container(m)["readinessProbe"]["httpGet"].update(path="/livez"),
        "the operators' port in the Service": lambda m: of_kind(m, "Service")[0]["spec"]["ports"][0].update(targetPort="operations"),
        "a writable root": lambda m: container(m)["securityContext"].update(readOnlyRootFilesystem=False),
        "a secret's key that nobody was told of": lambda m: container(m)["env"][0]["valueFrom"]["secretKeyRef"].update(key="url"),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/debug/taskcast"), help="the service to ask about its settings")
    binary = arguments.parse_args().binary
    manifests = render(ROOT / "k8s/base")
    known = mistakes(manifests)
    found = list(known)
    found += check_settings(manifests, binary) if os.access(binary, os.X_OK) else [f"{binary} is not built: cargo build"]
    unnoticed = []
    for name, breakage in breakages().items():
        broken = copy.deepcopy(manifests)
        breakage(broken)
        if mistakes(broken) == known:
            unnoticed.append(f"the checks do not notice {name}")
    for mistake in [*found, *unnoticed]:
        print(f"k8s: {mistake}", file=sys.stderr)
    if not found and not unnoticed:
        print(f"k8s: {len(manifests)} objects hold ({', '.join(map(name_of, manifests))}), {len(breakages())} breakages noticed")
    return 1 if found or unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())

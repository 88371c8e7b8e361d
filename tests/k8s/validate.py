"""Checks the Kubernetes manifests: schemas, and that they agree with the image and the service.

Usage: validate.py [--binary target/debug/taskcast]

Renders k8s/base, each overlay and k8s/monitoring with `kubectl kustomize` (no cluster is needed), validates every object
strictly against the schemas of the oldest and the newest Kubernetes that the manifests are for (PyPI kubernetes-validate)
and of the Prometheus operator (operator.mjs), an unknown kind being a mistake, and compares ports, probes, the drain, the
autoscaler, the policies and every TASKCAST_ variable with the Dockerfile and with the binary itself.
Then it breaks the manifests in known ways and fails if a breakage goes unnoticed. Exit 0: all is well; 1: mistakes.

Environment: KUBECTL (default `kubectl`), TESTS_NODE_MODULES (where npm put what operator.mjs imports).
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
# The first one with the `sleep` of preStop, which needs no shell in the image, and the newest one that there are schemas of.
KUBERNETES_VERSIONS = ("1.30.0", "1.37.0")
NAME = "taskcast"
FOLDERS = ("base", "overlays/dev", "overlays/production", "monitoring")
# What the service takes beyond its drain for the last closes and requests.
LAST_CLOSES_SECONDS = 5
# Of one replica: http.connections_max, which another one's clients must find room in too.
CONNECTIONS_MAX = 20_000
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


def own(manifests, kind):
    """The service's own, without those of a broker beside it."""
    return [manifest for manifest in of_kind(manifests, kind) if manifest.get("metadata", {}).get("name") == NAME]


def check_schemas(manifests):
    operator = [manifest for manifest in manifests if str(manifest.get("apiVersion")).startswith("monitoring.coreos.com/")]
    for manifest in manifests:
        if manifest in operator:
            continue
        for version in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                yield f"{name_of(manifest)}: Kubernetes {version} has no kind {manifest.get('kind')} in {manifest.get('apiVersion')}"
            except kubernetes_validate.ValidationError as error:
                yield f"{name_of(manifest)}: {error.message} at {'/'.join(map(str, error.path))} (Kubernetes {version})"
    if operator:
        script = pathlib.Path(__file__).with_name("operator.mjs")
        result = run(["node", str(script)], input=json.dumps(operator))
        if result.returncode != 0:
            yield from (result.stdout + result.stderr).strip().splitlines()


def check_references(manifests):
    """Every name that the Deployment points at exists, and every selector finds its pods."""
    accounts = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ServiceAccount")}
    configurations = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ConfigMap")}
    secret = example_secret()
    for service in of_kind(manifests, "Service"):
        pods = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in of_kind(manifests, "Deployment")]
        if not any(service["spec"]["selector"].items() <= labels.items() for labels in pods):
            yield f"{name_of(service)} selects {service['spec']['selector']}, but the pods are labelled {pods}"
    for deployment in own(manifests, "Deployment"):
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
        selectors += [(name_of(service), service["spec"]["selector"]) for service in own(manifests, "Service")]
        for kind, field in (("PodMonitor", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            selectors += [(name_of(found), found["spec"][field].get("matchLabels", {})) for found in of_kind(manifests, kind)]
        spread = pod.get("topologySpreadConstraints", [])
        selectors += [(f"the spread over {constraint['topologyKey']}", constraint["labelSelector"]["matchLabels"]) for constraint in spread]
        for who, selector in selectors:
            if not selector.items() <= labels.items():
                yield f"{who} selects {selector}, but the pods are labelled {labels}"


def check_ports_and_probes(manifests):
    """Ports are the service's defaults, the image exposes them, and each probe asks for a page that exists."""
    exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if exposed is None or exposed.group(1).split() != [str(PUBLIC_PORT), str(OPERATIONS_PORT)]:
        yield f"the Dockerfile does not EXPOSE {PUBLIC_PORT} {OPERATIONS_PORT}"
    for deployment in own(manifests, "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if ports != {"public": PUBLIC_PORT, "operations": OPERATIONS_PORT}:
            yield f"the container's ports are {ports}"
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            asked = container.get(probe, {}).get("httpGet", {})
            if (asked.get("path"), asked.get("port")) != (path, "operations"):
                yield f"the {probe} asks {asked}, not {path} on the port operations"
    for service in own(manifests, "Service"):
        for port in service["spec"]["ports"]:
            if (port["port"], port["targetPort"]) != (PUBLIC_PORT, "public"):
                yield f"{name_of(service)} offers {port}; only the public port belongs there"
    for monitor in of_kind(manifests, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if (endpoint.get("port"), endpoint.get("path")) != ("operations", "/metrics"):
                yield f"{name_of(monitor)} scrapes {endpoint}"


def check_dockerfile(dockerfile):
    """It says which version it is, names no processor, and what it copies is there and let through; tests/image builds it."""
    cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if f"\nARG VERSION={cargo.group(1)}\n" not in dockerfile:
        yield f"the Dockerfile's VERSION is not {cargo.group(1)}"
    if re.search(r"x86_64|aarch64|^# *syntax=", "\n".join(line for line in dockerfile.splitlines() if "buildx" not in line), re.MULTILINE):
        yield "the Dockerfile is for one processor, or asks for a front end from elsewhere"
    if not re.search(r"^FROM scratch$", dockerfile, re.MULTILINE):
        yield "the image is not empty to begin with"
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            if not (ROOT / source).exists():
                yield f"the Dockerfile copies {source}, which does not exist"
            if not any(source == given or source.startswith(given + "/") for given in allowed):
                yield f".dockerignore keeps {source} from the Dockerfile"


def check_rollout_and_rights(manifests):
    """A rollout leaves time to drain and never fewer pods; the pod has no rights that it does not need."""
    cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    for deployment in own(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        container = pod["containers"][0]
        drain = int(settings(manifests, {}).get("TASKCAST_DRAIN_SECONDS", "0"))
        grace = pod.get("terminationGracePeriodSeconds", 30)
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if sleep < 1 or drain < 1 or sleep + drain + LAST_CLOSES_SECONDS > grace:
            yield f"preStop sleeps {sleep} s, TASKCAST_DRAIN_SECONDS is {drain}, terminationGracePeriodSeconds is {grace}: the drain is cut short"
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


def quantity(text):
    """A number as Kubernetes writes it, as far as it is used here."""
    return int(str(text).replace("k", "000"))


def check_production(manifests):
    """Scaling is slow where it disconnects clients, nothing is sticky, and only who must may reach the pods."""
    deployments = [deployment["spec"] for deployment in own(manifests, "Deployment")]
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        if any("replicas" in deployment for deployment in deployments):
            yield "the Deployment says how many replicas there are, which is the autoscaler's to say"
        if spec["scaleTargetRef"] != {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}:
            yield f"the autoscaler scales {spec['scaleTargetRef']}"
        down = spec.get("behavior", {}).get("scaleDown", {})
        policies = down.get("policies", [])
        if down.get("stabilizationWindowSeconds", 300) < 600 or [(policy["type"], policy["value"]) for policy in policies] != [("Pods", 1)]:
            yield f"the autoscaler takes pods away too fast: {down}"
        wanted = {metric["pods"]["metric"]["name"]: metric["pods"]["target"] for metric in spec["metrics"] if metric["type"] == "Pods"}
        if quantity(wanted.get("taskcast_connections", {}).get("averageValue", CONNECTIONS_MAX)) * 2 > CONNECTIONS_MAX:
            yield f"when a replica is lost, its connections find no room in the others: {wanted}"
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") != 1:
            yield f"{name_of(budget)} lets more than one replica go at a time, or none"
    for ingress in of_kind(manifests, "Ingress"):
        annotations = ingress["metadata"].get("annotations", {})
        for side in ("read", "send"):
            if int(annotations.get(f"nginx.ingress.kubernetes.io/proxy-{side}-timeout", "60")) < 600:
                yield f"the ingress ends a WebSocket that is silent: its {side} timeout"
        if any("affinity" in name or "session-cookie" in name or name.endswith("/upstream-hash-by") for name in annotations):
            yield "the ingress is sticky: a replica that drains would get its clients back"
        paths = [path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        if paths != [{"name": NAME, "port": {"name": "public"}}]:
            yield f"the ingress leads to {paths}"
    for policy in of_kind(manifests, "NetworkPolicy"):
        yield from check_policy(policy["spec"])


def check_policy(spec):
    if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
        yield f"the NetworkPolicy is for {spec.get('policyTypes')} only"
    for rule in spec.get("ingress", []):
        if not rule.get("from") or not rule.get("ports"):
            yield f"the NetworkPolicy lets anybody in: {rule}"
    entered = sorted(port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", []))
    if entered != ["operations", "public"]:
        yield f"the NetworkPolicy opens {entered}"
    left = {port["port"] for rule in spec.get("egress", []) for port in rule.get("ports", [])}
    if not {53, 443, 4318, 5671, 5672, 6379, 26379} <= left:
        yield f"the NetworkPolicy stops the way to DNS, brokers, collectors or issuers: {sorted(left)}"


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
    for deployment in own(manifests, "Deployment"):
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
    for deployment in own(manifests, "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        for source in container.get("envFrom", []):
            environment.update(configurations.get(source.get("configMapRef", {}).get("name"), {}))
        for variable in container.get("env", []):
            if "value" in variable:
                environment[variable["name"]] = paths.get(variable["value"], variable["value"])
            else:
                environment[variable["name"]] = secret["stringData"].get(variable["valueFrom"]["secretKeyRef"]["key"], "")
    return environment


CHECKS = (check_schemas, check_references, check_ports_and_probes, check_rollout_and_rights, check_production)


def mistakes(manifests):
    return [mistake for check in CHECKS for mistake in check(manifests)]


def breakages():
    """Known mistakes, each a name and a function that makes it; every one must be noticed."""

    def pod(manifests):
        return of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]

    def container(manifests):
        return pod(manifests)["containers"][0]

    def ingress(manifests):
        return of_kind(manifests, "Ingress")[0]

    return {
        "a misspelled field": lambda m: container(m).update(livenesProbe={}),
        "a field of the wrong type": lambda m: of_kind(m, "Deployment")[0]["spec"].update(replicas="two"),
        "an unknown kind": lambda m: m.append({"apiVersion": "v1", "kind": "Sevrice", "metadata": {"name": "taskcast"}}),
        "a PodMonitor's misspelled field": lambda m: of_kind(m, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(prot="operations"),
        "a PodMonitor's port as a number": lambda m: of_kind(m, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port=6162),
        "a service account that does not exist": lambda m: pod(m).update(serviceAccountName="other"),
        "a selector that finds nothing": lambda m: of_kind(m, "Service")[0]["spec"].update(selector={"app": "other"}),
        "a budget for other pods": lambda m: of_kind(m, "PodDisruptionBudget")[0]["spec"]["selector"].update(matchLabels={"app": "other"}),
        "a spread of other pods": lambda m: pod(m)["topologySpreadConstraints"][0]["labelSelector"].update(matchLabels={"app": "other"}),
        "a drain longer than the grace period": lambda m: pod(m).update(terminationGracePeriodSeconds=39),
        "a pod that stops at once": lambda m: container(m).pop("lifecycle"),
        "a probe of another page": lambda m: container(m)["readinessProbe"]["httpGet"].update(path="/livez"),
        "the operators' port in the Service": lambda m: of_kind(m, "Service")[0]["spec"]["ports"][0].update(targetPort="operations"),
        "a writable root": lambda m: container(m)["securityContext"].update(readOnlyRootFilesystem=False),
        "a secret's key that nobody was told of": lambda m: pod(m)["volumes"][0]["secret"]["items"][0].update(key="url"),
        "a PrometheusRule's misspelled field": lambda m: of_kind(m, "PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].update(exprr="1"),
        "replicas beside an autoscaler": lambda m: of_kind(m, "Deployment")[0]["spec"].update(replicas=2),
        "an autoscaler of something else": lambda m: of_kind(m, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"].update(name="other"),
        "an autoscaler that is quick to take pods away": lambda m: of_kind(m, "HorizontalPodAutoscaler")[0]["spec"]["behavior"].pop("scaleDown"),
        "replicas that are full": lambda m: of_kind(m, "HorizontalPodAutoscaler")[0]["spec"]["metrics"][0]["pods"]["target"].update(averageValue="15k"),
        "an ingress with a short timeout": lambda m: ingress(m)["metadata"]["annotations"].pop("nginx.ingress.kubernetes.io/proxy-read-timeout"),
        "a sticky ingress": lambda m: ingress(m)["metadata"]["annotations"].update({"nginx.ingress.kubernetes.io/affinity": "cookie"}),
        "an ingress to the operators' port": lambda m: ingress(m)["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(port={"number": 6162}),
        "a policy that lets anybody in": lambda m: of_kind(m, "NetworkPolicy")[0]["spec"]["ingress"][1].pop("from"),
        "a policy without a way to the broker": lambda m: of_kind(m, "NetworkPolicy")[0]["spec"]["egress"].pop(1),
        "a budget that lets nobody drain a node": lambda m: of_kind(m, "PodDisruptionBudget")[0]["spec"].update(maxUnavailable=0),
    }


DOCKERFILE_BREAKAGES = {
    "an image of another version": ("ARG VERSION=", "ARG VERSION=9."),
    "an image for one processor": ('--target "$(cat /target)"', "--target x86_64-unknown-linux-gnu"),
    "an image that begins with a system": ("FROM scratch", "FROM docker.io/library/debian:bookworm-slim"),
    "a file that is not copied": ("COPY src ./src", "COPY source ./src"),
    "a file that is kept away": ("COPY src ./src", "COPY tests ./src"),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/debug/taskcast"), help="the service to ask about its settings")
    binary = arguments.parse_args().binary
    rendered = {folder: render(ROOT / "k8s" / folder) for folder in FOLDERS}
    known = {folder: mistakes(manifests) for folder, manifests in rendered.items()}
    found = [f"{folder}: {mistake}" for folder, those in known.items() for mistake in those]
    if not os.access(binary, os.X_OK):
        found.append(f"{binary} is not built: cargo build")
    else:
        for folder in (folder for folder, manifests in rendered.items() if own(manifests, "Deployment")):
            found += [f"{folder}: {mistake}" for mistake in check_settings(rendered[folder], binary)]
    dockerfile = (ROOT / "Dockerfile").read_text()
    found += check_dockerfile(dockerfile)
    unnoticed = []
    for name, (before, after) in DOCKERFILE_BREAKAGES.items():
        if not list(check_dockerfile(dockerfile.replace(before, after))):
            unnoticed.append(f"the checks do not notice {name}")
    for name, breakage in breakages().items():
        broken = copy.deepcopy(rendered["overlays/production"])
        breakage(broken)
        if mistakes(broken) == known["overlays/production"]:
            unnoticed.append(f"the checks do not notice {name}")
    for mistake in [*found, *unnoticed]:
        print(f"k8s: {mistake}", file=sys.stderr)
    if not found and not unnoticed:
        for folder, manifests in rendered.items():
            print(f"k8s: {folder}: {len(manifests)} objects hold ({', '.join(map(name_of, manifests))})")
        print(f"k8s: {len(breakages()) + len(DOCKERFILE_BREAKAGES)} breakages noticed")
    return 1 if found or unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Applies the Kubernetes manifests to the cluster that KUBECONFIG names, and checks what its API server says to them.

Usage: apply.py [--crds FOLDER] [--rollout]

Each of k8s/base, the overlays and k8s/monitoring goes into namespaces of its own, which enforce the pod security standard
`restricted` and are deleted in the end: by the client and by the server (`--server-side`), with strict validation and
without a warning; a second time changes nothing. The pods that the ReplicaSets make are admitted, where controllers run.
Then what is wrong in known ways is given to the same server, which has to refuse each of it.

--crds FOLDER   applies the definitions of the Prometheus operator first, and leaves them there. Where the cluster has none,
                what needs them is left out, and that is said.
--rollout       the cluster has nodes, and the image: dev becomes available, is restarted with never fewer pods than wanted,
                never more than the surge allows, and the budget lets one pod be evicted and no second one.

Exit 0: all is well; 1: mistakes; 77: there is no cluster. Environment: KUBECONFIG, KUBECTL (default `kubectl`).
"""

import argparse
import copy
import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("base", "overlays/dev", "overlays/production", "monitoring")
# This one brings its own.
WITH_SECRET = "overlays/dev"
OPERATOR = "monitoring.coreos.com"
# Its selector replaces the one before, so a client sends it each time and says `configured`; the server changes nothing.
ALWAYS_SENT = "poddisruptionbudget.policy/"
PATIENCE_SECONDS = 120
SKIPPED = 77


def kubectl(*arguments, given=None, patience=60):
    command = [os.environ.get("KUBECTL", "kubectl"), *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=patience, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def words(result):
    return " ".join((result.stdout + result.stderr).split())


def render(folder):
    result = kubectl("kustomize", str(ROOT / "k8s" / folder))
    if result.returncode != 0:
        sys.exit(f"apply: kubectl kustomize {folder}: {words(result)}")
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def is_of_the_operator(manifest):
    return manifest["apiVersion"].startswith(f"{OPERATOR}/")


def as_text(manifests):
    return yaml.safe_dump_all(manifests)


def name_of(manifest):
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def until(found, what):
    """Waits until nothing is lacking; tells what still is when the time is up."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := found():
        if time.monotonic() > deadline:
            return [f"{what}: {missing}"]
        time.sleep(0.2)
    return []


class Namespaces:
    """Those that are made here, and deleted in the end."""

    def __init__(self):
        self.made = []

    def make(self, folder):
        name = f"taskcast-{folder.rpartition('/')[2]}-{secrets.token_hex(3)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        manifests = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}]
        if folder != WITH_SECRET:
            secret = yaml.safe_load((ROOT / "k8s/base/secret.example.yaml").read_text())
            manifests.append({**secret, "metadata": {**secret["metadata"], "namespace": name}})
        made = kubectl("apply", "-f", "-", given=as_text(manifests))
        self.made.append(name)
        if made.returncode != 0:
            sys.exit(f"apply: {words(made)}")
        # Until then no pod is admitted.
        if late := until(lambda: kubectl("-n", name, "get", "serviceaccount", "default", "-o", "name").returncode, f"{name} has no service account"):
            print(f"apply: {late[0]}; nothing makes one, it seems", file=sys.stderr)
        return name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.made:
            kubectl("delete", "namespace", "--wait=false", *self.made)


# ---- what is right is taken --------------------------------------------------------------------------------------


def check_applied(namespace, manifests, flags, again):
    """Applied without a word of warning; a second time nothing changes."""
    text = as_text(manifests)
    command = ("-n", namespace, "apply", "--validate=strict", *flags, "-f", "-")
    first = kubectl(*command, given=text)
    if first.returncode != 0 or first.stderr.strip():
        yield f"apply {' '.join(flags)}: {words(first)}"
        return
    if len(first.stdout.splitlines()) != len(manifests):
        yield f"{len(manifests)} manifests were applied, and the server took {words(first)}"
    before = versions(namespace, manifests)
    second = kubectl(*command, given=text)
    changed = [line for line in second.stdout.splitlines() if not line.endswith(again) and not line.startswith(ALWAYS_SENT)]
    if second.returncode != 0 or changed:
        yield f"a second time it is not as it was: {words(second)}"
    for name, version in versions(namespace, manifests).items():
        if version != before.get(name):
            yield f"{name} is another after being applied again"
    difference = kubectl("-n", namespace, "diff", "--server-side" if flags else "--server-side=false", "-f", "-", given=text)
    if difference.returncode != 0:
        yield f"what was applied is not what the server has: {words(difference)}"


def versions(namespace, manifests):
    """Of what was applied, the part that controllers leave alone."""
    got = kubectl("-n", namespace, "get", "-f", "-", "-o", "json", given=as_text(manifests))
    if got.returncode != 0:
        return {"everything": words(got)}
    whole = json.loads(got.stdout)
    objects = whole["items"] if whole["kind"] == "List" else [whole]
    kept = ("spec", "data", "type")
    own = ("generation", "labels")
    return {name_of(one): [[one.get(part) for part in kept], [one["metadata"].get(part) for part in own]] for one in objects}


def deployments(namespace):
    return json.loads(kubectl("-n", namespace, "get", "deployments", "-o", "json").stdout or '{"items": []}')["items"]


def check_admitted(namespace):
    """The pods that the Deployments ask for are there; whether they run is a matter of nodes and images."""
    if not deployments(namespace):
        return []

    def refused():
        for deployment in deployments(namespace):
            for condition in deployment.get("status", {}).get("conditions", []):
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    yield condition["message"]

    def lacking():
        for deployment in deployments(namespace):
            wanted, there = deployment["spec"]["replicas"], deployment.get("status", {}).get("replicas", 0)
            if there < wanted:
                yield f"{deployment['metadata']['name']} has {there} of {wanted} pods"

    return [*until(lambda: list(lacking()), "not admitted"), *refused()]


# ---- what is wrong is refused ------------------------------------------------------------------------------------


def pod_of(deployment):
    template = copy.deepcopy(deployment["spec"]["template"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "by-hand"}, "spec": template["spec"]}


def breakages(manifests):
    """What is wrong, whom it is about, how it is made so, and a word of the refusal."""

    def container(one):
        return one["spec"]["containers"][0] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]["containers"][0]

    security = "violates PodSecurity"
    known = [
        ("root", "Pod", lambda o: (o["spec"]["securityContext"].update(runAsUser=0), o["spec"]["securityContext"].pop("runAsNonRoot")), security),
        ("a right to more privileges", "Pod", lambda o: container(o)["securityContext"].update(allowPrivilegeEscalation=True), security),
        ("capabilities", "Pod", lambda o: container(o)["securityContext"].pop("capabilities"), security),
        ("no seccomp profile", "Pod", lambda o: o["spec"]["securityContext"].pop("seccompProfile"), security),
        ("a folder of the node", "Pod", lambda o: o["spec"]["volumes"].append({"name": "node", "hostPath": {"path": "/"}}), security),
        ("a service account that is not there", "Pod", lambda o: o["spec"].update(serviceAccountName="nobody"), "not found"),
        ("a misspelled field", "Deployment", lambda o: container(o).update(livenesProbe={}), "unknown field"),
        ("a field in the wrong place", "Deployment", lambda o: o["spec"]["strategy"].update(maxSurge=1), "unknown field"),
        ("a selector that finds nothing", "Deployment", lambda o: o["spec"]["selector"].update(matchLabels={"app": "other"}), "selector"),
        ("no surge and none unavailable", "Deployment", lambda o: o["spec"]["strategy"]["rollingUpdate"].update(maxSurge=0), "maxUnavailable"),
        ("a sleep beyond the grace period", "Deployment", lambda o: container(o)["lifecycle"]["preStop"]["sleep"].update(seconds=46), "terminationGracePeriod"),
        ("a request above its limit", "Deployment", lambda o: container(o)["resources"]["requests"].update(memory="8Gi"), "memory limit"),
        ("a port that has no such name", "Deployment", lambda o: container(o)["ports"][0].update(name="Public"), "name"),
        ("a volume that is mounted and not there", "Deployment", lambda o: container(o)["volumeMounts"][0].update(name="none"), "Not found"),
        ("a budget of both kinds", "PodDisruptionBudget", lambda o: o["spec"].update(minAvailable=1), "cannot be both set"),
        ("an autoscaler with less than its least", "HorizontalPodAutoscaler", lambda o: o["spec"].update(maxReplicas=1), "minReplicas"),
        ("a path of no type", "Ingress", lambda o: o["spec"]["rules"][0]["http"]["paths"][0].pop("pathType"), "pathType"),
        ("a policy with a protocol that is none", "NetworkPolicy", lambda o: o["spec"]["egress"][0]["ports"][0].update(protocol="TLS"), "protocol"),
        ("a Service on no port", "Service", lambda o: o["spec"].update(ports=[]), "ports"),
        ("a PodMonitor's port as a number", "PodMonitor", lambda o: o["spec"]["podMetricsEndpoints"][0].update(port=6162), "port"),
        ("a misspelled field of a rule", "PrometheusRule", lambda o: o["spec"]["groups"][0]["rules"][0].update(exprr="1"), "unknown field"),
    ]
    there = {manifest["kind"]: manifest for manifest in reversed(manifests)}
    there["Pod"] = pod_of(there["Deployment"])
    for name, kind, make, word in known:
        if kind in there:
            wrong = copy.deepcopy(there[kind])
            make(wrong)
            yield name, wrong, word


def check_breakages(namespace, manifests):
    """The same server refuses each; otherwise it would prove nothing that it took the rest."""
    command = ("-n", namespace, "create", "--dry-run=server", "--validate=strict", "-f", "-")

    # What is there already has a name that is taken, which is not what is asked about.
    def under_another_name(manifest):
        return {**manifest, "metadata": {**manifest["metadata"], "name": "another"}}

    right = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    for manifest in (right, pod_of(right)):
        if (taken := kubectl(*command, given=as_text([under_another_name(manifest)]))).returncode != 0 or taken.stderr.strip():
            yield f"the {manifest['kind']} as it is: {words(taken)}"
    count = 0
    for name, manifest, word in breakages(manifests):
        refused = kubectl(*command, given=as_text([under_another_name(manifest)]))
        count += 1
        if refused.returncode == 0 or word not in refused.stderr:
            yield f"{name} is not refused with \"{word}\": {words(refused)}"
    print(f"apply: {count} breakages refused" if count else "apply: nothing was broken")


# ---- a rollout ---------------------------------------------------------------------------------------------------


def check_rollout(namespace):
    """Dev comes up, and is replaced with the surge that it allows."""
    waiting = ("-n", namespace, "rollout", "status", "deployment/taskcast", f"--timeout={PATIENCE_SECONDS}s")
    if (came := kubectl(*waiting, patience=PATIENCE_SECONDS + 10)).returncode != 0:
        return [f"it did not come up: {words(came)}"]
    found = list(check_budget(namespace))
    if (again := kubectl("-n", namespace, "rollout", "restart", "deployment/taskcast")).returncode != 0:
        return [*found, words(again)]
    fewest, most, replaced = 1_000, 0, False
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not replaced and time.monotonic() < deadline:
        deployment = next(one for one in deployments(namespace) if one["metadata"]["name"] == "taskcast")
        status, wanted = deployment["status"], deployment["spec"]["replicas"]
        surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        fewest, most = min(fewest, status.get("availableReplicas", 0)), max(most, status.get("replicas", 0))
        is_seen = status["observedGeneration"] >= deployment["metadata"]["generation"]
        replaced = is_seen and status.get("updatedReplicas") == status.get("availableReplicas") == status.get("replicas") == wanted
        time.sleep(0.1)
    print(f"apply: restarted: {fewest} to {most} pods of {wanted}")
    if not replaced or fewest < wanted or not wanted < most <= wanted + surge:
        found.append(f"a rollout went from {fewest} to {most} pods of {wanted} and {surge}, and ended: {replaced}")
    return found


def check_budget(namespace):
    """One pod may be evicted, and while it is not replaced no second one."""
    selector = "app.kubernetes.io/name=taskcast"
    got = kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json")
    pods = [pod["metadata"]["name"] for pod in json.loads(got.stdout)["items"]]
    answers = []
    for pod in pods[:2]:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        answers.append(kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", given=json.dumps(eviction)))
    if len(answers) != 2 or answers[0].returncode != 0 or "disruption budget" not in answers[1].stderr:
        yield f"evictions of two pods were answered: {[words(answer) for answer in answers]}"
    else:
        print("apply: one pod was evicted, a second one not")
    yield from until(lambda: [one["metadata"]["name"] for one in deployments(namespace) if one["status"].get("availableReplicas", 0) < one["spec"]["replicas"]], "after an eviction")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--crds", help="a folder with the definitions of the Prometheus operator")
    arguments.add_argument("--rollout", action="store_true", help="the cluster has nodes, and the image")
    chosen = arguments.parse_args()
    if not os.environ.get("KUBECONFIG"):
        print("apply: SKIPPED, KUBECONFIG names no cluster")
        return SKIPPED
    version = kubectl("version", "-o", "json")
    if version.returncode != 0:
        print(f"apply: SKIPPED, no API server answers: {words(version)}")
        return SKIPPED
    print(f"apply: Kubernetes {json.loads(version.stdout)['serverVersion']['gitVersion']}")
    if chosen.crds and (made := kubectl("apply", "--server-side", "-f", chosen.crds)).returncode != 0:
        sys.exit(f"apply: {words(made)}")
    has_operator = OPERATOR in kubectl("api-versions").stdout
    if not has_operator:
        print(f"apply: NOT APPLIED, since the cluster does not know {OPERATOR}: PodMonitor, PrometheusRule")
    found = []
    with Namespaces() as namespaces:
        for folder in FOLDERS:
            manifests = [manifest for manifest in render(folder) if has_operator or not is_of_the_operator(manifest)]
            mistakes = []
            for flags, again in (((), " unchanged"), (("--server-side",), " serverside-applied")):
                namespace = namespaces.make(folder)
                mistakes += check_applied(namespace, manifests, flags, again)
                mistakes += check_admitted(namespace)
            if folder == "overlays/production":
                mistakes += check_breakages(namespace, manifests)
            if folder == "overlays/dev" and chosen.rollout:
                mistakes += check_rollout(namespace)
            print(f"apply: {folder}: {len(manifests)} objects ({', '.join(map(name_of, manifests))})")
            found += [f"{folder}: {mistake}" for mistake in mistakes]
    for mistake in found:
        print(f"apply: {mistake}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

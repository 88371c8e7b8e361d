"""Checks compose.yaml and what it mounts, without a container.

Usage: compose.py [--binary target/debug/taskcast]

The file against the schema of the Compose specification (npm dclint brings it); every file that is mounted is there; the
service has the rights of the Deployment, the broker the settings of overlays/dev; the binary takes its settings;
Prometheus' own start makes a rule file of k8s/monitoring/prometheusrule.yaml, promtool accepts it with the configuration,
and it scrapes what is in the file under the labels that the rules want; Grafana finds its source and its board. Then it breaks all that in known ways
and fails if a breakage goes unnoticed. Exit 0: all is well; 1: mistakes.

Environment: TESTS_NODE_MODULES (where npm put dclint).
"""

import argparse
import copy
import json
import os
import pathlib
import re
import sys
import tempfile

import jsonschema
import yaml

import validate
from validate import ROOT, run

SCHEMA = pathlib.Path(os.environ.get("TESTS_NODE_MODULES", ROOT / "target/tests/node_modules")) / "dclint/schemas/compose.schema.json"
SERVICES = ("taskcast", "taskcast-rabbitmq")
# What the service takes beyond its drain for the last closes and requests, and the drain that k8s/base sets, the longest in the repository.
DRAIN_SECONDS = 30 + validate.LAST_CLOSES_SECONDS
SCRAPED_LABELS = {"namespace", "pod"}


def load():
    """All that the checks look at: the file itself, and the files that it mounts, as they are read."""
    files = ("compose/prometheus.yaml", "compose/grafana/datasources.yaml", "compose/grafana/dashboards.yaml")
    return {"compose": yaml.safe_load((ROOT / "compose.yaml").read_text()), **{name: yaml.safe_load((ROOT / name).read_text()) for name in files}}


def mounts(service):
    """What is mounted where: source, target, options."""
    for volume in service.get("volumes", []):
        source, target, *options = volume.split(":")
        yield source, target, options


def check_schema(given):
    for error in jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).iter_errors(given["compose"]):
        yield f"{'/'.join(map(str, error.path))}: {error.message}"


def check_files_and_ports(given):
    compose, taken = given["compose"], set()
    for name, service in compose["services"].items():
        for source, target, options in mounts(service):
            if source.startswith("."):
                if not (ROOT / source).is_file():
                    yield f"{name} mounts {source}, which does not exist"
                if options != ["ro"]:
                    yield f"{name} may write {source}"
            elif source not in compose["volumes"]:
                yield f"{name} mounts the volume {source}, which is not declared"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name} opens {port} to everybody"
            if port.rsplit(":", 1)[0] in taken:
                yield f"{port} of {name} is taken"
            taken.add(port.rsplit(":", 1)[0])
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy" and "healthcheck" not in compose["services"][other]:
                yield f"{name} waits for the health of {other}, which has no check"


def check_service(given):
    """As the Deployment has it."""
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "image": f"taskcast:{version}"}
    for name in SERVICES:
        service = given["compose"]["services"][name]
        for key, value in wanted.items():
            if service.get(key) != value:
                yield f"{name}: {key} is {service.get(key)}, not {value}"
        if "mem_limit" not in service or "user" in service or "healthcheck" in service:
            yield f"{name} has no limit of memory, or another user or health check than the image"
        if int(service.get("stop_grace_period", "10s").removesuffix("s")) < DRAIN_SECONDS:
            yield f"{name} is killed while it drains"
        if not any(port.endswith(f":{validate.PUBLIC_PORT}") for port in service["ports"]):
            yield f"{name} cannot be reached"


def check_brokers(given):
    services = given["compose"]["services"]
    redis = next(manifest for manifest in validate.render(ROOT / "k8s/overlays/dev") if manifest["metadata"]["name"] == "taskcast-redis" and manifest["kind"] == "Deployment")
    wanted = redis["spec"]["template"]["spec"]["containers"][0]
    if services["redis"]["command"].replace('""', "").split() != [word for word in wanted["args"] if word]:
        yield f"Redis is started with {services['redis']['command']}, in overlays/dev with {wanted['args']}"
    if not services["redis"]["image"].endswith("/" + wanted["image"]):
        yield f"Redis is {services['redis']['image']}, in overlays/dev {wanted['image']}"
    account = services["rabbitmq"]["environment"]
    url = f"amqp://{account['RABBITMQ_DEFAULT_USER']}:{account['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672"
    if services["taskcast-rabbitmq"]["environment"]["TASKCAST_LOG"] != url:
        yield f"taskcast-rabbitmq does not read {url}"
    if services["taskcast"]["environment"]["TASKCAST_LOG"] != "redis://redis:6379/0":
        yield "taskcast does not read the Redis beside it"


def check_prometheus(given):
    """Runs what Prometheus is started by, but for Prometheus itself."""
    service, configuration = given["compose"]["services"]["prometheus"], given["compose/prometheus.yaml"]
    with tempfile.TemporaryDirectory(prefix="taskcast-compose-") as folder:
        here = {target: str(ROOT / source) for source, target, _ in mounts(service) if source.startswith(".")}
        here |= {"/etc/prometheus/prometheus.yaml": f"{folder}/prometheus.yaml", "/prometheus/": f"{folder}/"}
        # In one go, so that what was put in place is not replaced again.
        paths = re.compile("|".join(map(re.escape, here)))
        script = service["entrypoint"][-1].replace("$$", "$").replace("exec /bin/prometheus", "true")
        script, asked = (paths.sub(lambda found: here[found.group()], text) for text in (script, json.dumps(configuration)))
        pathlib.Path(folder, "prometheus.yaml").write_text(asked)
        started = run([*service["entrypoint"][:-1], script])
        checked = run(["promtool", "check", "config", f"{folder}/prometheus.yaml"])
        if started.returncode or checked.returncode:
            yield f"Prometheus does not start: {started.stderr}{checked.stdout}{checked.stderr}"
            return
        rules = yaml.safe_load((ROOT / "k8s/monitoring/prometheusrule.yaml").read_text())["spec"]
        made = [yaml.safe_load(pathlib.Path(found).read_text()) for found in json.loads(asked)["rule_files"] if os.path.exists(found)]
        if made != [rules]:
            yield "Prometheus has other rules than k8s/monitoring"
    targets = {}
    for job in configuration["scrape_configs"]:
        for scraped in job["static_configs"]:
            if job["job_name"] != validate.NAME or set(scraped["labels"]) != SCRAPED_LABELS:
                yield f"the rules want job={validate.NAME} and {SCRAPED_LABELS}: {job}"
            targets.update({target: scraped["labels"]["pod"] for target in scraped["targets"]})
    if targets != {f"{name}:{validate.OPERATIONS_PORT}": name for name in SERVICES}:
        yield f"Prometheus scrapes {targets}"


def check_grafana(given):
    service = given["compose"]["services"]["grafana"]
    mounted = {target: source for source, target, _ in mounts(service)}
    (source,) = given["compose/grafana/datasources.yaml"]["datasources"]
    if (source["type"], source["url"]) != ("prometheus", "http://prometheus:9090") or not source["isDefault"]:
        yield f"Grafana asks {source}"
    (provider,) = given["compose/grafana/dashboards.yaml"]["providers"]
    board = provider["options"]["path"] + "/taskcast.json"
    if (mounted.get(board), service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) != ("./k8s/monitoring/dashboard.json", board):
        yield f"Grafana does not find the board at {board}: {mounted}"
    provisioned = {target for target in mounted if target.startswith("/etc/grafana/provisioning/")}
    if {pathlib.Path(target).parent.name for target in provisioned} != {"datasources", "dashboards"}:
        yield f"Grafana is provisioned with {provisioned}"


def check_settings(given, binary):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TASKCAST_")}
    for name in SERVICES:
        settings = given["compose"]["services"][name]["environment"]
        settings = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in settings.items()}
        accepted = run([binary, "check-config"], env={**outside, **settings})
        if accepted.returncode != 0:
            yield f"check-config exits {accepted.returncode} with the settings of {name}:\n{accepted.stdout}{accepted.stderr}"


CHECKS = (check_schema, check_files_and_ports, check_service, check_brokers, check_prometheus, check_grafana)


def mistakes(given):
    for check in CHECKS:
        try:
            yield from check(given)
        except (KeyError, ValueError, TypeError) as error:
            yield f"{check.__name__}: {error!r}"


def breakages():
    """Known mistakes, each a name and a function that makes it; every one must be noticed."""

    def service(given, name="taskcast"):
        return given["compose"]["services"][name]

    return {
        "a misspelled key": lambda g: service(g).update(restrat="always"),
        "a file that does not exist": lambda g: service(g, "grafana")["volumes"].append("./compose/none.yaml:/none:ro"),
        "a volume that is not declared": lambda g: g["compose"]["volumes"].pop("redis"),
        "a port that is open to everybody": lambda g: service(g).update(ports=["6161:6161"]),
        "a port that is taken": lambda g: service(g).update(ports=["127.0.0.1:9090:6161"]),
        "a writable root": lambda g: service(g).pop("read_only"),
        "an old image": lambda g: service(g).update(image="taskcast:0.0.1"),
        "a drain that is cut short": lambda g: service(g).update(stop_grace_period="10s"),
        "a Redis that forgets": lambda g: service(g, "redis").update(command="redis-server --dir /data"),
        "a password that is another": lambda g: service(g, "rabbitmq")["environment"].update(RABBITMQ_DEFAULT_PASS="other"),
        "rules that are not found": lambda g: g["compose/prometheus.yaml"].update(rule_files=["/prometheus/other.yaml"]),
        "a scrape of the clients' port": lambda g: g["compose/prometheus.yaml"]["scrape_configs"][0]["static_configs"][0].update(targets=["taskcast:6161"]),
        "a scrape without labels": lambda g: g["compose/prometheus.yaml"]["scrape_configs"][0]["static_configs"][0].update(labels={}),
        "a misspelled field of Prometheus": lambda g: g["compose/prometheus.yaml"]["global"].update(scrape_intervall="5s"),
        "rules cut off wrongly": lambda g: service(g, "prometheus")["entrypoint"].append(service(g, "prometheus")["entrypoint"].pop().replace("1d;", "")),
        "a source that does not exist": lambda g: g["compose/grafana/datasources.yaml"]["datasources"][0].update(url="http://localhost:9090"),
        "a board that is elsewhere": lambda g: g["compose/grafana/dashboards.yaml"]["providers"][0]["options"].update(path="/var/lib/grafana"),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/debug/taskcast"), help="the service to ask about its settings")
    given = load()
    found = [*mistakes(given), *check_settings(given, arguments.parse_args().binary)]
    known = set(found)
    for name, breakage in breakages().items():
        broken = copy.deepcopy(given)
        breakage(broken)
        if set(mistakes(broken)) <= known:
            found.append(f"the checks do not notice {name}")
    for mistake in found:
        print(f"compose: {mistake}", file=sys.stderr)
    if not found:
        print(f"compose: {len(given['compose']['services'])} services hold, {len(breakages())} breakages noticed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

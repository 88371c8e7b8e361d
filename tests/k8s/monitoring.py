"""Checks the rules, the alerts and the board of k8s/monitoring, and rehearses them.

Usage: monitoring.py [--binary target/debug/taskcast]

Rules and tests: promtool checks the rules, tests/k8s/alerts.yaml shows each alert fire and not fire, and what would be
wrong with an alert (it never fires, it always does, it does not wait) is tried out and has to be noticed by those tests.
Runbook: a section for each alert, and none for what is no alert. Board: Grafana's own schema knows every field.

Rehearsal: the Redis of overlays/dev, the real service with clients that come and go and a worker that publishes, and a
Prometheus that scrapes it with the rules. Every metric and label that a rule or the board names is there (and known
mistakes in them are noticed), every query of the board returns data with the labels of its legend, a dead letter fires
its alert and nothing else fires, and when Redis is killed the alert for that begins. Exit 0: all is well; 1: mistakes.
"""

import argparse
import contextlib
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))
import street  # noqa: E402

MONITORING = ROOT / "k8s/monitoring"
TESTS = ROOT / "tests/k8s/alerts.yaml"
SEVERITIES = {"critical", "warning"}
# Metrics that are not the service's: Prometheus' own of each target.
OTHERS = {"up", "scrape_duration_seconds", "ALERTS"}
# Labels of the target, and those that are the variables of the board.
TARGET_LABELS = {"namespace", "pod", "job", "instance", "alertname", "alertstate"}
# All that is not a metric in the expressions here; whatever else there is has to be one.
WORDS = re.compile(
    r"^(sum|max|min|count|rate|increase|changes|absent|histogram_quantile|time|vector|by|on|and|or|unless|without|offset|le)$"
)
CLIENTS = 4
REHEARSAL_SECONDS = 120


def promtool(*arguments, folder=None, given=None):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=folder, input=given)


def rule_file():
    return yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]


def rules_of(rules, kind):
    return [rule for group in rules["groups"] for rule in group["rules"] if kind in rule]


def board():
    return json.loads((MONITORING / "dashboard.json").read_text())


# ---- the rules and their tests -----------------------------------------------------------------------------------


def check_rules(folder):
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule_file()))
    checked = promtool("check", "rules", "rules.yaml", folder=folder)
    if checked.returncode != 0:
        yield checked.stdout + checked.stderr
    for rule in rules_of(rule_file(), "alert"):
        if rule.get("labels", {}).get("severity") not in SEVERITIES or not rule["annotations"].get("summary"):
            yield f"{rule['alert']} has no severity of {sorted(SEVERITIES)}, or no summary"


def expects_an_alert(group):
    return any(test["exp_alerts"] for test in group.get("alert_rule_test", []))


def run_alert_tests(folder, rules, tests):
    """What promtool says; empty if all is well."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    (folder / "alerts.yaml").write_text(yaml.safe_dump(tests))
    ran = promtool("test", "rules", "alerts.yaml", folder=folder)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def check_alert_tests(folder):
    rules, tests = rule_file(), yaml.safe_load(TESTS.read_text())
    if said := run_alert_tests(folder, rules, tests):
        yield said
        return
    calm = {**tests, "tests": [group for group in tests["tests"] if not expects_an_alert(group)]}
    mutations = {
        "never fires": (tests, lambda rule: rule.update(expr="vector(0) > 1")),
        "always fires": (calm, lambda rule: (rule.update(expr="vector(1)"), rule.pop("for", None))),
        "does not wait": (tests, lambda rule: rule.pop("for", None)),
    }
    for mutation, (those, mutate) in mutations.items():
        mutated = copy.deepcopy(rules)
        for rule in rules_of(mutated, "alert"):
            mutate(rule)
        noticed = set(re.findall(r"alertname: ?(\w+), time", run_alert_tests(folder, mutated, those)))
        for before, after in zip(rules_of(rules, "alert"), rules_of(mutated, "alert"), strict=True):
            if before != after and before["alert"] not in noticed:
                yield f"the tests in {TESTS.name} do not notice that {before['alert']} {mutation}"


def check_runbook():
    sections = set(re.findall(r"^## (Taskcast\w+)$", (ROOT / "k8s/RUNBOOK.md").read_text(), re.MULTILINE))
    alerts = {rule["alert"]: rule["annotations"].get("runbook") for rule in rules_of(rule_file(), "alert")}
    for alert in sorted(set(alerts) ^ sections):
        yield f"{alert} is {'an alert without' if alert in alerts else 'no alert, and has'} a section in k8s/RUNBOOK.md"
    for alert, link in alerts.items():
        if link != f"k8s/RUNBOOK.md#{alert.lower()}":
            yield f"{alert} points to {link}"


# ---- the board ---------------------------------------------------------------------------------------------------


def panels(given):
    return [panel for panel in given["panels"] if panel["type"] != "row"]


def unknown_fields(given, known, path=""):
    """Where the board says what Grafana's schema does not take up."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            yield from unknown_fields(value, known[key], f"{path}/{key}") if key in known else [f"{path}/{key}"]
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for index, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from unknown_fields(one, other, f"{path}/{index}")
    elif given != known:
        yield path


def check_board(given):
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(given))))
    yield from (f"the board's {path} is not in Grafana's schema" for path in unknown_fields(given, known))
    identities = [panel["id"] for panel in given["panels"]]
    if len(set(identities)) != len(identities):
        yield f"two panels have one id: {identities}"
    taken = {}
    for panel in given["panels"]:
        place, title = panel["gridPos"], panel["title"]
        for cell in ((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])):
            if taken.setdefault(cell, title) != title:
                yield f"the panels {taken[cell]} and {title} lie one over the other"
    for panel in panels(given):
        if not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"the panel {panel['title']} has no description or no unit"


def expressions(rules, given):
    """Every expression with where it is written."""
    for rule in [rule for kind in ("record", "alert") for rule in rules_of(rules, kind)]:
        yield rule.get("record") or rule.get("alert"), rule["expr"]
    for panel in panels(given):
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    yield from ((annotation["name"], annotation["expr"]) for annotation in given["annotations"]["list"])


def check_names(metrics, rules, given):
    """Every metric that an expression names is on /metrics, with every label and each of its values that is asked for."""
    series = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", metrics, re.MULTILINE):
        series.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    recorded = {rule["record"] for rule in rules_of(rules, "record")}
    for where, expression in expressions(rules, given):
        grouped = re.sub(r"\b(by|on|without) \([^)]*\)", "", expression)
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset \w+|\b[\d.]+\b", "", grouped)
        for name in set(re.findall(r"[A-Za-z_][\w:]*", bare)):
            if not WORDS.match(name) and name not in recorded | OTHERS and name not in series:
                yield f"{where} names {name}, which the service does not have"
        for name, matchers in re.findall(r"([A-Za-z_]\w*)\{([^}]*)\}", expression):
            for label, operator, values in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
                if label in TARGET_LABELS or name in OTHERS:
                    continue
                there = {labels.get(label) for labels in series.get(name, [])}
                for value in values.split("|") if operator.endswith("~") else [values]:
                    if value not in there:
                        yield f"{where} asks {name} for {label} {value}, which it never has: {sorted(map(str, there))}"


def check_breakages(metrics):
    """Known mistakes, each of which must be noticed."""

    def replace(place, before, after):
        if before not in place["expr"]:
            raise ValueError(f"there is no {before} in {place['expr']}")
        place["expr"] = place["expr"].replace(before, after)

    def panel(given, title):
        return next(panel for panel in panels(given) if panel["title"] == title)

    def alert(rules, name):
        return next(rule for rule in rules_of(rules, "alert") if rule["alert"] == name)

    breakages = {
        "a metric of the board that is not there": lambda _, b: replace(panel(b, "Lag")["targets"][0], "lag_seconds", "lag_second"),
        "a function that is not there": lambda _, b: replace(panel(b, "CPU")["targets"][0], "rate(", "rat("),
        "a recorded series that nothing records": lambda _, b: replace(panel(b, "Replicas")["targets"][0], "taskcast_build_info", "job:replicas:sum"),
        "a metric of an alert that is not there": lambda r, _: replace(alert(r, "TaskcastOverloaded"), "overloaded", "overload"),
        "a value that a label never has": lambda r, _: replace(alert(r, "TaskcastEventsDropped"), "dropped", "lost"),
        "one of several values that a label never has": lambda r, _: replace(alert(r, "TaskcastCapacityReached"), "over_capacity|", "full|"),
        "a misspelled field of the board": lambda _, b: panel(b, "CPU").update(descripton="Cores."),
        "panels one over the other": lambda _, b: panel(b, "CPU")["gridPos"].update(y=3),
        "a panel without a unit": lambda _, b: panel(b, "CPU")["fieldConfig"]["defaults"].pop("unit"),
    }
    for name, breakage in breakages.items():
        rules, given = rule_file(), board()
        breakage(rules, given)
        if not [*check_names(metrics, rules, given), *check_board(given)]:
            yield f"the checks do not notice {name}"


# ---- the rehearsal -----------------------------------------------------------------------------------------------


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def answers(url):
    with contextlib.suppress(OSError):
        get(url)
        return True
    return False


def redis_command(folder, port):
    """As overlays/dev runs it, but for where it is."""
    manifest = next(yaml.safe_load_all((ROOT / "k8s/overlays/dev/redis.yaml").read_text()))
    arguments = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    return [*(str(folder) if argument == "/data" else argument for argument in arguments), "--port", str(port), "--bind", "127.0.0.1"]


def prometheus_configuration(operations):
    labels = {"namespace": "rehearsal", "pod": "taskcast-0"}
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "taskcast", "static_configs": [{"targets": [f"127.0.0.1:{operations}"], "labels": labels}]}],
    }


def come_and_go(url, user, ended):
    """A client that stays for a moment, loses its connection and comes back with its cursor."""
    cursor = ""
    while not ended.is_set():
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            with connect(url + cursor, additional_headers={"Authorization": f"Bearer {street.token(user)}"}, proxy=None) as socket:
                leaves = time.monotonic() + 3
                while time.monotonic() < leaves and not ended.is_set():
                    if told := json.loads(socket.recv(timeout=3)).get("cursor"):
                        cursor = f"?cursor={urllib.parse.quote(told)}"
        ended.wait(0.1)


def publish(worker, ended):
    """Some events a second, of tasks that begin and end."""
    number = 0
    while not ended.wait(0.05):
        task, step = divmod(number, 20)
        number += 1
        end = step == 19
        event = {"task_id": f"task-{task}", "user_id": f"user-{task % CLIENTS}", "progress": 100 if end else step * 5}
        with contextlib.suppress(OSError):
            worker.stdin.write(json.dumps({**event, "status": "succeeded" if end else "running"}).encode() + b"\n")
            worker.stdin.flush()


@contextlib.contextmanager
def load(folder, command, url):
    """A worker and some clients, until the block ends."""
    ended = threading.Event()
    with street.process(folder, "worker", command, given=subprocess.PIPE) as worker:
        threads = [threading.Thread(target=come_and_go, args=(url, f"user-{number}", ended)) for number in range(CLIENTS)]
        threads.append(threading.Thread(target=publish, args=(worker, ended)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def lacking(prometheus):
    """The queries of the board that return nothing, only NaN, or without what their legend shows."""
    for panel in panels(board()):
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "15s").replace("$namespace", ".*").replace("$pod", ".*")
            try:
                found = json.loads(get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))["data"]["result"]
            except urllib.error.HTTPError as refused:
                yield f"{panel['title']}: Prometheus refuses {query}: {refused.read().decode()}"
                continue
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            found = [series for series in found if series["value"][1] != "NaN"]
            if not found:
                yield f"{panel['title']}: no data for {query}"
            elif any(not shown <= series["metric"].keys() for series in found):
                yield f"{panel['title']}: the legend shows {shown}, the series have {found[0]['metric']}"


def alerts(prometheus, state):
    active = json.loads(get(f"{prometheus}/api/v1/alerts"))["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in active if alert["state"] == state}


def attempt(found):
    """A machine that is busy may let a question wait for too long; it is asked again."""
    try:
        return list(found())
    except OSError as error:
        return [str(error)]


def until(found, what):
    """Waits until nothing is lacking; tells what still is when the time is up."""
    deadline = time.monotonic() + REHEARSAL_SECONDS
    while missing := attempt(found):
        if time.monotonic() > deadline:
            yield from (f"{what}: {mistake}" for mistake in missing)
            return
        time.sleep(0.5)


def rehearse(folder, binary):
    redis_port, public, operations, port = street.free_ports(4)
    log, prometheus = f"redis://127.0.0.1:{redis_port}", f"http://127.0.0.1:{port}"
    service = {
        "TASKCAST_LOG": log,
        "TASKCAST_LISTEN": f"127.0.0.1:{public}",
        "TASKCAST_OPERATIONS_LISTEN": f"127.0.0.1:{operations}",
        "TASKCAST_AUTH_SECRET": street.SECRET,
        "TASKCAST_MEMORY_MAX_BYTES": "1073741824",
        "TASKCAST_CHECKPOINT_INTERVAL_SECONDS": "1",
        "TASKCAST_CANARY_INTERVAL_SECONDS": "1",
    }
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule_file()))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(prometheus_configuration(operations)))
    checked = promtool("check", "config", "prometheus.yaml", folder=folder)
    if checked.returncode != 0:
        yield checked.stdout + checked.stderr
        return
    watching = ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(street.process(folder, "redis", redis_command(folder, redis_port)))
        served = stack.enter_context(street.process(folder, "taskcast", [binary, "serve"], service))
        street.wait_until(lambda: answers(f"http://127.0.0.1:{operations}/readyz"), "taskcast", served)
        watcher = stack.enter_context(street.process(folder, "prometheus", watching))
        street.wait_until(lambda: answers(f"{prometheus}/-/ready"), "prometheus", watcher)
        busy = stack.enter_context(contextlib.ExitStack())
        busy.enter_context(load(folder, [binary, "publish", "--log", log, "-"], f"ws://127.0.0.1:{public}/ws/tasks/"))

        metrics = get(f"http://127.0.0.1:{operations}/metrics")
        linted = promtool("check", "metrics", given=metrics)
        if linted.returncode != 0 or linted.stdout + linted.stderr:
            yield f"promtool check metrics: {linted.stdout}{linted.stderr}"
        yield from check_names(metrics, rule_file(), board())
        yield from check_breakages(metrics)
        yield from until(lambda: lacking(prometheus), "the board")
        subprocess.run(["redis-cli", "-p", str(redis_port), "XADD", "taskcast:events", "*", "event", "no event"], check=True, capture_output=True, timeout=30)
        yield from until(lambda: {"TaskcastDeadLetters"} - alerts(prometheus, "firing"), "an alert does not fire")
        if others := alerts(prometheus, "firing") - {"TaskcastDeadLetters"}:
            yield f"alerts fire though all is well: {sorted(others)}"
        busy.close()
        redis.kill()
        yield from until(lambda: {"TaskcastLogDisconnected"} - alerts(prometheus, "pending") - alerts(prometheus, "firing"), "an alert does not begin")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/debug/taskcast"), help="the service to rehearse with")
    binary = os.path.abspath(arguments.parse_args().binary)
    for program in ("promtool", "prometheus", "redis-server", "redis-cli", binary):
        if shutil.which(program) is None:
            sys.exit(f"monitoring: {program} is missing")
    with tempfile.TemporaryDirectory(prefix="taskcast-monitoring-") as name:
        folder = pathlib.Path(name)
        found = [*check_rules(folder), *check_runbook(), *check_board(board()), *check_alert_tests(folder)]
        # What is wrong already would only be told again.
        found = found or list(rehearse(folder, binary))
    for mistake in found:
        print(f"monitoring: {mistake}", file=sys.stderr)
    if not found:
        rules, queries = rule_file(), sum(len(panel["targets"]) for panel in panels(board()))
        print(
            f"monitoring: {len(rules_of(rules, 'alert'))} alerts fire and do not, {len(rules_of(rules, 'record'))} recording rules, "
            f"{queries} queries of {len(panels(board()))} panels return data"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""How long a start takes: from the first moment of the process until it is ready, with a long log.

Usage: start.py [--binary target/release/taskcast] [--events 1000000] [redis] [rabbitmq]

Fills a private broker, then starts the service without a checkpoint, and again with one that it wrote itself. Ready means
what it means to Kubernetes: /readyz answers 200, so the log is read to its end and a delivery canary came back. Exit 0: in
time; 1: too late, or it did not read all. The limits are those of a million events, on two cores, in a release build.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import pika

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import street  # noqa: E402

TASKS = 10_000
EVENTS_PER_TASK = 100
# Seconds that a million events are meant to take; how long they do is the machine's, so it is told and not judged.
LIMITS = {"redis": 5, "rabbitmq": 30}
RESTORED_WITHIN = 5
PATIENCE_SECONDS = 240
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def events(count):
    """About 250 bytes each; tasks follow each other, a few thousand of them at a time, and come to an end."""
    for number in range(count):
        task, step = number % TASKS + number // (TASKS * EVENTS_PER_TASK) * TASKS, number // TASKS % EVENTS_PER_TASK
        status = "succeeded" if step == EVENTS_PER_TASK - 1 else "running"
        yield json.dumps({
            "task_id": f"start-{task}", "event_id": f"start-{number}", "user_id": f"user-{task % 997}", "status": status,
            "progress": step, "message": f"step {step} of {EVENTS_PER_TASK}, which is a sentence of about the usual length",
            "queue": "default", "seq": step + 1,
        }).encode()  # fmt: skip


def fill_redis(url, count):
    port = url.rsplit(":", 1)[1]
    with subprocess.Popen(["redis-cli", "-p", port, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as pipe:
        for event in events(count):
            pipe.stdin.write(b"*5\r\n$4\r\nXADD\r\n$15\r\ntaskcast:events\r\n$1\r\n*\r\n$5\r\nevent\r\n$%d\r\n%b\r\n" % (len(event), event))
    assert pipe.returncode == 0, "redis-cli does not take the events"


def fill_rabbitmq(url, count):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for number, event in enumerate(events(count)):
        channel.basic_publish("taskcast.events", "task.start", event, pika.BasicProperties(delivery_mode=2))
        # What a broker that is slower than this has to say is heard only now and then.
        if number % 5_000 == 0:
            connection.process_data_events()
    connection.close()


def get(address):
    with contextlib.suppress(OSError), DIRECT.open(address, timeout=5) as answer:
        return answer.read().decode()
    return None


def metric(address, name):
    text = get(f"http://{address}/metrics") or ""
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@contextlib.contextmanager
def started(folder, binary, log, settings):
    """The service, ready; yields its operators' address and how long it took."""
    listen, operations = (f"127.0.0.1:{port}" for port in street.free_ports(2))
    environment = {"TASKCAST_LISTEN": listen, "TASKCAST_OPERATIONS_LISTEN": operations, "TASKCAST_LOG": log}
    environment |= {"TASKCAST_AUTH_SECRET": street.SECRET, **settings}
    began = time.monotonic()
    with street.process(folder, "taskcast", [binary, "serve"], environment) as child:
        while get(f"http://{operations}/readyz") is None:
            assert child.poll() is None, "taskcast ended before it was ready"
            assert time.monotonic() < began + PATIENCE_SECONDS, "taskcast does not become ready"
            time.sleep(0.01)
        yield operations, time.monotonic() - began


def wait_for(what, holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.2)


def measure(folder, binary, name, count):
    """Yields what is wrong."""
    broker, fill = {"redis": (street.redis, fill_redis), "rabbitmq": (street.rabbitmq, fill_rabbitmq)}[name]
    without = {"TASKCAST_CHECKPOINT_INTERVAL_SECONDS": "0"}
    limit = LIMITS[name] * count / 1_000_000
    with broker(folder) as (log, _):
        # RabbitMQ's stream is made by the first who reads it; and nobody but a reader knows when it has stored them all.
        with started(folder, binary, log, without) as (address, empty):
            fill(log, count)
            wait_for("all is in the log", lambda: metric(address, "taskcast_events_total{") >= count)
        with started(folder, binary, log, without) as (address, whole):
            replayed = metric(address, "taskcast_replayed_events")
        with started(folder, binary, log, {"TASKCAST_CHECKPOINT_INTERVAL_SECONDS": "1"}) as (address, _):
            wait_for("a checkpoint is written", lambda: metric(address, 'taskcast_checkpoint_writes_total{outcome="written"}') >= 1)
        with started(folder, binary, log, {"TASKCAST_CHECKPOINT_INTERVAL_SECONDS": "3600"}) as (address, restored):
            rest = metric(address, "taskcast_replayed_events")
    print(f"start: {name}: ready after {whole:.2f} s with {count} events, {restored:.2f} s from a checkpoint, {empty:.2f} s with none", flush=True)
    if replayed < count:
        yield f"{name}: ready with {replayed:.0f} of {count} events"
    if rest >= count / 2:
        yield f"{name}: with a checkpoint, {rest:.0f} events were read all the same"
    if whole - empty > limit:
        print(f"start: {name}: SLOW: more than {limit:.1f} s without a checkpoint", flush=True)
    if restored - empty > RESTORED_WITHIN:
        yield f"{name}: {restored:.2f} s from a checkpoint, more than {RESTORED_WITHIN} s"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(street.ROOT / "target/release/taskcast"))
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("broker", nargs="*", default=["redis", "rabbitmq"])
    given = arguments.parse_args()
    if not os.access(given.binary, os.X_OK):
        sys.exit(f"start: {given.binary} is not built: cargo build --release")
    found = []
    for name in given.broker:
        with tempfile.TemporaryDirectory(prefix="taskcast-start-") as folder:
            found += measure(folder, os.path.abspath(given.binary), name, given.events)
    for mistake in found:
        print(f"start: {mistake}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

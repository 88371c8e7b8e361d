"""The whole street from outside: a worker's event, over a real broker and the real binary, to a plain WebSocket client.

Usage: street.py [--binary target/debug/taskcast] [redis] [rabbitmq]

Starts a private broker and the service on free ports, lets two users watch, publishes with what workers use (redis-cli;
pika), and checks that each user sees the own task, in the promised order, and nothing of the other's. Ends everything
that it started. Exit 0: all is well.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pika

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECRET = "a-secret-of-the-tests-32-bytes-long-or-more"
START_SECONDS = 60
# A client that gets no answer is a failure; without a limit it would be silence.
COMMAND_SECONDS = 30


def free_ports(count):
    """Below those that the kernel gives to whoever connects somewhere: one of these may be taken at any moment."""
    free = []
    for port in random.sample(range(10_000, 32_000), 2_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # Of a process that is forked meanwhile: its copy would keep the port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("no free ports")


def token(user):
    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    claims = {"sub": user, "exp": int(time.time()) + 600}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def outside():
    """The environment without settings of the service that happen to be there: unknown ones are mistakes to it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TASKCAST_")}


@contextlib.contextmanager
def process(folder, name, command, environment=None, given=subprocess.DEVNULL):
    """Runs `command` until the block ends; what it said is shown if the block fails."""
    said = pathlib.Path(folder, f"{name}.out")
    with said.open("wb") as out:
        child = subprocess.Popen(
            command, stdin=given, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env={**outside(), **(environment or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    except BaseException:
        print(f"--- {name} said:\n{said.read_text(errors='replace')[-4000:]}---", file=sys.stderr)
        raise
    finally:
        # The whole group: a broker's script is only the parent of the broker.
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)


def wait_until(ready, what, child):
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if child.poll() is not None:
            sys.exit(f"{what} ended with {child.returncode} before it was ready")
        if time.monotonic() > deadline:
            sys.exit(f"{what} was not ready after {START_SECONDS} s")
        time.sleep(0.05)


@contextlib.contextmanager
def redis(folder):
    """A private Redis; yields its URL and how a worker publishes to it."""
    (port,) = free_ports(1)
    client = ["redis-cli", "-p", str(port)]
    server = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def publish(event):
        command = [*client, "XADD", "taskcast:events", "*", "event", event]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=COMMAND_SECONDS)

    def ready():
        return subprocess.run([*client, "PING"], capture_output=True, timeout=COMMAND_SECONDS).stdout == b"PONG\n"

    with process(folder, "redis", server) as child:
        wait_until(ready, "redis", child)
        yield f"redis://127.0.0.1:{port}", publish


@contextlib.contextmanager
def rabbitmq(folder):
    """A private RabbitMQ with its own epmd; yields its URL and how a worker publishes to it."""
    port, distribution, epmd = free_ports(3)
    pathlib.Path(folder, "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\n"
        "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n"
    )
    pathlib.Path(folder, "enabled_plugins").write_text("[].")
    environment = {
        "HOME": folder,
        "ERL_CRASH_DUMP": "/dev/null",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": f"taskcast-street-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
        "RABBITMQ_PID_FILE": f"{folder}/pid",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
    }
    url = f"amqp://guest:guest@127.0.0.1:{port}/%2f"

    def ready():
        # Its port opens a little before its queues are up; taskcast keeps trying by itself.
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            pika.BlockingConnection(pika.URLParameters(url)).close()
            return True
        return False

    def publish(event):
        command = [sys.executable, HERE / "producer.py", url, "taskcast.events", event]
        subprocess.run(command, check=True, timeout=COMMAND_SECONDS)

    # Debian's /usr/sbin/rabbitmq-server would change to the user rabbitmq, who cannot write here.
    server = next(filter(os.path.exists, ("/usr/lib/rabbitmq/bin/rabbitmq-server",)), "rabbitmq-server")
    with process(folder, "epmd", ["epmd", "-address", "127.0.0.1", "-port", str(epmd)]):
        with process(folder, "rabbitmq", [server], environment) as child:
            wait_until(ready, "rabbitmq", child)
            yield url, publish


@contextlib.contextmanager
def taskcast(folder, binary, log, more=None):
    """The service over `log`, with these variables besides, ready; yields the address of its clients' port."""
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    environment = {
        "TASKCAST_LISTEN": listen,
        "TASKCAST_OPERATIONS_LISTEN": operations,
        "TASKCAST_LOG": log,
        "TASKCAST_AUTH_SECRET": SECRET,
        **(more or {}),
    }
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready():
        with contextlib.suppress(urllib.error.URLError, OSError):
            return direct.open(f"http://{operations}/readyz", timeout=5).status == 200
        return False

    with process(folder, "taskcast", [binary, "serve"], environment) as child:
        wait_until(ready, "taskcast", child)
        yield listen


@contextlib.contextmanager
def watcher(address, user):
    """`user`'s watch.py on all own tasks, until one ends; yields once the snapshot has come."""
    command = [sys.executable, HERE / "watch.py", f"ws://{address}/ws/tasks/", token(user), "--until", "task_completed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        frames = []
        try:
            while not frames or frames[-1].get("type") != "active_tasks":
                line = child.stdout.readline()
                assert line, f"{user} never saw active_tasks, but {frames}"
                frames.append(json.loads(line))
            yield child, frames
        finally:
            child.kill()


def walk(broker, binary):
    with tempfile.TemporaryDirectory(prefix="taskcast-street-") as folder, broker(folder) as (url, publish):
        with taskcast(folder, binary, url) as address, watcher(address, "u1") as first, watcher(address, "u2") as second:
            publish('{"task_id":"t1","user_id":"u1","progress":40}')
            # Two events in one pull may be folded into one frame: the next comes when this one was seen.
            first[1].append(json.loads(first[0].stdout.readline()))
            publish('{"task_id":"t1","user_id":"u1","status":"succeeded"}')
            # The log has one order: when u2 has this one, u2 would have had what came before.
            publish('{"task_id":"t2","user_id":"u2","status":"succeeded"}')
            for child, frames in (first, second):
                frames.extend(json.loads(line) for line in child.stdout)
    seen = {name: [(frame["type"], frame.get("task_id")) for frame in frames] for name, (_, frames) in {"u1": first, "u2": second}.items()}
    start = [("connection_established", None), ("active_tasks", None)]
    expected = {"u1": [*start, ("task_progress", "t1"), ("task_completed", "t1")], "u2": [*start, ("task_completed", "t2")]}
    assert seen == expected, f"{broker.__name__}: saw {seen}, expected {expected}"
    progress = first[1][2]
    assert progress["progress"] == 40 and progress["cursor"], f"{broker.__name__}: {progress}"
    assert second[1][1]["tasks"] == [], f"{broker.__name__}: u2 was shown {second[1][1]}"


def over_brokers(walk, description, done):
    """A program that walks over each broker that it is given, and says that it is `done`."""
    brokers = {"redis": redis, "rabbitmq": rabbitmq}
    arguments = argparse.ArgumentParser(description=description.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/debug/taskcast"))
    arguments.add_argument("broker", nargs="*", help="redis, rabbitmq; both by default")
    given = arguments.parse_args()
    # Told to end, it ends what it started first, and shows what that said.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in given.broker or brokers:
        started = time.monotonic()
        walk(brokers[name], given.binary)
        print(f"over {name}, {done} ({time.monotonic() - started:.1f} s)", flush=True)


if __name__ == "__main__":
    over_brokers(walk, __doc__, "each user saw the own task and nothing else")

"""A plain WebSocket client: prints every frame as one line of JSON, until the one that it was told to wait for.

Usage: watch.py ws://127.0.0.1:6161/ws/tasks/ TOKEN [--until task_completed] [--timeout 30]

The last line of a connection that the server ended is {"closed": CODE, "reason": "…"}. An empty TOKEN sends none.
Exit 0: the frame came. 1: the connection ended before. 2: the time was up. 3: no connection, or the handshake was refused.
"""

import argparse
import json
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def watch(url, token, until, timeout):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + timeout
    # No proxy, whatever the environment says: the tests talk to this machine.
    with connect(url, additional_headers=headers, proxy=None, open_timeout=timeout) as socket:
        while True:
            try:
                frame = json.loads(socket.recv(timeout=max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                return 2
            except ConnectionClosed as closed:
                ended = closed.rcvd
                print(json.dumps({"closed": ended.code if ended else 1006, "reason": ended.reason if ended else ""}), flush=True)
                return 1
            print(json.dumps(frame), flush=True)
            if frame["type"] == until:
                return 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", help="ws:// or wss://")
    arguments.add_argument("token", help="a JSON Web Token, or an empty string")
    arguments.add_argument("--until", help="the type of the frame to wait for; without it, until the server or the time ends it")
    arguments.add_argument("--timeout", type=float, default=30.0, help="seconds")
    given = arguments.parse_args()
    try:
        return watch(given.url, given.token, given.until, given.timeout)
    except InvalidStatus as refused:
        print(json.dumps({"refused": refused.response.status_code, "body": refused.response.body.decode(errors="replace")}), flush=True)
        return 3
    except OSError as error:
        print(json.dumps({"refused": None, "body": str(error)}), flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())

"""Brings events to sockudo over its HTTP API, signed as Pusher's libraries do. Takes lines of a topic, a space and a
payload on a TCP port. `publish.py PORT SOCKUDO_PORT`."""

import asyncio
import hashlib
import hmac
import json
import sys
import time

APPLICATION = KEY = SECRET = "bench"
PATH = f"/apps/{APPLICATION}/events"


def request(topic: str, payload: str) -> bytes:
    body = json.dumps({"name": "progress", "channel": topic, "data": payload}, separators=(",", ":")).encode()
    query = f"auth_key={KEY}&auth_timestamp={time.time():.0f}&auth_version=1.0&body_md5={hashlib.md5(body).hexdigest()}"
    signature = hmac.new(SECRET.encode(), f"POST\n{PATH}\n{query}".encode(), hashlib.sha256).hexdigest()
    head = f"POST {PATH}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The head and the body of one answer, which is short."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length))
    return head


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One at a time, since events must not overtake each other, and sockudo takes no second one on a connection that it
    has said it will close."""
    answers = sockudo = None
    while line := await reader.readline():
        topic, _, payload = line.decode().rstrip("\n").partition(" ")
        if sockudo is None:
            answers, sockudo = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
        sockudo.write(request(topic, payload))
        head = await answer(answers)
        if not head.startswith(b"HTTP/1.1 200"):
            print(head, flush=True)
        if b"connection: close" in head.lower():
            sockudo.close()
            sockudo = None
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(take, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""Brings events to Channels as a Django process would, with `group_send`. Takes lines of a topic, a space and a payload
on a TCP port. `publish.py PORT core|pubsub REDIS_PORT`."""

import asyncio
import sys

from server import configure


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    while line := await reader.readline():
        topic, _, payload = line.decode().rstrip("\n").partition(" ")
        await layer.group_send(topic, {"type": "task.progress", "text": payload})
    writer.close()


async def main() -> None:
    configure(sys.argv[2], int(sys.argv[3]))
    server = await asyncio.start_server(take, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

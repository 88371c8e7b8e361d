"""Django Channels: a watcher of `/TOPIC` is in the group TOPIC. `server.py daphne|uvicorn core|pubsub PORT REDIS_PORT`."""

import sys

import django
from django.conf import settings


def configure(layer: str, redis_port: int) -> None:
    """Settings of the server and of who publishes to it."""
    core = layer == "core"
    backend = "channels_redis.core.RedisChannelLayer" if core else "channels_redis.pubsub.RedisPubSubChannelLayer"
    # redis-py's defaults refuse watchers while a hundred connections are in use, and give up after as many seconds as the
    # layer waits for a message.
    host = {"address": f"redis://127.0.0.1:{redis_port}", "max_connections": 5_000, "socket_timeout": 60}
    config: dict[str, object] = {"hosts": [host]}
    if core:
        # The default of 100 drops messages in every burst.
        config["capacity"] = 10_000
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}},
        LOGGING_CONFIG=None,
        SECRET_KEY="bench",
    )
    django.setup()


def main() -> None:
    server, layer, port, redis_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    configure(layer, redis_port)
    # These need the settings.
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Watcher(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.topic = self.scope["url_route"]["kwargs"]["topic"]
            await self.channel_layer.group_add(self.topic, self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(self.topic, self.channel_name)

        async def task_progress(self, event: dict[str, str]) -> None:
            await self.send(text_data=event["text"])

    application = ProtocolTypeRouter({"websocket": URLRouter([path("<str:topic>", Watcher.as_asgi())])})
    if server == "daphne":
        from daphne.server import Server

        endpoint = f"tcp:port={port}:interface=127.0.0.1:backlog=4096"
        # Waiting longer in a storm is fairer than being cut.
        Server(application, endpoints=[endpoint], signal_handlers=True, websocket_handshake_timeout=60).run()
    else:
        import uvicorn

        uvicorn.run(
            application,
            host="127.0.0.1",
            port=port,
            backlog=4096,
            access_log=False,
            log_level="warning",
            lifespan="off",
            loop="uvloop",
            ws_per_message_deflate=False,
        )


if __name__ == "__main__":
    main()

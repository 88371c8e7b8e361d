"""Publishes events to RabbitMQ as a worker does: with pika, to a topic exchange, each confirmed by the broker.

Usage: producer.py amqp://guest:guest@127.0.0.1:5672/%2f taskcast.events '{"task_id":"t1","progress":40}' ['{…}' …]

Exit 0: the broker has confirmed every event. Otherwise an exception says why (no such exchange, nothing bound to it).
"""

import argparse
import json

import pika


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", help="amqp:// or amqps://")
    arguments.add_argument("exchange", help="an exchange that exists")
    arguments.add_argument("event", nargs="+", help="JSON with a task_id")
    given = arguments.parse_args()

    with pika.BlockingConnection(pika.URLParameters(given.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for event in given.event:
            channel.basic_publish(
                exchange=given.exchange,
                routing_key=f"task.{json.loads(event)['task_id']}",
                body=event.encode(),
                properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
                # Without it, an event that no queue wants is confirmed and thrown away.
                mandatory=True,
            )


if __name__ == "__main__":
    main()

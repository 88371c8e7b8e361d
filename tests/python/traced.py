"""A trace from a worker to its watcher: OpenTelemetry's own SDK in the worker, and its own types in the collector.

Usage: traced.py [--binary target/debug/taskcast] [redis] [rabbitmq]

Over each broker: a worker publishes within a span, as `inject` of OpenTelemetry writes it; a watcher sees the task end; and
the service has exported a span below the worker's and one of the delivery, which the official `opentelemetry-proto` decodes
and has no unknown fields in. Exit 0: all is well.
"""

import contextlib
import http.server
import json
import tempfile
import threading
import time

import street
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider

SPANS_SECONDS = 30


@contextlib.contextmanager
def collector():
    """Yields its address, and the requests that it got."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf"), self.path
            requests.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def spans_of(requests):
    return [span for request in requests for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]


def attributes(span):
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def walk(broker, binary):
    tracer = TracerProvider().get_tracer("worker")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="taskcast-traced-"))
        url, publish = stack.enter_context(broker(folder))
        endpoint, requests = stack.enter_context(collector())
        more = {"TASKCAST_TELEMETRY_OTLP_ENDPOINT": endpoint, "TASKCAST_TELEMETRY_SERVICE_NAME": "shop"}
        address = stack.enter_context(street.taskcast(folder, binary, url, more))
        watcher, _ = stack.enter_context(street.watcher(address, "u1"))
        with tracer.start_as_current_span("export of orders") as worker:
            event = {"task_id": "t1", "user_id": "u1", "status": "succeeded"}
            inject(event)
            publish(json.dumps(event))
        list(watcher.stdout)
        deadline = time.monotonic() + SPANS_SECONDS
        while len(spans_of(requests)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    spans = {span.name: span for span in spans_of(requests)}
    assert set(spans) == {"process taskcast:events", "deliver"}, f"{broker.__name__}: {spans}"
    process, deliver = spans["process taskcast:events"], spans["deliver"]
    context = worker.get_span_context()
    assert process.trace_id == deliver.trace_id == context.trace_id.to_bytes(16, "big")
    assert (process.parent_span_id, deliver.parent_span_id) == (context.span_id.to_bytes(8, "big"), process.span_id)
    assert (process.kind, deliver.kind) == (Span.SPAN_KIND_CONSUMER, Span.SPAN_KIND_INTERNAL)
    # In the order of cause and effect, on one machine's clock, which the service reads in milliseconds.
    assert worker.start_time // 1_000_000 * 1_000_000 <= process.start_time_unix_nano <= process.end_time_unix_nano <= time.time_ns()
    assert process.start_time_unix_nano <= deliver.events[0].time_unix_nano <= deliver.end_time_unix_nano
    told = attributes(process)
    assert told["messaging.system"] == broker.__name__ and told["taskcast.task_id"] == "t1", told
    assert attributes(deliver)["taskcast.sessions"] == 1, deliver
    for request in requests:
        size = request.ByteSize()
        request.DiscardUnknownFields()
        assert request.ByteSize() == size, f"there are fields that OTLP does not have: {request}"
        (of,) = request.resource_spans
        named = {pair.key: pair.value.string_value for pair in of.resource.attributes}
        assert named["service.name"] == "shop" and named["service.instance.id"], named


if __name__ == "__main__":
    street.over_brokers(walk, __doc__, "from the worker's span to the watcher's frame")

"""A Celery worker as the field has them: tasks that tell their progress by `update_state` and nothing else. What has them told to
taskcast is `reporting.py`, which is the README's own."""

import os

import redis
from celery import Celery

# Another database than that of the log, as there is a log for several applications.
BROKER = f"{os.environ['TASKCAST_LOG']}/1"
app = Celery("worker", broker=BROKER, backend=BROKER, task_cls="reporting:Reporting")
go = redis.Redis.from_url(BROKER)


@app.task(bind=True, name="export_data")
def export_data(self, rows, user_id):
    for row in range(0, rows, 5):
        # The test says when.
        go.blpop("go", timeout=60)
        self.update_state(state="PROGRESS", meta={"current": row, "total": rows, "step": "Reading rows"})
    go.blpop("go", timeout=60)
    return {"rows": rows}


@app.task(bind=True, name="import_data", max_retries=1)
def import_data(self, user_id):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    raise OSError("the disk is full")


@app.task(bind=True, name="awkward")
def awkward(self, kind, user_id):
    # As the tutorials have it, and as nobody forbids.
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 2, "status": "Working", "loss": float("nan")})
    self.update_state(state="PROGRESS", meta="half of it")
    return {"huge": "x" * 100_000, "not a number": float("nan"), "no JSON": {(1, 2): 3}}[kind]


@app.task(bind=True, name="again", max_retries=1)
def again(self, user_id):
    self.retry(countdown=60)


def without_redis():
    """How tasks end while nobody can be told of them; their own backend is another one."""
    app.conf.result_backend = "cache+memory://"
    ended = awkward.apply(("no JSON",), {"user_id": "u3"})
    failed = import_data.apply((), {"user_id": "u3"}, retries=1)
    return [ended.state, failed.state, str(failed.result)]

// A real Celery worker for old.mjs: tasks as the field has them (worker.py), on the Redis of the test, told to taskcast by what the
// README advises. Needs a Python with the packages of tests/python/requirements.txt (TESTS_PYTHON; default: target/tests/venv).

import assert from "node:assert/strict";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { kill, root, run, startProgram } from "../support.mjs";
import { until } from "../world.mjs";

const PYTHON = process.env.TESTS_PYTHON ?? join(root, "target/tests/venv/bin/python");

/** The block of Python in the README that is about Celery. */
function advised() {
  const blocks = [...readFileSync(join(root, "README.md"), "utf8").matchAll(/```python\n([\s\S]*?)```/g)].map(([, code]) => code);
  const [block, ...others] = blocks.filter((code) => code.includes("class Reporting"));
  assert.ok(block && others.length === 0, "the README has no advice for Celery, or two");
  return block;
}

/** @param {any} world with a folder of its own */
export async function startCelery({ folder, settings: { TASKCAST_LOG } }) {
  writeFileSync(join(folder, "reporting.py"), advised());
  copyFileSync(join(root, "tests/browser/old/worker.py"), join(folder, "worker.py"));
  const env = { ...process.env, TASKCAST_LOG, PYTHONPATH: folder };
  const words = ["-m", "celery", "-A", "worker", "worker", "--pool", "solo", "--loglevel", "info", "--without-mingle", "--without-gossip"];
  const worker = startProgram(PYTHON, words, { cwd: folder, env });
  await until(() => {
    assert.equal(worker.child.exitCode, null, worker.said());
    return / ready\./.test(worker.said());
  });
  const call = (code, log = TASKCAST_LOG) => run(["-c", `import worker; ${code}`], { TASKCAST_LOG: log, PYTHONPATH: folder }, PYTHON);
  return {
    /** In another process, as a web application does. */
    call,
    /** The task may go on by one step. */
    go: () => call('worker.go.rpush("go", 1)'),
    /** How tasks end while Redis is away: nobody listens on port 1. */
    withoutRedis: () => JSON.parse(call("import json; print(json.dumps(worker.without_redis()))", "redis://127.0.0.1:1")),
    end: () => kill(worker),
  };
}

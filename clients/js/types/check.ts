// Uses the package as its users do; only `tsc` looks at it.

import { TaskcastClient, TaskcastError, TaskError, type Status, type Task } from "taskcast";
import { useConnection, useTask, useTasks } from "taskcast/react";
import { TaskProgressElement } from "taskcast/element";

const client = new TaskcastClient({ url: "/", getToken: async ({ reason }) => (reason === "initial" ? "a" : null), transports: ["sse"] });
// @ts-expect-error there is no such transport
new TaskcastClient({ transports: ["carrier pigeon"] });
// @ts-expect-error a scope is one thing
new TaskcastClient({ scope: { task: "a", root: "b" } });

const status: Status | undefined = client.task("t1").current?.status;
const stop: () => void = client.tasks({ status: ["active", "failed"], root: "r" }).on("update", (tasks) => tasks.map(({ title }) => title));
// @ts-expect-error there is no such status
client.tasks({ status: "weary" });
// @ts-expect-error what the service told is not changed
client.task("t1").current!.progress = 3;

export async function all(): Promise<Task> {
  for await (const { progress } of client.task("t1")) console.log(progress?.toFixed(), status, stop);
  try {
    return await client.task("t1").done({ signal: AbortSignal.timeout(1) });
  } catch (error) {
    if (error instanceof TaskError) console.log(error.task.error?.message);
    else if (error instanceof TaskcastError) console.log(error.code);
    throw error;
  }
}

export function Component() {
  const progress: number | null | undefined = useTask("t1", { select: (task) => task.progress ?? 0, throttleMs: 100 });
  const task: Task | null | undefined = useTask(null);
  const titles: (string | undefined)[] = useTasks({ tag: "a" }).map(({ title }) => title);
  return [progress, task, titles, useConnection().nextTryAt];
}

TaskProgressElement.client = client;
document.createElement("task-progress").taskId = "t1";

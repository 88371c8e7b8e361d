// A list of exports, and a button that starts one and shows it until it ends.

import { useState } from "react";
import { TaskcastProvider, useConnection, useTask, useTasks } from "taskcast/react";

const options = {
  url: "https://tasks.example.com",
  getToken: async () => (await fetch("/api/task-token")).text(),
};

export function App() {
  return (
    <TaskcastProvider options={options}>
      <Connection />
      <Export />
      <Running />
    </TaskcastProvider>
  );
}

function Connection() {
  const { state, reason } = useConnection();
  return state === "live" ? null : <p role="status">{`${state}: ${reason}`}</p>;
}

function Export() {
  const [id, setId] = useState(null);
  const task = useTask(id, { onComplete: ({ status }) => console.log(`the export ${status}`), throttleMs: 100 });
  const start = async () => {
    const answer = await fetch("/api/exports", { method: "POST" });
    setId((await answer.json()).task_id);
  };
  return (
    <section>
      <button onClick={start}>Export</button>
      {task && (
        <label>
          {` ${task.title ?? "Export"} `}
          <progress max="100" value={task.progress} />
          {` ${task.status}`}
        </label>
      )}
      {task?.error && <p role="alert">{task.error.message}</p>}
    </section>
  );
}

function Running() {
  const tasks = useTasks({ status: "active", limit: 50 });
  return (
    <ul>
      {tasks.map((task) => (
        <li key={task.task_id}>{`${task.title ?? task.task_id}: ${Math.floor(task.progress ?? 0)} %`}</li>
      ))}
    </ul>
  );
}

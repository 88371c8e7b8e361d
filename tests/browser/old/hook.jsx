// The front end that the field has, in the words of this project and with all of its habits: a React hook for a Django Channels
// consumer. It wants `task_progress`, `task_completed`, `active_tasks`, `task_status`, `task_cancelled` and `error` as flat
// objects with Celery's names. It connects again five times whatever the close code says, without jitter, counts from nothing
// again as soon as a connection opens, connects again after a close of its own, and whenever a callback is another function.

import { useCallback, useEffect, useRef, useState } from "react";

const ATTEMPTS_MAX = 5;

export function useTaskWebSocket({ url, onProgress, onCompleted, onError }) {
  const [isConnected, setIsConnected] = useState(false);
  const [tasks, setTasks] = useState([]);
  const socket = useRef(null);
  const attempts = useRef(0);

  const connect = useCallback(() => {
    const token = localStorage.getItem("token");
    const made = new WebSocket(`${url}${url.includes("?") ? "&" : "?"}token=${token}`);
    socket.current = made;
    made.onopen = () => {
      setIsConnected(true);
      attempts.current = 0;
    };
    made.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      const change = (fields) => setTasks((all) => all.map((task) => (task.task_id === message.task_id ? { ...task, ...fields } : task)));
      switch (message.type) {
        case "active_tasks":
          return setTasks(message.tasks);
        case "task_progress": {
          const { status, progress, current_step, processed_items, total_items } = message;
          change({ status, progress, current_step, processed_items, total_items });
          return onProgress?.(message);
        }
        case "task_completed":
          change({ status: message.status, progress: 100 });
          return onCompleted?.(message);
        case "task_status":
          return message.status && change(message.status);
        case "task_cancelled":
          return message.success && change({ status: "REVOKED" });
        case "error":
          return onError?.(message.message);
        default:
          return console.warn("Unknown message type:", message.type);
      }
    };
    made.onclose = () => {
      setIsConnected(false);
      if (attempts.current >= ATTEMPTS_MAX) return;
      setTimeout(connect, Math.min(1000 * 2 ** attempts.current, 30_000));
      attempts.current += 1;
    };
  }, [url, onProgress, onCompleted, onError]);

  useEffect(() => {
    connect();
    return () => socket.current?.close();
  }, [connect]);

  const send = (message) => socket.current?.readyState === WebSocket.OPEN && socket.current.send(JSON.stringify(message));
  return {
    isConnected, tasks,
    askFor: (task_id) => send({ type: "get_task_status", task_id }),
    cancel: (task_id) => send({ type: "cancel_task", task_id }),
    refresh: () => send({ type: "get_active_tasks" }),
    sendRaw: (text) => socket.current?.send(text),
  };
}

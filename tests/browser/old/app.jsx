// A page on the old hook. `window.inline`: with callbacks that are others each time, as they are easily written.

import { useCallback, useState } from "react";
import { createRoot } from "react-dom/client";

import { useTaskWebSocket } from "./hook.jsx";

function App() {
  const [toasts, setToasts] = useState([]);
  const [errors, setErrors] = useState([]);
  const show = ({ task_id, status, result_data, error_message }) =>
    setToasts((all) => [...all, `${task_id} ${status} ${error_message || JSON.stringify(result_data)}`]);
  const fail = (message) => setErrors((all) => [...all, message]);
  const [onCompleted, onError] = [useCallback(show, []), useCallback(fail, [])];
  const { inline, url } = window;
  const hook = useTaskWebSocket({ url, onCompleted: inline ? (message) => show(message) : onCompleted, onError: inline ? (message) => fail(message) : onError });
  window.hook = hook;
  return (
    <main data-connected={hook.isConnected}>
      {hook.tasks.map((task) => (
        <label key={task.task_id} id={task.task_id} data-status={task.status}>
          {task.task_name} <progress max="100" value={task.progress} /> {task.current_step} {task.processed_items}/{task.total_items}
        </label>
      ))}
      {toasts.map((text, index) => <p key={index} className="toast">{text}</p>)}
      {errors.map((text, index) => <p key={index} role="alert">{text}</p>)}
    </main>
  );
}

createRoot(document.querySelector("#app")).render(<App />);

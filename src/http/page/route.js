// Which page of the page: the list, or one task, as the address says behind its `#`. Refuses to know: what is on either.

/** @returns {string | null} the id of the task that the address names */
export function taskOfAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("task") || null;
}

/** The end of an address, to be put behind what it is now. */
export function addressOf({ task }) {
  return `#task=${encodeURIComponent(task)}`;
}

/** The list, with its filters, without a step in the history of its own. */
export const listAddress = () => location.pathname + location.search;

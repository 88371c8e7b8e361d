// Server-sent events as a transport, over `fetch`: unlike an EventSource it sends the token in a header, sees status and
// `Retry-After`, and leaves reconnecting to the connection.

/** What one event may hold; a page of a snapshot is far smaller. */
const EVENT_MAX_CHARACTERS = 8 * 1024 * 1024;

/**
 * @param {URL} base
 * @param {import("./connection.js").Opening} opening
 * @param {import("./connection.js").Ears} ears
 * @returns {import("./connection.js").Channel}
 */
export function openServerSentEvents(base, { path, query, token }, ears) {
  const address = new URL(`events/${path}`, base);
  address.protocol = address.protocol === "https:" || address.protocol === "wss:" ? "https:" : "http:";
  address.search = query.toString();
  const abort = new AbortController();
  /** @type {Record<string, string>} */
  // Not `text/event-stream` by name: an EventSource has to be refused in a stream, and others by a status.
  const headers = { accept: "*/*" };
  if (token !== null) headers.authorization = `Bearer ${token}`;
  let isClosed = false;
  const end = (/** @type {import("./connection.js").End} */ how) => {
    if (isClosed) return;
    isClosed = true;
    abort.abort();
    ears.onClose(how);
  };
  listen(address, headers, abort.signal, ears, end).catch((error) => end({ code: 1006, reason: `${error?.message ?? error}` }));
  return {
    send: null,
    close() {
      isClosed = true;
      abort.abort();
    },
  };
}

async function listen(address, headers, signal, ears, end) {
  const ask = (/** @type {RequestCredentials} */ credentials) => fetch(address, { headers, signal, cache: "no-store", credentials });
  // Without a token there may be a cookie, as a WebSocket brings it to another site too. A service that lets in any site
  // takes none from there, and has the browser hide its answer to such a request.
  const isForeign = globalThis.location !== undefined && address.origin !== globalThis.location.origin;
  const answer = await (headers.authorization === undefined && isForeign
    ? ask("include").catch((error) => (signal.aborted ? Promise.reject(error) : ask("same-origin")))
    : ask("same-origin"));
  const isStream = answer.headers.get("content-type")?.startsWith("text/event-stream");
  if (answer.status !== 200 || !isStream || !answer.body) return end(await refusalOf(answer));
  ears.onOpen();
  let last;
  let isDraining = false;
  let retryAfterMs = 0;
  const read = parser((data) => {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    last = message?.type;
    isDraining ||= last === "server_draining";
    ears.onMessage(message);
  }, (retry) => { retryAfterMs = retry; });
  const decoder = new TextDecoder();
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    ears.onHeard?.();
    if (!read(decoder.decode(value, { stream: true }))) return end({ code: 1009, reason: "too long an event was sent" });
  }
  // There are no close codes here: what was said before tells.
  if (last === "authentication_error") return end({ code: 4001 });
  if (isDraining) return end({ code: 1012 });
  // A stream of nothing but an error is a refusal that could not be a status.
  end(last === "error" ? { code: 1013, retryAfterMs } : { code: 1006 });
}

/** Status codes as the closes that mean the same. */
async function refusalOf(answer) {
  const after = answer.headers.get("retry-after");
  const retryAfterMs = after === null ? 0 : Math.max(/^\d+$/.test(after) ? after * 1000 : Date.parse(after) - Date.now() || 0, 0);
  const problem = await answer.json().catch(() => ({}));
  const reason = problem?.detail ?? problem?.title ?? `HTTP ${answer.status}`;
  if (answer.status === 204) return { code: 1000, reason: "everything that was watched has ended" };
  if (answer.status === 401) return { code: 4001, reason, errorCode: problem?.error_code ?? "AUTH_REQUIRED" };
  if (answer.status === 403) return { code: 4003, reason };
  return { code: answer.status === 429 || answer.status >= 500 ? 1013 : 1006, reason, retryAfterMs };
}

/**
 * Takes the stream apart, as the HTML standard has it; only what this service sends is looked at.
 * @param {(data: string) => void} onData
 * @param {(ms: number) => void} [onRetry]
 * @returns {(text: string) => boolean} false when an event is too long
 */
export function parser(onData, onRetry = () => {}) {
  let rest = "";
  /** @type {string[]} */
  let data = [];
  let held = 0;
  return (text) => {
    // A CR at the end may be half of a CRLF.
    rest += text;
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) onData(data.join("\n"));
        data = [];
        held = 0;
      } else if (line === "data" || line.startsWith("data:")) {
        data.push(line.slice(line[5] === " " ? 6 : 5));
        held += line.length;
      } else if (/^retry: ?\d+$/.test(line)) onRetry(Number(line.slice(6)));
    }
    return held + rest.length <= EVENT_MAX_CHARACTERS;
  };
}

// A WebSocket as a transport: opens, says what it hears, ends.

/** What a subprotocol may be written with; other tokens go into the first frame. */
const HEADER_TOKEN = /^[!#$%&'*+.^_`|~\w-]+$/;

/**
 * @param {URL} base the service's address, which ends in a slash
 * @param {import("./connection.js").Opening} opening
 * @param {import("./connection.js").Ears} ears
 * @returns {import("./connection.js").Channel}
 */
export function openWebSocket(base, { path, query, token }, ears) {
  const address = new URL(`ws/${path}`, base);
  address.protocol = address.protocol === "https:" || address.protocol === "wss:" ? "wss:" : "ws:";
  address.search = query.toString();
  const inHeader = token !== null && HEADER_TOKEN.test(token);
  const socket = new WebSocket(address, inHeader ? ["taskcast.v1.json", `bearer.${token}`] : ["taskcast.v1.json"]);
  socket.onopen = () => {
    if (token !== null && !inHeader) socket.send(JSON.stringify({ type: "auth", token }));
    ears.onOpen();
  };
  socket.onmessage = ({ data }) => {
    let message = null;
    try {
      message = JSON.parse(data);
    } catch {
      // A later version may send what this one does not read.
    }
    ears.onMessage(message);
  };
  socket.onclose = ({ code, reason }) => ears.onClose({ code, reason });
  return {
    send(message) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
    close() {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(1000);
    },
  };
}

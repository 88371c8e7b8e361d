// The other front end that the field has, likewise: everything is in an envelope with a channel, subscriptions are pings, and a
// message without a channel has no subscriber. It gives up for good after some close codes.

const GIVES_UP_AT = [1000, 1001, 1005, 4000, 4001, 4002, 4003];
const ATTEMPTS_MAX = 10;
const CONNECT_TIMEOUT_MS = 10_000;

export class PlatformSocket {
  subscribers = new Map();
  unheard = [];
  pongs = 0;
  closes = [];
  attempts = 0;
  isOpen = false;

  constructor(url, { heartbeatMs = 30_000 } = {}) {
    this.url = url;
    this.heartbeatMs = heartbeatMs;
  }

  connect() {
    const socket = (this.socket = new WebSocket(`${this.url}${this.url.includes("?") ? "&" : "?"}token=${localStorage.getItem("token")}`));
    const timeout = setTimeout(() => socket.close(), CONNECT_TIMEOUT_MS);
    let heartbeat;
    socket.onopen = () => {
      clearTimeout(timeout);
      this.isOpen = true;
      this.attempts = 0;
      for (const channel of this.subscribers.keys()) this.ask("subscribe", channel);
      heartbeat = setInterval(() => this.send("heartbeat", { timestamp: Date.now() }), this.heartbeatMs);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "pong") this.pongs += 1;
      const heard = this.subscribers.get(message.channel);
      if (heard) heard(message);
      else this.unheard.push(message.type);
    };
    socket.onclose = ({ code }) => {
      clearTimeout(timeout);
      clearInterval(heartbeat);
      this.isOpen = false;
      this.closes.push(code);
      this.attempts += 1;
      if (GIVES_UP_AT.includes(code) || this.attempts > ATTEMPTS_MAX) return;
      setTimeout(() => this.connect(), Math.min(1000 * 2 ** (this.attempts - 1), 30_000));
    };
  }

  subscribe(channel, hear) {
    this.subscribers.set(channel, hear);
    if (this.isOpen) this.ask("subscribe", channel);
  }

  ask(action, channel) {
    this.send("system", { action, channel, filters: { userId: "u1", messageTypes: [] } });
  }

  send(channel, data) {
    this.socket.send(JSON.stringify({ type: "ping", channel, data, timestamp: new Date().toISOString(), messageId: crypto.randomUUID() }));
  }
}

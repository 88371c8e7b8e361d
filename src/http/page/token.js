// The token that was pasted or came with the address. It stays in this tab. Refuses to know: what it allows, but for what a link
// to share is about.

const KEY = "taskcast.token";

/** Where a browser lets the page keep nothing, what was given holds until it is left. */
let unkept = null;

function stored(action) {
  try {
    return action(sessionStorage);
  } catch {
    return null;
  }
}

export const token = {
  /** `#token=…` is taken over, and out of the address before anybody copies it. Of a link to one task or group, that stays there. */
  adopt() {
    const given = new URLSearchParams(location.hash.slice(1));
    const held = given.get("token");
    if (held === null) return;
    const task = given.get("task") ?? taskToShare(held);
    history.replaceState(null, "", `${location.pathname}${location.search}${task === null ? "" : `#task=${encodeURIComponent(task)}`}`);
    this.set(held);
  },
  get: () => stored((storage) => storage.getItem(KEY)) ?? unkept,
  set(text) {
    unkept = text.trim();
    stored((storage) => storage.setItem(KEY, unkept));
  },
  clear() {
    unkept = null;
    stored((storage) => storage.removeItem(KEY));
  },

  /** For the client. Without one here it comes by a cookie, if at all, and the page brings that: get the page once more. */
  async fetch(reason) {
    const held = token.get();
    if (held === null && ["AUTH_REQUIRED", "EXPIRED_TOKEN"].includes(reason)) await token.fetchCookie();
    return held;
  },
  fetchCookie: () => fetch("./", { cache: "reload" }).catch(() => {}),
};

/** What somebody pasted: a token, with or without "Bearer", or a link with one in it. */
export function tokenOf(pasted) {
  const text = pasted.trim();
  const link = /#(?:.*&)?token=([^&\s]+)/.exec(text);
  if (!link) return text.replace(/^bearer\s+/i, "");
  try {
    return decodeURIComponent(link[1]);
  } catch {
    return link[1];
  }
}

/** The task, or the root of the group, if the token names one and nothing else. Nothing is proven by it: the service does that. */
function taskToShare(held) {
  try {
    const part = held.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (byte) => byte.charCodeAt(0))));
    const watch = claims.taskcast?.watch;
    const [only] = Array.isArray(watch) && watch.length === 1 ? watch : [];
    return /^(?:task|root):(.+)$/s.exec(typeof only === "string" ? only : "")?.[1] ?? null;
  } catch {
    return null;
  }
}

// The token that was pasted or came with the address, and the one of a link to share that somebody followed who is signed in already.
// They stay in this tab. Refuses to know: what they allow, but for what a link to share is about.

import { taskOfAddress } from "./route.js";

const KEY = "taskcast.token";
/** `{token, root, pages}` of a link to share: it counts for these tasks' pages only. */
const LENT_KEY = "taskcast.lent";
/** Whether a cookie let somebody in. */
const COOKIE_KEY = "taskcast.cookie";
/** Tasks of a group that are remembered as pages of its link. */
const PAGES_MAX = 100;

/** Where a browser lets the page keep nothing, what was given holds until it is left. */
let unkept = null;
/** @type {{token: string, root: string, pages: string[]} | null} */
let lent = readLent();

function stored(action) {
  try {
    return action(sessionStorage);
  } catch {
    return null;
  }
}

function readLent() {
  try {
    const { token, root, pages } = JSON.parse(sessionStorage.getItem(LENT_KEY));
    return typeof token === "string" && Array.isArray(pages) ? { token, root, pages } : null;
  } catch {
    return null;
  }
}

function lend(link) {
  lent = link;
  stored((storage) => (link === null ? storage.removeItem(LENT_KEY) : storage.setItem(LENT_KEY, JSON.stringify(link))));
}

const own = () => stored((storage) => storage.getItem(KEY)) ?? unkept;
const isCookieGood = () => stored((storage) => storage.getItem(COOKIE_KEY)) !== null;

export const token = {
  /**
   * `#token=…` is taken over, and out of the address before anybody copies it. Of a link to one task or group, that stays there; and whoever
   * is signed in stays so on all other pages. A link that was followed before is no sign-in.
   */
  adopt() {
    const given = new URLSearchParams(location.hash.slice(1));
    const held = given.get("token");
    if (held === null) return;
    const { root: shared, isGroup } = scopeOf(held);
    const before = own();
    const isLink = shared !== null && (before === null ? isCookieGood() : scopeOf(before).root === null);
    // Nothing here tells yet which tasks are of a group: its own page does, and leads to them.
    const task = (isLink && isGroup ? null : given.get("task")) ?? shared;
    history.replaceState(null, "", `${location.pathname}${location.search}${task === null ? "" : `#task=${encodeURIComponent(task)}`}`);
    if (isLink) lend({ token: held.trim(), root: shared, pages: [shared] });
    else this.set(held);
  },
  get: () => (token.isLent ? lent.token : own()),
  set(text) {
    lend(null);
    unkept = text.trim();
    stored((storage) => storage.setItem(KEY, unkept));
  },
  clear() {
    lend(null);
    unkept = null;
    for (const key of [KEY, COOKIE_KEY]) stored((storage) => storage.removeItem(key));
  },

  /** What the page shows is what a link shows, and whoever looks has a sign-in of their own. */
  get isLent() {
    return lent !== null && lent.pages.includes(taskOfAddress());
  },
  /** Somebody goes from a page of the link to that of another task. @param {string | null} group of that one */
  visit(id, group) {
    if (lent === null || id === null || group !== lent.root || lent.pages.includes(id)) return;
    lend({ ...lent, pages: [lent.root, ...lent.pages.slice(1).slice(2 - PAGES_MAX), id] });
  },
  /** Somebody is let in, by what the page knows or else by a cookie. */
  accepted() {
    if (token.get() === null && !isCookieGood()) stored((storage) => storage.setItem(COOKIE_KEY, "1"));
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

/**
 * The task, or the root of the group, if the token names one and nothing else. Nothing is proven by it: the service does that.
 * @returns {{root: string | null, isGroup: boolean}}
 */
function scopeOf(held) {
  try {
    const part = held.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (byte) => byte.charCodeAt(0))));
    const watch = claims.taskcast?.watch;
    const [only] = Array.isArray(watch) && watch.length === 1 ? watch : [];
    const [, kind, root] = /^(task|root):(.+)$/s.exec(typeof only === "string" ? only : "") ?? [];
    return { root: root ?? null, isGroup: kind === "root" };
  } catch {
    return { root: null, isGroup: false };
  }
}

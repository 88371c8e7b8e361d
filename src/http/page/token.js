// The token that was pasted or came with the address. It stays in this tab.

const KEY = "taskcast.token";

export const token = {
  /** `#token=…` is taken over, and out of the address before anybody copies it. */
  adopt() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given !== null) {
      history.replaceState(null, "", location.pathname + location.search);
      this.set(given);
    }
  },
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text.trim()),
  clear: () => sessionStorage.removeItem(KEY),

  /** For the client. Without one here it comes by a cookie, if at all, and the page brings that: get the page once more. */
  async fetch(reason) {
    const held = token.get();
    if (held === null && ["AUTH_REQUIRED", "EXPIRED_TOKEN"].includes(reason)) await token.fetchCookie();
    return held;
  },
  fetchCookie: () => fetch("./", { cache: "reload" }).catch(() => {}),
};

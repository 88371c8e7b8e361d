// Signing in and out: the form, why it is there, and the cookie that a demo brings. Refuses to know: what is shown to whom.

import { byId } from "./dom.js";
import { sentence } from "./format.js";
import { token, tokenOf } from "./token.js";

const REASONS = {
  AUTH_REQUIRED: "The service needs a token to know whose tasks to show.",
  INVALID_TOKEN: "The token was refused.",
  EXPIRED_TOKEN: "The token has expired.",
};
/** The refusal of a service that looks at no token: none would help. */
export const NO_USER = "NO_USER_AVAILABLE";

export class SignIn {
  #client;
  #form = byId("sign-in");
  #out = byId("sign-out");
  /** The page brought it, and the service has not accepted it yet. */
  #isCookieNew = true;

  /** @param {() => void} onOther somebody else looks from now on, perhaps */
  constructor(client, onOther) {
    this.#client = client;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      token.set(tokenOf(byId("token").value));
      byId("token").value = "";
      this.#form.hidden = true;
      onOther();
    });
    this.#out.addEventListener("click", () => {
      token.clear();
      onOther();
    });
  }

  get isAsked() {
    return !this.#form.hidden;
  }

  /** @param {import("../client.js").ConnectionStatus} status @param {boolean} hasTasks whether any are shown */
  follow(status, hasTasks) {
    const { state, code } = status;
    if (state === "live") this.#isCookieNew = false;
    if (state === "unauthorised" && code === "INVALID_TOKEN" && token.get() === null && !this.#isCookieNew) return void this.#renewCookie();
    if (state === "unauthorised" && code !== NO_USER) this.#ask(status);
    // Somebody may be typing a token: the form stays until one is accepted, whatever becomes of this connection.
    else if (status.reason === "catching up" || ["live", "degraded", "closed"].includes(state)) this.#form.hidden = true;
    // Where a token ended, what it showed is still there, and whoever leaves wants it gone.
    this.#out.hidden = token.get() === null || (state === "unauthorised" && !hasTasks);
  }

  #ask({ code, reason: words }) {
    const reason = REASONS[code] ?? "The service did not accept this connection.";
    const said = words ? sentence(words) : reason;
    byId("sign-in-reason").textContent = said === reason ? reason : `${reason} ${said}`;
    if (this.isAsked) return;
    this.#form.hidden = false;
    byId("token").focus();
  }

  /** A service that began anew with another secret, as the demo does, gives its own cookie with the page. */
  async #renewCookie() {
    this.#isCookieNew = true;
    await token.fetchCookie();
    this.#client.restart();
  }
}

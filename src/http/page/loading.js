// Loads the page anew when a part of it did not come: the network may have changed in that moment, and a page that lacks one module
// never begins. Comes first, and is no module, so that it needs none of them. Refuses to know: the parts.

{
  const WAITS_MS = [500, 2_000, 5_000, 15_000, 60_000];
  const PATIENCE_MS = 15_000;
  /** How often that was in a row, in this tab. */
  const KEY = "taskcast.loads";
  let isDue = false;
  /** Without a stylesheet the page works, without a script it does not. */
  let isScriptMissing = false;
  let isWhole = true;

  const stored = (action) => {
    try {
      return action(sessionStorage);
    } catch {
      return null;
    }
  };

  const isPart = (node) => node instanceof HTMLScriptElement || (node instanceof HTMLLinkElement && node.rel === "stylesheet");

  /** What the browser shows instead of a page that cannot be had would never come back by itself. */
  const isThere = async () => {
    try {
      return (await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) })).ok;
    } catch {
      return false;
    }
  };

  const again = (turn) => setTimeout(async () => {
    if (await isThere()) location.reload();
    else again(turn + 1);
  }, WAITS_MS[Math.min(turn, WAITS_MS.length - 1)]);

  addEventListener("error", ({ target }) => {
    if (!isPart(target)) return;
    isWhole = false;
    isScriptMissing ||= target instanceof HTMLScriptElement;
    if (isDue) return;
    // Where nothing can be kept nobody counts.
    const turn = stored((storage) => Number(storage.getItem(KEY)) || 0) ?? WAITS_MS.length;
    if (turn >= WAITS_MS.length && !isScriptMissing) return;
    isDue = true;
    stored((storage) => storage.setItem(KEY, String(turn + 1)));
    again(turn);
    const say = () => {
      const place = document.querySelector("#connection-text, #state");
      if (place) place.textContent = "A part of this page did not load; trying again…";
    };
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
    else say();
  }, true);

  addEventListener("load", () => isWhole && stored((storage) => storage.removeItem(KEY)));
}

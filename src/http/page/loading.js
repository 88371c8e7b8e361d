// Loads the page anew when a part of it did not come: the network may have changed in that moment, and a page that lacks one module
// never begins. Comes first, and is no module, so that it needs none of them. Refuses to know: the parts.

{
  const WAITS_MS = [500, 2_000, 5_000, 15_000, 60_000];
  /** How often that was in a row, in this tab. */
  const KEY = "taskcast.loads";
  let isDue = false;

  const stored = (action) => {
    try {
      return action(sessionStorage);
    } catch {
      return null;
    }
  };

  const isPart = (node) => node instanceof HTMLScriptElement || (node instanceof HTMLLinkElement && node.rel === "stylesheet");

  addEventListener("error", ({ target }) => {
    if (isDue || !isPart(target)) return;
    isDue = true;
    // Where nothing can be kept nobody counts.
    const turn = stored((storage) => {
      const before = Number(storage.getItem(KEY)) || 0;
      storage.setItem(KEY, String(before + 1));
      return before;
    }) ?? WAITS_MS.length;
    setTimeout(() => location.reload(), WAITS_MS[Math.min(turn, WAITS_MS.length - 1)]);
    const say = () => {
      const place = document.querySelector("#connection-text, #state");
      if (place) place.textContent = "A part of this page did not load; trying again…";
    };
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
    else say();
  }, true);

  addEventListener("load", () => isDue || stored((storage) => storage.removeItem(KEY)));
}

// What the page around the client goes through: seen again, online again, put aside and taken out.

/**
 * @param {{wake: () => void, online: () => void, offline: () => void, suspend: () => void, resume: () => void}} client
 * @returns {() => void} stops listening
 */
export function followPage(client) {
  const page = /** @type {any} */ (globalThis).document;
  const onSeen = () => page.visibilityState !== "hidden" && client.wake();
  // A page in the back/forward cache must hold no connection, or it is not kept there at all.
  const onShown = (event) => (event.persisted ? client.resume() : client.wake());
  /** @type {[any, string, (event: any) => void][]} */
  const wanted = [
    [globalThis, "online", client.online], [globalThis, "offline", client.offline],
    [globalThis, "pagehide", client.suspend], [globalThis, "pageshow", onShown],
    [page, "visibilitychange", onSeen], [page, "resume", client.wake],
  ];
  const heard = wanted.filter(([target]) => typeof target?.addEventListener === "function");
  for (const [target, event, listener] of heard) target.addEventListener(event, listener);
  return () => {
    for (const [target, event, listener] of heard) target.removeEventListener(event, listener);
  };
}

export const isOffline = () => globalThis.navigator?.onLine === false;

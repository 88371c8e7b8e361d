// How long to wait before the next attempt to connect.

const MIN_MS = 1_000;
const MAX_MS = 30_000;

const positive = (value) => (Number.isFinite(value) && value > 0 ? value : null);

export class Backoff {
  min = MIN_MS;
  max = MAX_MS;
  failures = 0;

  /**
   * The service's own wishes, from `connection_established`.
   * @param {{min_ms?: number, max_ms?: number} | undefined} wishes
   */
  follow(wishes) {
    this.min = positive(wishes?.min_ms) ?? MIN_MS;
    this.max = Math.max(positive(wishes?.max_ms) ?? MAX_MS, this.min);
  }

  reset() {
    this.failures = 0;
  }

  /** Full jitter between the least delay and a limit that doubles with each failure. There is no last attempt. */
  next() {
    this.failures += 1;
    const ceiling = Math.min(this.max, this.min * 2 ** Math.min(this.failures, 16));
    return this.min + Math.random() * (ceiling - this.min);
  }
}

// Live data of the page: one stream of server-sent events. A lost stream keeps what is known and says how old
// it is.

/** The server sends at least a tick every 5 s; without one for this long the stream is lost. */
const SILENCE_MS = 12000;
/** A refused stream is tried again after this long; the browser does it itself for a broken one. */
const RETRY_MS = 5000;

/** Applies a JSON merge patch (RFC 7396). @param {any} target @param {any} patch */
export function merge(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const merged = target && typeof target === "object" && !Array.isArray(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name];
    else merged[name] = merge(merged[name], value);
  }
  return merged;
}

/**
 * @typedef {{status: "loading"|"live"|"lost", groups: Record<string, any>, receivedAt: number|null}} State
 */

/** Opens the stream and calls `changed` with the state after each change. */
export class Live {
  /** @param {string} url @param {(state: State) => void} changed */
  constructor(url, changed) {
    this.url = url;
    this.changed = changed;
    /** @type {State} */
    this.state = { status: "loading", groups: {}, receivedAt: null };
    this.open();
    // Browsers allow six connections to a server over all of its pages, so a page that is not seen has none.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.source?.close() : this.open()));
    setInterval(() => this.check(), 1000);
  }

  open() {
    this.source?.close();
    if (document.hidden) return;
    const source = new EventSource(this.url);
    this.source = source;
    source.addEventListener("snapshot", (event) => this.received(JSON.parse(event.data).groups, true));
    source.addEventListener("patch", (event) => this.received(JSON.parse(event.data).groups, false));
    source.addEventListener("tick", () => this.received({}, false));
    source.addEventListener("bye", () => this.lost());
    source.onerror = () => {
      this.lost();
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.open(), RETRY_MS);
    };
  }

  /** @param {Record<string, any>} changes @param {boolean} whole */
  received(changes, whole) {
    const groups = whole ? changes : merge(this.state.groups, changes);
    this.set({ status: "live", groups, receivedAt: Date.now() });
  }

  lost() {
    if (this.state.status === "live" || this.state.receivedAt === null)
      this.set({ ...this.state, status: "lost" });
  }

  check() {
    if (document.hidden) return;
    const { status, receivedAt } = this.state;
    if (status === "live" && Date.now() - receivedAt > SILENCE_MS) {
      this.lost();
      this.open();
    } else if (status === "lost") {
      this.set(this.state); // The age grows.
    }
  }

  /** @param {State} state */
  set(state) {
    this.state = state;
    this.changed(state);
  }
}

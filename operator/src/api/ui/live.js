// Live data of the page: one stream of server-sent events. A lost stream keeps what is known and says how old
// it is. The stream is read with fetch, because EventSource cannot send a token.
import { request } from "./session.js";

/** The server sends at least a tick every 5 s; without one for this long the stream is lost. */
const SILENCE_MS = 12000;
/** A stream that was lost is opened again after this long. */
const RETRY_MS = 3000;
/** Each answer that is a problem doubles this time, up to this long. */
const REFUSED_MS = 30000;

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

/** The events of a stream, as name and data. @param {ReadableStream<Uint8Array>} body */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = { event: "message", data: "" };
      for (const line of part.split("\n")) {
        const [, name, content] = /^(event|data): ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = content;
      }
      // A comment keeps proxies from closing the stream.
      if (fields.data) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

/**
 * @typedef {{status: "loading"|"live"|"lost", groups: Record<string, any>, receivedAt: number|null,
 *   problem: import("./session.js").Problem|null}} State
 */

/** Opens the stream and calls `changed` with the state after each change. */
export class Live {
  /** @param {string} url @param {(state: State) => void} changed */
  constructor(url, changed) {
    this.url = url;
    this.changed = changed;
    /** @type {State} */
    this.state = { status: "loading", groups: {}, receivedAt: null, problem: null };
    this.retry = RETRY_MS;
    this.open();
    // Browsers allow six connections to a server over all of its pages, so a page that is not seen has none.
    this.shown = () => (document.hidden ? this.stream?.abort() : this.open());
    document.addEventListener("visibilitychange", this.shown);
    this.timer = setInterval(() => this.check(), 1000);
  }

  close() {
    document.removeEventListener("visibilitychange", this.shown);
    clearInterval(this.timer);
    this.stream?.abort();
    this.stream = null;
  }

  async open() {
    this.stream?.abort();
    if (document.hidden) return;
    const stream = (this.stream = new AbortController());
    let problem = null;
    try {
      const response = await request(this.url, { signal: stream.signal });
      for await (const [name, data] of events(response.body)) {
        if (this.stream !== stream) return;
        if (name === "bye") break;
        this.received(data.groups ?? {}, name === "snapshot");
      }
    } catch (error) {
      if (error.status) problem = error;
    }
    // Another stream has replaced it, or the page is not seen.
    if (this.stream !== stream || stream.signal.aborted) return;
    this.lost(problem);
    this.retry = problem ? Math.min(this.retry * 2, REFUSED_MS) : RETRY_MS;
    setTimeout(() => this.stream === stream && this.open(), this.retry);
  }

  /** @param {Record<string, any>} changes @param {boolean} whole */
  received(changes, whole) {
    this.retry = RETRY_MS;
    const groups = whole ? changes : merge(this.state.groups, changes);
    this.set({ status: "live", groups, receivedAt: Date.now(), problem: null });
  }

  /** @param {import("./session.js").Problem|null} problem */
  lost(problem = null) {
    this.set({ ...this.state, status: "lost", problem });
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

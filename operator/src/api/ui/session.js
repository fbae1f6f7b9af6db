// The token of the user, and requests with it. Local mode has no login and so no token.

const KEY = "token";

/** The token, for this tab only: it is gone when the tab is closed. */
export const session = {
  /** @returns {string|null} */
  get token() {
    return sessionStorage.getItem(KEY);
  },
  /** @param {string|null} token */
  set token(token) {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  },
};

/** An answer that is a problem (RFC 9457). */
export class Problem extends Error {
  /** @param {number} status @param {any} answer */
  constructor(status, answer) {
    super(answer?.detail ?? `the server answers ${status}`);
    this.status = status;
    this.reason = answer?.reason;
  }
}

/** `fetch` with the token; throws a Problem. @param {string} path @param {RequestInit} options */
export async function request(path, options = {}) {
  const token = session.token;
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => null));
}

/** Reads JSON. @param {string} path */
export const read = async (path) => (await request(path)).json();

/** Sends a change. @param {string} method @param {string} path @param {any} body */
export async function change(method, path, body) {
  const options = {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(35000),
  };
  return (await request(path, options)).json();
}

// Requests to the server.

import { parseJson } from "./values.js";

const TOKEN = "tzrec-token";

/** An answer that is an error; `field` is the place in the request that it is about. */
export class ServerError extends Error {
  constructor(status, error, retryAfter) {
    super(error.message || `The server answered ${status}.`);
    this.status = status;
    this.code = error.code || "";
    this.field = error.field || "";
    this.hint = error.hint || "";
    this.retryAfter = retryAfter;
  }
}

/** Keeps the token for this tab. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** Whether a token is sent. */
export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

/** Asks the server; returns `{body, milliseconds}`. Raises ServerError. */
export async function ask(path, text = null) {
  const headers = {};
  if (hasToken()) headers.Authorization = `Bearer ${sessionStorage.getItem(TOKEN)}`;
  if (text !== null) headers["Content-Type"] = "application/json";
  const started = performance.now();
  let response;
  try {
    response = await fetch(path, {
      method: text === null ? "GET" : "POST", headers, body: text, cache: "no-store",
    });
  } catch {
    throw new ServerError(0, { message: "The server does not answer.", hint: "Is it running?" });
  }
  const answer = await response.text();
  const milliseconds = performance.now() - started;
  let body = null;
  try {
    body = parseJson(answer);
  } catch {
    // Not JSON: something between the page and the server has answered.
  }
  if (!response.ok || body === null) {
    throw new ServerError(response.status, body?.error ?? {}, response.headers.get("Retry-After"));
  }
  return { body, milliseconds };
}

// What both test files need: the server's addresses, its REST API, and waiting with a limit.

import assert from "node:assert/strict";

/** The server under test, for example http://127.0.0.1:8000. */
export const URL_BASE = process.env.SLIPSTREAM_URL;
/** The API key of its default app. */
export const API_KEY = process.env.SLIPSTREAM_API_KEY;
/** How long anything may take on a slow machine. */
export const PATIENCE_MS = 20_000;

assert(URL_BASE && API_KEY, "SLIPSTREAM_URL and SLIPSTREAM_API_KEY are set by run.mjs");

/** Its WebSocket endpoint. */
export const WS_URL = `${URL_BASE.replace(/^http/, "ws")}/connection/websocket`;

let names = 0;

/** A channel that no other test uses. */
export function freshChannel(namespace = "public") {
  return `${namespace}:t${process.pid}-${Date.now().toString(36)}-${++names}`;
}

/** Calls the REST API and answers the parsed body; anything but a 2xx fails the test. */
export async function rest(method, path, body) {
  const response = await fetch(URL_BASE + path, {
    method,
    headers: { "X-API-Key": API_KEY, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await response.text();
  assert(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Publishes as a backend does. */
export function publish(channel, data) {
  return rest("POST", `/v1/channels/${encodeURIComponent(channel)}/publications`, { data });
}

/** Resolves as `promise` does, or fails when that takes too long. */
export function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

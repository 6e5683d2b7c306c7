// Starts `slipstream dev` on a free port with a folder of its own, runs the tests against it, and
// stops it. The binary is SLIPSTREAM_BIN, or the one that `cargo build` leaves in target/debug.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const HERE = import.meta.dirname;
const READY_MS = 60_000;
const STOP_MS = 30_000;

const binary = process.env.SLIPSTREAM_BIN ?? join(HERE, "../../target/debug/slipstream");
const apiKey = "key-of-the-sdk-tests";
const dataDir = await mkdtemp(join(tmpdir(), "slipstream-js-"));

const args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", dataDir, "--dev-key", apiKey];
const server = spawn(binary, args, { stdio: ["ignore", "pipe", "inherit"] });
const ended = once(server, "exit");

async function ready() {
  for await (const line of createInterface({ input: server.stdout })) {
    if (line.startsWith("ready ")) return line.slice("ready ".length);
  }
  throw new Error("`slipstream dev` ended before it was ready");
}

function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

let code = 1;
try {
  const url = await within(READY_MS, ready(), "starting");
  server.stdout.resume();
  const files = (await readdir(HERE)).filter((name) => name.endsWith(".test.mjs"));
  const tests = spawn(process.execPath, ["--test", ...files.map((name) => join(HERE, name))], {
    stdio: "inherit",
    env: { ...process.env, SLIPSTREAM_URL: url, SLIPSTREAM_API_KEY: apiKey },
  });
  [code] = await once(tests, "exit");
  server.kill("SIGINT");
  const [stopped] = await within(STOP_MS, ended, "stopping");
  if (stopped !== 0) throw new Error(`\`slipstream dev\` ended with ${stopped}`);
} catch (error) {
  console.error(error.message);
  code ||= 1;
} finally {
  if (server.exitCode === null) server.kill("SIGKILL");
  await rm(dataDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}
process.exit(code ?? 1);

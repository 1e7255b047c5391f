// Runs workerd with D1 databases for the tests until stdin ends. Prints one
// line of JSON when it is ready: {"url"}.
// The first line of stdin is {"databases", "rest", "rows", "schema"}: how many, and the tokens.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Miniflare } from "miniflare";

const input = createInterface({ input: process.stdin });
const ended = new Promise((resolve) => input.once("close", resolve));
const first = await new Promise((resolve) => input.once("line", resolve));
const { databases, rest, rows, schema } = JSON.parse(first);

// miniflare leaves its folder behind.
const folder = (process.env.TMPDIR = mkdtempSync(join(tmpdir(), "kavach-d1-")));

const module = (name, path) => ({ type: "ESModule", path: name, contents: readFileSync(new URL(path, import.meta.url), "utf8") });
const host = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  compatibilityDate: "2026-04-01",
  modules: [module("worker.js", "worker.js"), module("d1-bridge.js", "../d1-bridge.js")],
  d1Databases: Object.fromEntries(Array.from({ length: databases }, (_, i) => [`DB${i}`, `db${i}`])),
  bindings: { REST_TOKEN: rest, KAVACH_BRIDGE_TOKEN: rows, KAVACH_BRIDGE_MIGRATE_TOKEN: schema },
});
console.log(JSON.stringify({ url: (await host.ready).href }));
await ended;
await host.dispose();
rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
process.exit(0);

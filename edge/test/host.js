// Runs workerd with D1 databases for the tests until stdin ends. Prints one
// line of JSON when it is ready: {"url"}.
// The first line of stdin is {"databases", "rest", "rows", "schema"}: how many, and the tokens.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Miniflare } from "miniflare";

const input = createInterface({ input: process.stdin });
const ended = new Promise((resolve) => input.once("close", resolve));
const first = await new Promise((resolve) => input.once("line", resolve));
const { databases, rest, rows, schema } = JSON.parse(first);

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
process.exit(0);

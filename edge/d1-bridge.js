// The bridge between kavach and a Cloudflare D1 database: a Worker that runs
// SQL for whoever has its token, and for nobody else.
//
// Bindings:
//   DB                           the D1 database
//   KAVACH_BRIDGE_TOKEN          secret: may read and write rows
//   KAVACH_BRIDGE_MIGRATE_TOKEN  secret, optional: may change the schema, too
//
// Each secret holds one token of 32 characters or more, or two with a space
// between them while one takes the other's place.
//
//   POST /v1/query  {"sql": "SELECT …", "params": […]}
//   POST /v1/batch  {"batch": [{"sql": "…", "params": […]}, …]}   all or nothing
//
// answer {"success": true, "result": […]} or {"success": false, "errors":
// [{"code", "message"}]}, which is the form of Cloudflare's own REST API. The
// path may have a prefix, so that the Worker can stand behind a route.
//
// What it guarantees: nothing of a request is read before its token was
// compared, in constant time; no browser can use it (no CORS, no Origin); the
// first token cannot change the schema, and so not remove the triggers that
// keep the audit log; an answer never holds an integer that JavaScript has
// rounded; nothing is logged.

const LIMITS = {
  body: 8 * 1024 * 1024,
  statements: 1000,
  sql: 100_000,
  params: 100,
  value: 2_000_000,
};

const SHORTEST_TOKEN = 32;

export default {
  /**
   * @param {Request} request
   * @param {Record<string, any>} env
   */
  async fetch(request, env) {
    try {
      return await answer(request, env);
    } catch (error) {
      if (error instanceof Refusal) return refuse(error.status, error.message);
      // Whether it happened is not known: kavach looks.
      return refuse(500, "the bridge failed");
    }
  },
};

class Refusal extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {Request} request @param {Record<string, any>} env */
async function answer(request, env) {
  const may = await permission(request.headers.get("Authorization"), env);
  if (!may) return refuse(401, "no token, or another one", { "WWW-Authenticate": "Bearer" });
  const path = new URL(request.url).pathname;
  if (!path.endsWith("/v1/query") && !path.endsWith("/v1/batch")) throw new Refusal(404, "no such path");
  if (request.method !== "POST") return refuse(405, "only POST", { Allow: "POST" });
  // kavach sends none. A browser does, and has no business here.
  if (request.headers.has("Origin") || request.headers.has("Sec-Fetch-Site")) throw new Refusal(403, "not for browsers");
  if (!/^application\/json(;|$)/i.test(request.headers.get("Content-Type") ?? "") || request.headers.has("Content-Encoding")) {
    throw new Refusal(415, "want application/json, not encoded");
  }
  const body = await parse(request);
  return path.endsWith("/v1/query") ? query(env.DB, body) : batch(env.DB, body, may.schema);
}

/**
 * What the bearer of a token may do, null for nobody. Every token that there is
 * is compared, by digests of equal length, so that time says nothing of them.
 *
 * @param {string | null} header
 * @param {Record<string, any>} env
 */
async function permission(header, env) {
  const rows = tokens(env.KAVACH_BRIDGE_TOKEN);
  const schema = tokens(env.KAVACH_BRIDGE_MIGRATE_TOKEN);
  if (rows.length + schema.length === 0) throw new Refusal(503, "the bridge has no token of 32 characters or more");
  const given = await digest(/^Bearer ([!-~]{32,4096})$/i.exec(header ?? "")?.[1] ?? "");
  let mayRows = false;
  let maySchema = false;
  for (const token of rows) mayRows = equal(given, await digest(token)) || mayRows;
  for (const token of schema) maySchema = equal(given, await digest(token)) || maySchema;
  return mayRows || maySchema ? { schema: maySchema } : null;
}

/** @param {unknown} secret */
function tokens(secret) {
  if (typeof secret !== "string") return [];
  return secret.split(/\s+/).filter((token) => token.length >= SHORTEST_TOKEN);
}

/** @param {string} text */
async function digest(text) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

/** @param {Uint8Array} a @param {Uint8Array} b of the same length */
function equal(a, b) {
  let differ = 0;
  for (let i = 0; i < a.length; i++) differ |= a[i] ^ b[i];
  return differ === 0;
}

/** @param {Request} request */
async function parse(request) {
  const chunks = [];
  let size = 0;
  const tooLong = new Refusal(413, "the request is too long");
  if (Number(request.headers.get("Content-Length") ?? 0) > LIMITS.body) throw tooLong;
  const reader = request.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) break;
    size += value.byteLength;
    if (size > LIMITS.body) {
      await reader?.cancel();
      throw tooLong;
    }
    chunks.push(value);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(whole));
  } catch {
    throw new Refusal(400, "the request is no JSON");
  }
}

/** @param {any} db @param {unknown} body */
async function query(db, body) {
  const { sql, params } = statement(body);
  if (!/^\s*(SELECT|WITH)\s/i.test(sql) || sql.includes(";")) throw new Refusal(403, "a query is one SELECT");
  const [columns, ...rows] = await run(() => prepare(db, sql, params).raw({ columnNames: true }));
  for (const row of rows) {
    for (const value of row) {
      if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
        throw new Refusal(422, "an integer in the answer is above 2^53");
      }
      if (value !== null && typeof value === "object") throw new Refusal(422, "a blob in the answer");
    }
  }
  return reply(200, { success: true, result: [{ results: { columns: columns ?? [], rows } }] });
}

/** @param {any} db @param {any} body @param {boolean} schema */
async function batch(db, body, schema) {
  const list = members(body, ["batch"]).batch;
  if (!Array.isArray(list) || list.length === 0) throw new Refusal(400, "batch is no list of statements");
  if (list.length > LIMITS.statements) throw new Refusal(413, "too many statements");
  const statements = list.map(statement);
  for (const { sql } of statements) {
    // Without a ";" anywhere it is one statement, and its first word says which.
    if (!schema && (!/^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s/i.test(sql) || sql.includes(";"))) {
      throw new Refusal(403, "this token may not change the schema: use the migrate token");
    }
  }
  await run(() => db.batch(statements.map(({ sql, params }) => prepare(db, sql, params))));
  return reply(200, { success: true, result: [] });
}

/** @param {any} db @param {string} sql @param {any[]} params */
function prepare(db, sql, params) {
  const prepared = db.prepare(sql);
  return params.length > 0 ? prepared.bind(...params) : prepared;
}

/**
 * One statement, checked.
 *
 * @param {unknown} value
 * @returns {{sql: string, params: any[]}}
 */
function statement(value) {
  const { sql, params } = members(value, ["sql", "params"]);
  if (typeof sql !== "string" || sql.includes("\0") || !Array.isArray(params)) {
    throw new Refusal(400, "a statement is {sql, params}");
  }
  if (bytes(sql) > LIMITS.sql || params.length > LIMITS.params) throw new Refusal(413, "the statement is too long");
  for (const param of params) {
    if (typeof param === "string") {
      if (bytes(param) > LIMITS.value) throw new Refusal(413, "a value is too long");
    } else if (typeof param === "number") {
      if (Number.isInteger(param) && !Number.isSafeInteger(param)) throw new Refusal(422, "an integer is above 2^53");
    } else if (param !== null) {
      throw new Refusal(400, "a parameter is text, a number or null");
    }
  }
  return { sql, params };
}

/** @param {string} text */
function bytes(text) {
  return text.length * 3 <= LIMITS.sql ? text.length : new TextEncoder().encode(text).byteLength;
}

/**
 * An object with exactly these members.
 *
 * @param {any} value
 * @param {string[]} names
 */
function members(value, names) {
  if (value === null || typeof value !== "object" || Array.isArray(value) || Object.keys(value).sort().join() !== [...names].sort().join()) {
    throw new Refusal(400, `want an object of ${names.join(" and ")}`);
  }
  return value;
}

/**
 * Runs SQL. What D1 says of it goes back to who sent it: it names tables and
 * columns, never a value.
 *
 * @template T
 * @param {() => Promise<T>} sql
 * @returns {Promise<T>}
 */
async function run(sql) {
  try {
    return await sql();
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (message.startsWith("D1_ERROR: ")) throw new Refusal(400, message);
    if (message.startsWith("D1_TYPE_ERROR: ")) throw new Refusal(422, "a parameter is of no type that D1 has");
    throw error;
  }
}

/** @param {number} status @param {string} message @param {Record<string, string>} [headers] */
function refuse(status, message, headers) {
  return reply(status, { success: false, errors: [{ code: status, message }] }, headers);
}

/** @param {number} status @param {unknown} body @param {Record<string, string>} [headers] */
function reply(status, body, headers = {}) {
  return new Response(JSON.stringify(body), {
    status,
    headers: {
      "Content-Type": "application/json",
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
      ...headers,
    },
  });
}

// What the tests ask: the bridge as it is deployed, and the form of Cloudflare's
// REST API, each over as many databases as there are bindings.
//
//   /bridge/N/…                                the bridge over database N
//   /client/v4/accounts/test/d1/database/N/raw  the REST form over it

import bridge from "./d1-bridge.js";

export default {
  /** @param {Request} request @param {Record<string, any>} env */
  async fetch(request, env) {
    const url = new URL(request.url);
    let match = /^\/bridge\/(\d+)(\/.*)$/.exec(url.pathname);
    if (match) {
      const { KAVACH_BRIDGE_TOKEN, KAVACH_BRIDGE_MIGRATE_TOKEN } = env;
      url.pathname = match[2];
      return bridge.fetch(new Request(url, request), { DB: env[`DB${match[1]}`], KAVACH_BRIDGE_TOKEN, KAVACH_BRIDGE_MIGRATE_TOKEN });
    }
    match = /^\/client\/v4\/accounts\/test\/d1\/database\/(\d+)\/raw$/.exec(url.pathname);
    if (!match || request.method !== "POST") return rest(404, 7404, "no such database");
    if (request.headers.get("Authorization") !== `Bearer ${env.REST_TOKEN}`) return rest(401, 10000, "Authentication error");
    const db = env[`DB${match[1]}`];
    const body = await request.json();
    const prepare = ({ sql, params }) => db.prepare(sql).bind(...(params ?? []));
    try {
      if (!body.batch) {
        const [columns, ...rows] = await prepare(body).raw({ columnNames: true });
        return Response.json({ success: true, errors: [], messages: [], result: [{ success: true, meta: {}, results: { columns, rows } }] });
      }
      const result = (await db.batch(body.batch.map(prepare))).map(({ meta }) => ({ success: true, meta, results: { columns: [], rows: [] } }));
      return Response.json({ success: true, errors: [], messages: [], result });
    } catch (error) {
      return rest(400, 7500, error.message.replace(/^D1_ERROR: /, ""));
    }
  },
};

/** @param {number} status @param {number} code @param {string} message */
function rest(status, code, message) {
  return Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });
}

// mcp.mjs drives an official TypeScript MCP client (v1 or v2, as argv[2] says)
// from the first 401 to every tool, refresh and step-up. The Go test gives the
// issuer and what to expect in the environment; a failed assertion ends it with 1.
import assert from 'node:assert/strict';
import { Person } from './person.mjs';

const version = process.argv[2];
const scenario = process.argv[3];
const issuer = process.env.ISSUER;
const sdk = version === 'v1'
  ? { ...(await import('@modelcontextprotocol/sdk/client/index.js')), ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')), ...(await import('@modelcontextprotocol/sdk/client/auth.js')) }
  : await import('@modelcontextprotocol/client');

export class Provider {
  constructor({ keepRefresh = true } = {}) { this.keepRefresh = keepRefresh; this.authorizations = []; this.saved = 0; }
  get redirectUrl() { return 'http://127.0.0.1:33418/callback'; }
  get clientMetadata() { return { client_name: `e2e ${version}`, redirect_uris: [this.redirectUrl], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'none' }; }
  clientInformation() { return this.client; }
  saveClientInformation(c) { this.client = c; }
  tokens() {
    if (!this.current) return undefined;
    if (this.keepRefresh) return this.current;
    const { refresh_token, ...rest } = this.current;
    return rest;
  }
  saveTokens(t) { this.current = t; this.saved++; }
  redirectToAuthorization(url) { this.authorizations.push(url); }
  saveCodeVerifier(v) { this.verifier = v; }
  codeVerifier() { return this.verifier; }
  saveDiscoveryState(s) { this.discovery = s; }
  discoveryState() { return this.discovery; }
  invalidateCredentials() { }
}

export class Session {
  constructor(options = {}) {
    this.provider = new Provider(options);
    this.person = new Person({ issuer });
  }
  transport() { return new sdk.StreamableHTTPClientTransport(new URL(`${issuer}/mcp`), { authProvider: this.provider }); }
  async finish(transport, choice) {
    const callback = await this.person.authorize(this.provider.authorizations.at(-1), choice);
    assert.equal(callback.searchParams.get('iss'), issuer, 'RFC 9207 iss');
    assert.equal(callback.searchParams.get('error'), null, callback.href);
    if (version === 'v1') await transport.finishAuth(callback.searchParams.get('code'));
    else await transport.finishAuth(callback.searchParams);
  }
  async connect(choice) {
    const first = this.transport();
    this.client = new sdk.Client({ name: 'e2e', version: '1.0.0' });
    await assert.rejects(this.client.connect(first), (e) => e instanceof sdk.UnauthorizedError, 'the first call must be a 401 that starts authorization');
    await this.finish(first, choice);
    this.wire = this.transport();
    this.client = new sdk.Client({ name: 'e2e', version: '1.0.0' });
    await this.client.connect(this.wire);
  }
  async call(name, args) {
    const result = await this.client.callTool({ name, arguments: args });
    if (!result.isError) assert.deepEqual(JSON.parse(result.content.find((c) => c.type === 'text').text), result.structuredContent, 'the text block says the same as structuredContent');
    return result;
  }
}

const scenarios = {
  // 401 → registration → sign-in → consent → code → every tool → refresh.
  async full() {
    const s = new Session();
    await s.connect();
    const granted = s.provider.current.scope.split(' ').sort();
    assert.deepEqual(granted, ['kavach:audit', 'kavach:delegate', 'kavach:verify']);
    const { tools } = await s.client.listTools();
    assert.deepEqual(tools.map((t) => t.name), ['audit', 'delegate', 'revoke', 'verify'], 'the same list in the same order for everybody');
    for (const t of tools) assert.ok(t.title && t.description && t.inputSchema && t.outputSchema && t.annotations, `tool ${t.name} is described`);

    const delegated = await s.call('delegate', { agent: 'code-reviewer', scopes: ['kavach:verify'], ttl_seconds: 90 });
    assert.ok(!delegated.isError, JSON.stringify(delegated.content));
    const d = delegated.structuredContent;
    assert.deepEqual(d.scopes, ['kavach:verify']);
    assert.ok(d.expires_in > 60 && d.expires_in <= 90);

    const verified = (await s.call('verify', { token: d.token, audience: `${issuer}/mcp`, request: { scope: 'kavach:verify', tool: 'verify', arguments: {}, resource: 'kavach/verify' } })).structuredContent;
    assert.equal(verified.valid, true, JSON.stringify(verified));
    assert.equal(verified.allowed, true, JSON.stringify(verified));
    const refused = (await s.call('verify', { token: d.token, audience: `${issuer}/mcp`, request: { scope: 'kavach:delegate' } })).structuredContent;
    assert.equal(refused.allowed, false);
    assert.equal(refused.reason, 'scope_not_granted');

    // The sub-token works at /mcp for exactly what it was given.
    const sub = async (name, args) => fetch(`${issuer}/mcp`, { method: 'POST', headers: { authorization: `Bearer ${d.token}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2025-11-25' }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }) });
    const good = await sub('verify', { token: d.token, audience: `${issuer}/mcp` });
    assert.equal(good.status, 200);
    const bad = await sub('delegate', { agent: 'code-reviewer', scopes: [] });
    assert.equal(bad.status, 403, 'the sub-token may not delegate');
    assert.match(bad.headers.get('www-authenticate'), /error="insufficient_scope"/);

    const audit = (await s.call('audit', { action: 'delegate' })).structuredContent;
    const entry = audit.entries.find((e) => e.result === 'allowed' && JSON.stringify(e).includes(d.token_id));
    assert.ok(entry, `the delegation stands in the log: ${JSON.stringify(audit.entries).slice(0, 500)}`);

    const wide = await s.call('delegate', { agent: 'code-reviewer', scopes: ['audit:read'] });
    assert.equal(wide.isError, true, 'what is not held cannot be delegated');
    assert.match(wide.content[0].text, /audit:read/);

    const revoked = await s.call('revoke', { token_id: d.token_id });
    assert.ok(!revoked.isError, JSON.stringify(revoked.content));
    const dead = await sub('verify', { token: d.token, audience: `${issuer}/mcp` });
    assert.equal(dead.status, 401, 'a revoked sub-token is refused at once');

    // A spoilt access token makes the client refresh; the family goes on.
    const before = s.provider.current;
    s.provider.current = { ...before, access_token: before.access_token.slice(0, -4) + 'AAAA' };
    const again = await s.call('verify', { token: d.token, audience: `${issuer}/mcp` });
    assert.equal(again.structuredContent.reason, 'revoked');
    assert.notEqual(s.provider.current.refresh_token, before.refresh_token, 'the refresh token was rotated');
    assert.equal(s.provider.authorizations.length, 1, 'no second sign-in was needed');
    await s.client.close();
  },

  // The server's baseline, or the person, gave less than `delegate` needs.
  async stepup() {
    const untick = (process.env.UNTICK ?? '').split(' ').filter(Boolean);
    // v1 tries its refresh token before it asks the person, which can never widen:
    // a v1 client steps up only when it keeps none.
    const s = new Session({ keepRefresh: version !== 'v1' });
    await s.connect({ untick });
    assert.equal(s.provider.current.scope, 'kavach:verify', 'the first token holds the baseline only');
    await assert.rejects(s.call('delegate', { agent: 'code-reviewer', scopes: ['kavach:verify'] }), (e) => e instanceof sdk.UnauthorizedError, 'a 403 insufficient_scope starts authorization again');
    const asked = s.provider.authorizations.at(-1).searchParams.get('scope').split(' ').sort();
    assert.deepEqual(asked.filter((x) => x !== 'offline_access'), ['kavach:delegate', 'kavach:verify'], 'asked is what is needed and what is held');
    await s.finish(s.wire, {});
    const delegated = await s.call('delegate', { agent: 'code-reviewer', scopes: ['kavach:verify'] });
    assert.ok(!delegated.isError, JSON.stringify(delegated.content));
    await s.client.close();
  },

  // A token for a resource of somebody else, handed to the Go test on stdout.
  async foreign() {
    const s = new Session();
    const tick = process.env.TICK.split(' ');
    await s.connect({ tick });
    const out = {};
    for (const [name, args] of Object.entries(JSON.parse(process.env.DELEGATIONS))) {
      const result = await s.call('delegate', args);
      out[name] = result.isError ? { error: result.content[0].text } : result.structuredContent;
    }
    process.stdout.write(JSON.stringify(out));
    await s.client.close();
  },
};

assert.ok(scenarios[scenario], `no scenario ${scenario}`);
await scenarios[scenario]();
process.stderr.write(`ok ${version} ${scenario}\n`);
process.exit(0);

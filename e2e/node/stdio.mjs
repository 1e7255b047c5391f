// stdio.mjs does what Claude Desktop does: an official TypeScript client (v1 or
// v2, as argv[2] says) starts `kavach mcp` and speaks with it over stdio.
import assert from 'node:assert/strict';

const version = process.argv[2];
const { ISSUER, KAVACH, KEY_FILE, HELPER, PUBLIC_KEY } = process.env;
const sdk = version === 'v1'
  ? { ...(await import('@modelcontextprotocol/sdk/client/index.js')), ...(await import('@modelcontextprotocol/sdk/client/stdio.js')) }
  : { ...(await import('@modelcontextprotocol/client')), ...(await import('@modelcontextprotocol/client/stdio')) };

const transport = new sdk.StdioClientTransport({ command: KAVACH, args: ['mcp', '--issuer', ISSUER, '--key-file', KEY_FILE], stderr: 'pipe' });
let stderr = '';
transport.stderr.on('data', (chunk) => { stderr += chunk; });
const client = new sdk.Client({ name: 'e2e', version: '1.0.0' });
await client.connect(transport);
assert.equal(client.getServerVersion().name, 'kavach');
const pid = transport.pid;
assert.ok(pid, 'the process runs');

const call = async (name, args) => {
  const result = await client.callTool({ name, arguments: args });
  if (!result.isError) assert.deepEqual(JSON.parse(result.content.find((c) => c.type === 'text').text), result.structuredContent);
  return result;
};

const { tools } = await client.listTools();
assert.deepEqual(tools.map((t) => t.name), ['audit', 'delegate', 'revoke', 'verify']);

// The helper's key makes the result worthless in this transcript.
const delegated = await call('delegate', { agent: HELPER, scopes: ['kavach:verify'], ttl_seconds: 60, public_key: JSON.parse(PUBLIC_KEY) });
assert.ok(!delegated.isError, JSON.stringify(delegated.content));
const { token, token_id } = delegated.structuredContent;

const verified = (await call('verify', { token, audience: `${ISSUER}/mcp`, request: { scope: 'kavach:verify', tool: 'verify', arguments: {}, resource: 'kavach/verify' } })).structuredContent;
assert.equal(verified.valid, true, JSON.stringify(verified));
assert.ok(verified.unchecked.includes('proof'), 'nobody showed the key');

// Without a key the token of a bound agent becomes a handle.
const handed = await call('delegate', { agent: HELPER, scopes: ['kavach:verify'] });
assert.ok(!handed.isError, JSON.stringify(handed.content));
assert.ok(handed.structuredContent.handle && !handed.structuredContent.token, 'a handle and no token');

const audit = (await call('audit', { action: 'delegate' })).structuredContent;
assert.ok(audit.entries.some((e) => e.result === 'allowed' && JSON.stringify(e).includes(token_id)), 'the delegation stands in the log');

const wide = await call('delegate', { agent: HELPER, scopes: ['audit:read'] });
assert.equal(wide.isError, true);
assert.match(wide.content[0].text, /audit:read/);

// Several calls at once, as a model that uses tools in parallel makes them.
const many = await Promise.all(Array.from({ length: 8 }, () => call('verify', { token, audience: `${ISSUER}/mcp` })));
assert.ok(many.every((r) => r.structuredContent.valid === true));

await client.close();
assert.throws(() => process.kill(pid, 0), (e) => e.code === 'ESRCH', 'the process is gone');
assert.ok(!stderr.includes(token), 'no token on standard error');
process.stderr.write(`ok stdio ${version}\n`);
process.exit(0);

// keys.mjs drives the token endpoint with oauth4webapi and private keys:
// private_key_jwt, DPoP, nonces, token exchange; jose verifies what comes out.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import * as jose from 'jose';
import { Person } from './person.mjs';

const issuer = new URL(process.env.ISSUER);
const mcp = new URL(`${issuer.origin}/mcp`);
const { AWARE, PLAIN } = process.env;
const nonces = process.env.NONCE === '1';
const http = { [oauth.allowInsecureRequests]: true };
const importKey = async ({ id, alg, jwk }) => ({ client: { client_id: id }, auth: oauth.PrivateKeyJwt(await jose.importJWK(jwk, alg)) });

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }));
assert.ok(as.token_endpoint_auth_methods_supported.includes('private_key_jwt'));
for (const alg of ['Ed25519', 'ES256']) {
  assert.ok(as.token_endpoint_auth_signing_alg_values_supported.includes(alg), `${alg} for assertions`);
  assert.ok(as.dpop_signing_alg_values_supported.includes(alg), `${alg} for proofs`);
}
assert.ok(as.grant_types_supported.includes('urn:ietf:params:oauth:grant-type:token-exchange'));
const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri));

// twice does a request again with the nonce that the server asked for, once.
// Where the server asks for none, or has given it before, the first try is good.
const asked = { token: 0, resource: 0 };
async function twice(request, process, where = 'token') {
  try {
    return await process(await request());
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    asked[where]++;
    return await process(await request());
  }
}

// holder is a key to bind tokens to.
async function holder(alg = 'ES256') {
  const pair = await oauth.generateKeyPair(alg, { extractable: true });
  return { pair, handle: (client) => oauth.DPoP(client, pair), jkt: await jose.calculateJwkThumbprint(await jose.exportJWK(pair.publicKey)) };
}

const bound = (token, jkt) => assert.equal(jose.decodeJwt(token).cnf.jkt, jkt, 'bound to the key of the proof');

async function signIn({ client, auth }, parameters, DPoP) {
  return twice(
    () => oauth.clientCredentialsGrantRequest(as, client, auth, new URLSearchParams(parameters), { ...http, DPoP }),
    (response) => oauth.processClientCredentialsResponse(as, client, response),
  );
}

// call calls the tool verify with a bound token, whatever it says of the token.
async function call(token, DPoP) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'verify', arguments: { token, audience: mcp.href } } });
  const headers = new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2025-11-25' });
  const request = () => oauth.protectedResourceRequest(token, 'POST', mcp, headers, body, { ...http, DPoP });
  return (await twice(request, (response) => response, 'resource')).json();
}

// Agents sign in with their keys; what they get is bound to another key.
const agents = await Promise.all(JSON.parse(process.env.AGENTS).map(importKey));
for (const agent of agents) {
  for (const alg of ['ES256', 'Ed25519']) {
    const key = await holder(alg);
    const DPoP = key.handle(agent.client);
    const tokens = await signIn(agent, { scope: 'kavach:verify', resource: mcp.href }, DPoP);
    assert.equal(tokens.token_type, 'dpop');
    assert.equal(tokens.scope, 'kavach:verify');
    bound(tokens.access_token, key.jkt);
    const { payload, protectedHeader } = await jose.jwtVerify(tokens.access_token, keys, { issuer: issuer.origin, audience: mcp.href, typ: 'at+jwt', clockTolerance: 0 });
    assert.equal(payload.sub, agent.client.client_id);
    assert.equal(payload.client_id, agent.client.client_id);
    assert.ok(protectedHeader.kid.startsWith('at-'));

    // A handle that has seen no nonce of this server yet.
    const said = await call(tokens.access_token, key.handle(agent.client));
    assert.equal(said.result.structuredContent.valid, true, JSON.stringify(said));

    // As a bearer token, or with somebody else's proof, it is worth nothing.
    await assert.rejects(() => oauth.protectedResourceRequest(tokens.access_token, 'POST', mcp, new Headers(), '{}', http), (e) => e.cause[0].parameters.error === 'invalid_token');
    const stranger = (await holder()).handle(agent.client);
    await assert.rejects(call(tokens.access_token, stranger), (e) => e.cause.some((c) => c.scheme === 'dpop' && c.parameters.error === 'invalid_dpop_proof'));

    // Its owner introspects it with the same kind of authentication.
    const seen = await oauth.processIntrospectionResponse(as, agent.client, await oauth.introspectionRequest(as, agent.client, agent.auth, tokens.access_token, http));
    assert.equal(seen.active, true);
    assert.equal(seen.cnf.jkt, key.jkt);
    assert.equal(seen.token_type, 'DPoP');
  }
}

// A client of an operator with a key, for which DPoP is forced.
{
  const keyed = await importKey(JSON.parse(process.env.KEYED));
  const key = await holder();
  bound((await signIn(keyed, { scope: 'audit:write' }, key.handle(keyed.client))).access_token, key.jkt);
  await assert.rejects(signIn(keyed, { scope: 'audit:write' }, undefined), (e) => e.error === 'invalid_dpop_proof', 'without a proof it gets nothing');
  const wrong = { client: keyed.client, auth: oauth.PrivateKeyJwt((await holder()).pair.privateKey) };
  await assert.rejects(signIn(wrong, { scope: 'audit:write' }, key.handle(keyed.client)), (e) => e instanceof oauth.WWWAuthenticateChallengeError && e.status === 401, 'invalid_client');
}

// A public client: code and refresh token are bound to its key as well.
{
  const redirect = 'http://127.0.0.1:45455/cb';
  const client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, {
    client_name: 'dpop', redirect_uris: [redirect], grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'none',
  }, http));
  const key = await holder();
  const DPoP = key.handle(client);
  const verifier = oauth.generateRandomCodeVerifier();
  const url = new URL(as.authorization_endpoint);
  const query = { client_id: client.client_id, redirect_uri: redirect, response_type: 'code', scope: 'kavach:verify', resource: mcp.href, code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256' };
  for (const [k, v] of Object.entries(query)) url.searchParams.set(k, v);
  const params = oauth.validateAuthResponse(as, client, await new Person({ issuer: issuer.origin }).authorize(url), oauth.expectNoState);
  const tokens = await twice(
    () => oauth.authorizationCodeGrantRequest(as, client, oauth.None(), params, redirect, verifier, { ...http, DPoP }),
    (response) => oauth.processAuthorizationCodeResponse(as, client, response),
  );
  assert.equal(tokens.token_type, 'dpop');
  bound(tokens.access_token, key.jkt);
  assert.equal((await call(tokens.access_token, DPoP)).result.structuredContent.valid, true);

  const refresh = (token, proof) => twice(
    () => oauth.refreshTokenGrantRequest(as, client, oauth.None(), token, { ...http, DPoP: proof }),
    (response) => oauth.processRefreshTokenResponse(as, client, response),
  );
  await assert.rejects(refresh(tokens.refresh_token, undefined), (e) => ['invalid_dpop_proof', 'invalid_grant'].includes(e.error), 'without a proof');
  await assert.rejects(refresh(tokens.refresh_token, (await holder()).handle(client)), (e) => ['invalid_dpop_proof', 'invalid_grant'].includes(e.error), 'with a proof by another key');
  const next = await refresh(tokens.refresh_token, DPoP);
  assert.equal(next.token_type, 'dpop');
  assert.notEqual(next.refresh_token, tokens.refresh_token);
  bound(next.access_token, key.jkt);
  assert.equal((await call(next.access_token, DPoP)).result.structuredContent.valid, true);
}

// Token exchange: an agent hands on less than it holds.
const reviewer = JSON.parse(process.env.REVIEWER);
const receiving = await jose.importJWK(JSON.parse(process.env.HOLDER), 'Ed25519');
assert.ok(receiving);
const { d, ...receivingPublic } = JSON.parse(process.env.HOLDER);
const receivingJkt = await jose.calculateJwkThumbprint(receivingPublic);
for (const [i, agent] of agents.entries()) {
  const key = await holder();
  const DPoP = key.handle(agent.client);
  const held = await signIn(agent, [['scope', 'archive:read archive:write plain:read'], ['resource', AWARE], ['resource', PLAIN]], DPoP);
  const exchange = (parameters) => twice(
    () => oauth.genericTokenEndpointRequest(as, agent.client, agent.auth, 'urn:ietf:params:oauth:grant-type:token-exchange', new URLSearchParams({
      subject_token: held.access_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', ...parameters,
    }), { ...http, DPoP }),
    (response) => oauth.processGenericTokenEndpointResponse(as, agent.client, response),
  );
  const check = async (answer, audience, scope, jkt) => {
    assert.equal(answer.issued_token_type, 'urn:ietf:params:oauth:token-type:access_token');
    assert.equal(answer.token_type, 'dpop');
    assert.equal(answer.scope, scope);
    assert.ok(answer.expires_in > 0 && answer.expires_in <= held.expires_in);
    const { payload, protectedHeader } = await jose.jwtVerify(answer.access_token, keys, { issuer: issuer.origin, audience, typ: 'at+jwt', clockTolerance: 0 });
    assert.equal(payload.sub, agent.client.client_id, 'on the same authority');
    assert.equal(payload.scope, scope);
    assert.equal(payload.cnf.jkt, jkt);
    assert.deepEqual([payload.aud].flat(), [audience]);
    return { payload, protectedHeader };
  };

  // For the reviewer, whose card says which key is its own; a kavach-aware
  // resource gets a root that links can be appended to.
  const handed = await check(await exchange({ actor_token: i ? process.env.CARD2 : process.env.CARD, actor_token_type: 'urn:kavach:token-type:agent-key', resource: AWARE, scope: 'archive:read' }), AWARE, 'archive:read', receivingJkt);
  assert.equal(handed.payload.client_id, reviewer.id);
  assert.equal(handed.payload.act.sub, reviewer.id, 'who uses it stands outermost');
  assert.notEqual(handed.payload.act.proved, false, 'and is proved by its card');
  assert.ok(handed.payload.anc.includes(key.jkt), 'what it came from can still be revoked');
  assert.equal(handed.protectedHeader.alg, 'Ed25519');
  assert.deepEqual(handed.payload.cnf.jwk, receivingPublic);

  // For a resource that knows nothing of kavach: a plain token, ES256.
  const plain = await check(await exchange({ req_cnf: JSON.stringify({ jwk: receivingPublic }), resource: PLAIN, scope: 'plain:read' }), PLAIN, 'plain:read', receivingJkt);
  assert.equal(plain.protectedHeader.alg, 'ES256');
  assert.deepEqual(plain.payload.cnf, { jkt: receivingJkt });
  assert.equal(plain.payload.del_depth, undefined);

  // For itself: less, with the same key.
  await check(await exchange({ resource: AWARE, scope: 'archive:write' }), AWARE, 'archive:write', key.jkt);

  // Never more.
  await assert.rejects(exchange({ resource: AWARE, scope: 'archive:read kavach:verify' }), (e) => e.error === 'invalid_scope');
  await assert.rejects(exchange({ resource: mcp.href, scope: '' }), (e) => e.error === 'invalid_target');
}
// With --dpop-nonce both endpoints asked for a nonce, without it neither did.
for (const [where, times] of Object.entries(asked)) assert.equal(times > 0, nonces, `${where} endpoint: ${times} times asked for a nonce`);
process.stderr.write('ok keys\n');

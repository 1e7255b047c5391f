// oauth.mjs drives the authorization server with oauth4webapi, which checks every
// answer against the RFCs: metadata, registration, code with PKCE and iss,
// resource indicators, refresh, introspection, revocation, client credentials.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import { Person } from './person.mjs';

const issuer = new URL(process.env.ISSUER);
const http = { [oauth.allowInsecureRequests]: true };
const person = new Person({ issuer: issuer.origin });
const redirect = 'http://127.0.0.1:45454/cb';

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }));
assert.equal(as.authorization_response_iss_parameter_supported, true);
assert.deepEqual(as.code_challenge_methods_supported, ['S256']);

const registered = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, {
  client_name: 'oauth4webapi', redirect_uris: [redirect], grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'client_secret_basic',
}, http));
assert.ok(registered.client_secret, 'a confidential registration gets a secret');

// Introspection is for clients that an operator added, so one of those does the rest.
const client = { client_id: process.env.WEB_ID };
const auth = oauth.ClientSecretBasic(process.env.WEB_SECRET);
await assert.rejects(async () => oauth.processIntrospectionResponse(as, { client_id: registered.client_id }, await oauth.introspectionRequest(as, { client_id: registered.client_id }, oauth.ClientSecretBasic(registered.client_secret), 'x', http)), (e) => e.error === 'unauthorized_client');

async function code({ scope, resource, decision, state }) {
  const verifier = oauth.generateRandomCodeVerifier();
  const url = new URL(as.authorization_endpoint);
  const query = { client_id: client.client_id, redirect_uri: redirect, response_type: 'code', scope, resource, code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256' };
  for (const [k, v] of Object.entries(query)) url.searchParams.set(k, v);
  if (state) url.searchParams.set('state', state);
  const back = await person.authorize(url, { decision });
  assert.equal(back.origin + back.pathname, redirect);
  const params = oauth.validateAuthResponse(as, client, back, state ?? oauth.expectNoState);
  return { params, verifier };
}

// Code grant, with and without state.
for (const state of [undefined, oauth.generateRandomState()]) {
  const { params, verifier } = await code({ scope: 'kavach:verify kavach:audit', resource: `${issuer.origin}/mcp`, decision: 'approve', state });
  const response = await oauth.authorizationCodeGrantRequest(as, client, auth, params, redirect, verifier, { ...http, additionalParameters: { resource: `${issuer.origin}/mcp` } });
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, response);
  assert.equal(tokens.token_type, 'bearer');
  assert.equal(tokens.scope, 'kavach:audit kavach:verify');

  const claims = await oauth.validateJwtAccessToken(as, new Request(`${issuer.origin}/mcp`, { headers: { authorization: `Bearer ${tokens.access_token}` } }), `${issuer.origin}/mcp`, http);
  assert.equal(claims.client_id, client.client_id);

  // Its owner may introspect it.
  const seen = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, tokens.access_token, http));
  assert.equal(seen.active, true);
  assert.equal(seen.scope, 'kavach:audit kavach:verify');

  const refreshed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, http));
  assert.notEqual(refreshed.refresh_token, tokens.refresh_token);
  assert.equal(refreshed.scope, 'kavach:audit kavach:verify');

  const narrowed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, refreshed.refresh_token, { ...http, additionalParameters: { scope: 'kavach:verify' } }));
  assert.equal(narrowed.scope, 'kavach:verify');

  await assert.rejects(async () => oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, narrowed.refresh_token, { ...http, additionalParameters: { scope: 'kavach:verify agents:manage' } })), (e) => e.error === 'invalid_scope');

  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, narrowed.refresh_token, http));
  const dead = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, narrowed.access_token, http));
  assert.deepEqual(dead, { active: false }, 'revoking the refresh token kills the grant and says nothing more');
  await assert.rejects(async () => oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, narrowed.refresh_token, http)), (e) => e.error === 'invalid_grant');
}

// Deny comes back as a well-formed error with iss.
await assert.rejects(code({ scope: 'kavach:agents kavach:verify kavach:delegate', resource: `${issuer.origin}/mcp`, decision: 'deny', state: 'abc' }), (e) => ['access_denied', 'invalid_scope'].includes(e.error));
await assert.rejects(code({ scope: 'kavach:verify kavach:delegate', resource: `${issuer.origin}/mcp`, decision: 'deny', state: 'abc' }), (e) => e.error === 'access_denied');

// Client credentials of a static client, by both ways of sending the secret its registration allows.
for (const [id, secret, method] of [[process.env.BASIC_ID, process.env.BASIC_SECRET, oauth.ClientSecretBasic], [process.env.POST_ID, process.env.POST_SECRET, oauth.ClientSecretPost]]) {
  const machine = { client_id: id };
  const tokens = await oauth.processClientCredentialsResponse(as, machine, await oauth.clientCredentialsGrantRequest(as, machine, method(secret), new URLSearchParams({ scope: 'audit:write' }), http));
  assert.equal(tokens.scope, 'audit:write');
  const other = method === oauth.ClientSecretBasic ? oauth.ClientSecretPost : oauth.ClientSecretBasic;
  await assert.rejects(async () => oauth.processClientCredentialsResponse(as, machine, await oauth.clientCredentialsGrantRequest(as, machine, other(secret), new URLSearchParams(), http)), (e) => e.error === 'invalid_client' || e instanceof oauth.WWWAuthenticateChallengeError, 'only the registered method is taken');
}
process.stderr.write('ok oauth\n');

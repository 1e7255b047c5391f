// resource-server.mjs is somebody else's resource server: it knows nothing of
// kavach but its issuer, and verifies tokens with jose.
import http from 'node:http';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const { ISSUER, AUDIENCE, SCOPE } = process.env;
const metadata = await (await fetch(`${ISSUER}/.well-known/oauth-authorization-server`)).json();
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));

const server = http.createServer(async (request, response) => {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ');
  const answer = (status, body) => { response.writeHead(status, { 'content-type': 'application/json' }); response.end(JSON.stringify(body)); };
  if (scheme?.toLowerCase() !== 'bearer' || !token) return answer(401, { error: 'no token' });
  try {
    const { payload } = await jwtVerify(token, keys, { issuer: ISSUER, audience: AUDIENCE, typ: 'at+jwt', clockTolerance: 0 });
    if (!payload.scope.split(' ').includes(SCOPE)) return answer(403, { error: 'insufficient_scope' });
    answer(200, { sub: payload.sub, act: payload.act, client_id: payload.client_id });
  } catch (error) {
    answer(401, { error: error.code ?? 'invalid_token' });
  }
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`READY http://127.0.0.1:${server.address().port}\n`));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));

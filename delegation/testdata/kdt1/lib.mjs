// What the vectors are made with: keys from names, signatures without chance,
// tokens and proofs as delegation.md says. It knows how to write a chain, right
// or wrong, and nothing of how to verify one, and shares no code with the
// verifier. Node's crypto signs Ed25519 and RS256, which are deterministic;
// ES256 is RFC 6979 by hand, because node's is not.
import {createHash, createHmac, createPrivateKey, createPublicKey, checkPrimeSync, sign as nodeSign} from 'node:crypto'

export const NOW = 1795000000
export const ISSUER = 'https://kavach.example'
export const GIT = 'https://git.example/api'
export const OTHER = 'https://wiki.example/api'
export const URL = GIT + '/diff'
export const ALICE = 'usr_alice'

export const b64 = data => Buffer.from(data).toString('base64url')
export const sha256 = data => createHash('sha256').update(data).digest()
export const digest = data => b64(sha256(data))

// Raw is JSON text that stands as it is: 1.0, a member twice, a lone surrogate.
export class Raw { constructor(text) { this.text = text } }
export const raw = text => new Raw(text)

// canon writes JSON with sorted members (RFC 8785 for what is used here).
// undefined members are left out.
export function canon(v) {
  if (v instanceof Raw) return v.text
  if (Array.isArray(v)) return '[' + v.map(canon).join(',') + ']'
  if (v === null || typeof v !== 'object') return JSON.stringify(v)
  const names = Object.keys(v).filter(n => v[n] !== undefined).sort()
  return '{' + names.map(n => JSON.stringify(n) + ':' + canon(v[n])).join(',') + '}'
}

// ---- P-256 (FIPS 186-5, RFC 6979) ----
const P = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
export const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
const G = [0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296n,
  0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n]
const mod = (a, m) => ((a % m) + m) % m
export function invert(a, m) {
  let [r0, r1, s0, s1] = [mod(a, m), m, 1n, 0n]
  while (r1) { const q = r0 / r1; [r0, r1, s0, s1] = [r1, r0 - q * r1, s1, s0 - q * s1] }
  return mod(s0, m)
}
function add(p, q) {
  if (!p) return q
  if (!q) return p
  if (p[0] === q[0] && p[1] !== q[1]) return null
  const slope = p[0] === q[0] ? mod(3n * (p[0] * p[0] - 1n) * invert(2n * p[1], P), P) : mod((q[1] - p[1]) * invert(q[0] - p[0], P), P)
  const x = mod(slope * slope - p[0] - q[0], P)
  return [x, mod(slope * (p[0] - x) - p[1], P)]
}
function times(k, p) {
  let sum = null
  for (; k; k >>= 1n) { if (k & 1n) sum = add(sum, p); p = add(p, p) }
  return sum
}
export const bytes32 = n => Buffer.from(n.toString(16).padStart(64, '0'), 'hex')
export const number = bytes => BigInt('0x' + Buffer.from(bytes).toString('hex'))
const hmac = (key, ...parts) => parts.reduce((h, p) => h.update(p), createHmac('sha256', key)).digest()

function es256(d, message) {
  const h = sha256(message), z = mod(number(h), N)
  let V = Buffer.alloc(32, 1), K = Buffer.alloc(32, 0)
  const seed = Buffer.concat([bytes32(d), bytes32(z)])
  for (const b of [0, 1]) { K = hmac(K, V, Buffer.from([b]), seed); V = hmac(K, V) }
  for (;;) {
    V = hmac(K, V)
    const k = number(V)
    if (k > 0n && k < N) {
      const r = mod(times(k, G)[0], N), s = mod(invert(k, N) * (z + r * d), N)
      if (r && s) return Buffer.concat([bytes32(r), bytes32(s)])
    }
    K = hmac(K, V, Buffer.from([0])); V = hmac(K, V)
  }
}

// ---- keys ----
const SEED = 'kavach KDT-1 test vectors, key of '
export const keys = {}
function keep(name, key) {
  key.name = name
  // RFC 7638: the required members in lexicographic order.
  const required = key.jwk.kty === 'OKP' ? ['crv', 'kty', 'x'] : key.jwk.kty === 'EC' ? ['crv', 'kty', 'x', 'y'] : ['e', 'kty', 'n']
  key.jkt = digest('{' + required.map(n => JSON.stringify(n) + ':' + JSON.stringify(key.jwk[n])).join(',') + '}')
  key.uri = 'urn:ietf:params:oauth:jwk-thumbprint:sha-256:' + key.jkt
  return keys[name] = key
}
export function ed25519(name) {
  const seed = sha256(SEED + name)
  const secret = createPrivateKey({key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8'})
  const {kty, crv, x} = createPublicKey(secret).export({format: 'jwk'})
  return keep(name, {alg: 'Ed25519', jwk: {kty, crv, x}, private: {kty, crv, x, d: b64(seed)}, sign: m => nodeSign(null, Buffer.from(m), secret)})
}
export function p256(name) {
  const d = mod(number(sha256(SEED + name)), N - 1n) + 1n
  const [x, y] = times(d, G).map(bytes32).map(b64)
  const jwk = {kty: 'EC', crv: 'P-256', x, y}
  return keep(name, {alg: 'ES256', jwk, private: {...jwk, d: b64(bytes32(d))}, sign: m => es256(d, m)})
}
export function rsa(name) {
  const e = 65537n
  const prime = which => {
    let candidate = number(Buffer.concat([0, 1, 2, 3].map(i => sha256(`${SEED}${name} ${which} ${i}`)))) | (3n << 1022n) | 1n
    while (!checkPrimeSync(candidate, {checks: 40}) || (candidate - 1n) % e === 0n) candidate += 2n
    return candidate
  }
  const [p, q] = [prime('p'), prime('q')].sort((a, b) => a > b ? -1 : 1)
  const d = invert(e, (p - 1n) * (q - 1n))
  const text = n => { const h = n.toString(16); return b64(Buffer.from(h.length % 2 ? '0' + h : h, 'hex')) }
  const jwk = {kty: 'RSA', n: text(p * q), e: text(e)}
  const secret = {...jwk, d: text(d), p: text(p), q: text(q), dp: text(d % (p - 1n)), dq: text(d % (q - 1n)), qi: text(invert(q, p))}
  const key = createPrivateKey({key: secret, format: 'jwk'})
  return keep(name, {alg: 'RS256', jwk, private: secret, sign: m => nodeSign('sha256', Buffer.from(m), key)})
}
for (const name of ['at-ed', 'rv-1', 'mf-1', 'orch', 'rev', 'helper', 'k3', 'k4', 'k5', 'k6', 'k7', 'k8', 'mallory', 'foreign', 'identity']) ed25519(name)
for (const name of ['at-es', 'es-orch', 'es-rev', 'es-helper']) p256(name)
rsa('at-rs')

export const cnf = name => ({jwk: keys[name].jwk, jkt: keys[name].jkt})

// ---- tokens ----
let count = 0
export const restart = () => { count = 0 }
// uuid is a UUIDv7 that depends on its place in the vector alone.
export function uuid() {
  const time = (BigInt(NOW) * 1000n + BigInt(count)).toString(16).padStart(12, '0')
  const r = sha256(`jti ${count++}`).toString('hex')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${r.slice(0, 3)}-8${r.slice(3, 6)}-${r.slice(6, 18)}`
}

// seal signs. opt: by (key name), alg (header only), header (members to set; an
// undefined one is left out), headerText, payload (text or bytes as signed),
// edit (text → text), signature (bytes → bytes).
export function seal(header, claims, opt = {}) {
  const headerText = opt.headerText ?? canon({alg: keys[opt.by].alg, ...header, ...opt.header})
  let payload = opt.payload ?? canon(claims)
  if (opt.edit) {
    const edited = opt.edit(payload)
    if (edited === payload) throw new Error('an edit that changes nothing')
    payload = edited
  }
  const input = b64(headerText) + '.' + b64(payload)
  let signature = keys[opt.by].sign(input)
  if (opt.signature) signature = opt.signature(signature, input)
  return {text: input + '.' + b64(signature), input, lid: digest(input), claims, headerText}
}

export const TOOLS = 'attenuating_agent_token'
export const LIMITS = 'kavach_limits'
// details is the value of authorization_details.
export const details = (tools = {}, limits) => [{type: TOOLS, tools}, ...(limits ? [{type: LIMITS, ...limits}] : [])]

export function root(over = {}, opt = {}) {
  const key = opt.key ?? 'orch'
  const claims = {
    iss: ISSUER, sub: ALICE, client_id: 'orchestrator', aud: [GIT], iat: NOW - 60, exp: NOW + 240, jti: uuid(),
    scope: 'comment:write pullrequest:read repository:read', gid: 'gnt_1', cnf: cnf(key),
    authorization_details: details(), del_depth: 0, del_max_depth: 3, ...over,
  }
  const by = opt.by ?? 'at-ed'
  return {...seal({typ: 'at+jwt', kid: by}, claims, {...opt, by}), key}
}
// plain is a token of one part; key binds it.
export function plain(over = {}, opt = {}) {
  const by = opt.by ?? 'at-ed'
  const claims = {
    iss: ISSUER, sub: ALICE, client_id: 'client', aud: [GIT], iat: NOW - 60, exp: NOW + 240, jti: uuid(),
    scope: 'comment:write repository:read', gid: 'gnt_1', cnf: opt.key && {jkt: keys[opt.key].jkt}, ...over,
  }
  return {...seal({typ: 'at+jwt', kid: by}, claims, {...opt, by}), key: opt.key}
}
const holders = ['orch', 'rev', 'helper', 'k3', 'k4', 'k5', 'k6', 'k7', 'k8', 'mallory']
export function link(parent, over = {}, opt = {}) {
  const p = parent.claims, depth = (p.del_depth ?? 0) + 1
  const key = opt.key ?? holders[depth]
  const claims = {
    iss: keys[parent.key ?? 'orch'].uri, sub: p.sub, client_id: ['', 'reviewer', 'helper'][depth] || 'agent' + depth, aud: p.aud,
    iat: p.iat, exp: p.exp, jti: uuid(), scope: p.scope, cnf: cnf(key), authorization_details: p.authorization_details ?? details(),
    del_depth: depth, del_max_depth: p.del_max_depth ?? 3, par_hash: parent.lid, ...over,
  }
  const by = opt.by ?? parent.key ?? 'orch'
  return {...seal({typ: 'aat+jwt'}, claims, {...opt, by}), key}
}
// line is a chain of n tokens; overs[i] changes the i-th.
export function line(n, ...overs) {
  const list = [root({del_max_depth: 8, ...overs[0]})]
  while (list.length < n) list.push(link(list.at(-1), overs[list.length]))
  return list
}
export const join = list => list.map(t => t.text ?? t).join('~')

// ---- proofs ----
export function dpop(key, token, over = {}, opt = {}) {
  const claims = {htm: 'GET', htu: URL, iat: NOW, jti: 'proof-1', ath: digest(token), ...over}
  return seal({typ: 'dpop+jwt', jwk: keys[key].jwk}, claims, {by: key, ...opt}).text
}
export function aat(leaf, over = {}, opt = {}) {
  const claims = {
    jti: 'proof-1', iat: NOW, aat_id: leaf.claims.jti, aat_hash: leaf.lid, aat_tool: 'read_file', hta: {}, aat_aud: GIT, ...over,
  }
  return seal({typ: 'aat-pop+jwt'}, claims, {by: leaf.key, ...opt}).text
}
export const replayKey = (key, jti = 'proof-1') => digest(keys[key].jkt + jti)

// ---- vectors ----
export const vectors = []
const ids = new Set()

// vector adds one. build returns what the verifier gets; what it leaves out is
// a request that nothing is wrong with:
//   chain     tokens that are joined, or token, the string itself
//   scheme    of the Authorization header; carrier 'meta' has none
//   credentials, proofs   whole, instead
//   proof     (token, leaf) → text of a DPoP proof
//   request, now, audience, method, url, policy, revoked, state
export function vector(id, title, covers, build, expected) {
  if (ids.has(id)) throw new Error('two vectors ' + id)
  ids.add(id)
  restart()
  const made = build()
  const want = typeof expected === 'function' ? expected(made) : expected
  const chain = made.chain
  const token = made.token ?? join(chain)
  const leaf = chain?.at(-1)
  const v = {id, title, covers: [covers].flat()}
  for (const name of ['now', 'issuer', 'audience', 'anchors', 'method', 'url', 'policy']) if (made[name] !== undefined) v[name] = made[name]
  const key = made.proofKey ?? leaf?.key
  if (made.credentials) v.credentials = made.credentials
  else if (made.carrier === 'meta') v.credentials = [{carrier: 'meta', chain: token.split('~')}]
  else v.credentials = [{carrier: 'authorization', scheme: made.scheme ?? (key ? 'DPoP' : 'Bearer'), token}]
  if (made.proofs !== undefined) { if (made.proofs) v.proofs = made.proofs }
  else if (made.carrier === 'meta') v.proofs = [{type: 'aat', text: made.pop ?? aat(leaf, made.aat)}]
  else v.proofs = key ? [{type: 'dpop', text: dpop(key, token, made.dpop)}] : []
  if (made.request !== null) v.request = made.request ?? {scopes: [['repository:read']]}
  if (made.revoked !== null) v.revoked = made.revoked ?? {}
  if (made.state) v.state = made.state
  v.expected = want.verdict === 'refuse' ? want : {
    verdict: want.verdict, unchecked: want.unchecked ?? [], ...answer(chain), ...(want.debits && {debits: want.debits}), ...(want.obligations && {obligations: want.obligations}),
  }
  vectors.push(v)
}
// answer is "{principal, path [{lid, jti, client_id, confirmed, jkt, exp}], exp = leaf.exp}".
function answer(chain) {
  const first = chain[0].claims
  return {
    principal: first.sub, exp: chain.at(-1).claims.exp,
    path: chain.map((t, i) => ({
      lid: t.lid, jti: t.claims.jti, client_id: t.claims.client_id,
      // "a label unless confirmed by a key card": the server authenticated the client of a root, or says that it did not.
      confirmed: i === 0 && !(first.act?.proved === false && first.act.sub === first.client_id),
      jkt: t.claims.cnf?.jkt ?? '', exp: t.claims.exp,
    })),
  }
}
export const permit = (more = {}) => ({verdict: 'permit', ...more})
export const valid = unchecked => ({verdict: 'chain_valid', unchecked})
// refuse names the step, the reason, the token (null where it is not about one)
// and, where the step has parts, the dimension.
export const refuse = (step, reason, link = null, dimension, detail) => ({verdict: 'refuse', step, reason, link, ...(dimension && {dimension}), ...(detail && {detail})})

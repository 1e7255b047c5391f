// Steps 0 to 13 of delegation.md §6: what a token has to be.
import {createHmac} from 'node:crypto'
import {bytes32, cnf, digest, GIT, ISSUER, join, keys, line, link, N, NOW, number, OTHER, permit, plain, refuse, root, vector} from './lib.mjs'

const malformed = (link = null) => refuse(0, 'malformed', link)
const tooLarge = refuse(0, 'too_large')
const whole = text => () => ({token: text, proofs: []})
const three = () => { const r = root(), l = link(r); return [r, l, link(l)] }

// ---- 0 ----
const S0 = '§6.0'
const charset = (id, title, edit, more = []) => vector('0-charset-' + id, title, [S0, ...more], () => {
  const chain = [root()]
  return {chain, token: edit(join(chain))}
}, malformed())
charset('space-after', 'a space behind the token', t => t + ' ', ['§12:JSON serialisation, whitespace, non-canonical base64'])
charset('space-inside', 'a space inside the token', t => t.slice(0, 9) + ' ' + t.slice(9), ['§12:JSON serialisation, whitespace, non-canonical base64'])
charset('newline', 'a newline behind the token', t => t + '\n', ['§12:JSON serialisation, whitespace, non-canonical base64'])
charset('padding', 'base64url with padding', t => t + '=', ['§12:JSON serialisation, whitespace, non-canonical base64'])
charset('plus', 'the alphabet of plain base64', t => t.slice(0, -1) + '+', ['§12:JSON serialisation, whitespace, non-canonical base64'])
charset('comma', 'two tokens in one credential, with a comma', t => t + ',' + t, ['§12:two credentials in one request'])
charset('percent', 'percent-encoding', t => t.replace('.', '%2E'))
charset('unicode', 'a letter that looks like a dot', t => t.replace('.', '․'), ['§12:Unicode, case and normalisation'])
charset('nul', 'a NUL behind the token', t => t + '\0')
const parts = (id, title, text, more = []) => vector('0-parts-' + id, title, [S0, ...more], whole(text), malformed())
parts('nothing', 'an empty credential', '')
parts('word', 'a token without a dot', 'token')
parts('two', 'two segments', 'e30.e30')
parts('four', 'four segments', 'e30.e30.e30.e30')
parts('jwe', 'five segments, as encrypted JWTs have', 'e30.e30.e30.e30.e30')
parts('json', 'the JSON serialisation of a JWS', '{"payload":"e30","signatures":[{"protected":"e30","signature":"e30"}]}', ['§12:JSON serialisation, whitespace, non-canonical base64'])
vector('0-parts-trailing', 'a separator behind the last token', [S0], () => { const chain = [root()]; return {chain, token: join(chain) + '~'} }, malformed())
vector('0-parts-leading', 'a separator before the first token', [S0], () => { const chain = [root()]; return {chain, token: '~' + join(chain)} }, malformed())
vector('0-parts-empty', 'an empty token between two', [S0], () => { const chain = line(2); return {chain, token: chain[0].text + '~~' + chain[1].text} }, malformed())
vector('0-parts-nine', 'nine tokens', [S0], () => ({chain: line(9), carrier: 'meta', aat: {}, request: {scopes: [['repository:read']], tool: {name: 'read_file', args_text: '{}'}}}), permit())
vector('0-parts-ten', 'ten tokens', [S0, '§12:huge chain, deep JSON, constraint bomb'], () => { const chain = line(9); return {chain, token: join(chain) + '~' + chain[8].text, proofs: []} }, tooLarge)
vector('0-parts-hundred', 'a hundred links of three bytes', [S0, '§12:huge chain, deep JSON, constraint bomb'], whole(root().text + '~e.e.e'.repeat(100)), tooLarge)
vector('0-order-charset', 'ten tokens and a space: malformed comes first', [S0], () => ({token: Array(10).fill('e30.e30.e30').join('~') + ' ', proofs: []}), malformed())
vector('0-order-base64', 'ten tokens whose base64url is not canonical: too_large comes first', [S0], () => ({token: Array(10).fill('e31.e31.e31').join('~'), proofs: []}), tooLarge)

// padded makes the last token of a chain so large that `size` is what it has to be.
function padded(make, size, want) {
  for (let n = Math.floor((want - size(make(''))) * 3 / 4) - 8; ; n++) {
    const chain = make('x'.repeat(n))
    const got = size(chain)
    if (got === want) return chain
    if (got > want + 8) throw new Error('no such size ' + want)
  }
}
// base64url text has no length of 1 mod 4, so it takes a header of another length
// to reach every size.
function exactly(make, size, want) {
  for (const extra of ['', 'y', 'yy', 'yyy']) {
    try { return padded(pad => make(pad, extra), size, want) } catch { /* the next */ }
  }
  throw new Error('size ' + want)
}
const whenCalled = {carrier: 'meta', request: {scopes: [['repository:read']], tool: {name: 'read_file', args_text: '{}'}}}
const bigLink = size => exactly((pad, extra) => { const r = root(); return [r, link(r, {y: pad}, {header: {x: extra}})] }, c => c[1].text.length, size)
vector('0-size-token', 'a link of 8192 bytes', [S0], () => ({chain: bigLink(8192), ...whenCalled}), permit())
vector('0-size-token-over', 'a link of 8193 bytes', [S0, '§12:huge chain, deep JSON, constraint bomb'], () => ({chain: bigLink(8193), ...whenCalled}), tooLarge)
const bigChain = size => {
  const list = [root({del_max_depth: 8})]
  while (list.length < 8) list.push(link(list.at(-1), {y: 'x'.repeat(4530)}))
  const rest = list.reduce((n, t) => n + t.text.length + 1, 0)
  const last = size - rest
  return exactly((pad, extra) => [...list, link(list.at(-1), {y: pad}, {header: {x: extra}})], c => c.at(-1).text.length, last)
}
vector('0-size-chain', 'a chain of 57344 bytes in a body', [S0], () => ({chain: bigChain(57344), ...whenCalled}), permit())
vector('0-size-chain-over', 'a chain of 57345 bytes in a body', [S0, '§12:huge chain, deep JSON, constraint bomb'], () => ({chain: bigChain(57345), ...whenCalled}), tooLarge)
const headerChain = size => {
  const r = root({}), l = link(r, {y: 'x'.repeat(1500)})
  return exactly((pad, extra) => [r, l, link(l, {y: pad}, {header: {x: extra}})], c => join(c).length, size)
}
vector('0-size-header', 'a chain of 7168 bytes in an Authorization header', [S0], () => ({chain: headerChain(7168)}), permit())
vector('0-size-header-over', 'a chain of 7169 bytes in an Authorization header', [S0, '§12:huge chain, deep JSON, constraint bomb'], () => ({chain: headerChain(7169)}), tooLarge)

// loose sets the trailing bits of a segment that has any.
function loose(text) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  if (text.length % 4 === 0) throw new Error('no trailing bits')
  return text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1)) | 1]
}
for (const [name, at] of [['header', 0], ['payload', 1], ['signature', 2]]) {
  for (const where of [0, 1]) {
    vector(`0-base64-${name}-${where}`, `trailing bits in the ${name} of ${where ? 'a link' : 'a root'}`, [S0, '§12:JSON serialisation, whitespace, non-canonical base64'], () => {
      for (let pad = ''; ; pad += 'x') {
        const r = root({x: pad}, {header: {x: pad}}), l = link(r, {x: pad}, {header: {x: pad}})
        const tokens = [r.text, l.text], segments = tokens[where].split('.')
        if (segments[at].length % 4 === 0) continue
        segments[at] = loose(segments[at])
        tokens[where] = segments.join('.')
        return {chain: [r, l], token: tokens.join('~')}
      }
    }, malformed())
  }
}
vector('0-base64-length', 'a segment of 1 mod 4 characters', [S0, '§12:JSON serialisation, whitespace, non-canonical base64'], () => {
  const chain = [root()]
  return {chain, token: join(chain) + 'AAA'.slice(0, (5 - chain[0].text.split('.')[2].length % 4) % 4)}
}, malformed())

// ---- 1 ----
const S1 = '§6.1'
const header = (id, title, reason, opt, more = [], where = [0, 1]) => {
  for (const at of where) {
    vector(`1-${id}-${at ? 'link' : 'root'}`, `${title}, in a ${at ? 'link' : 'root'}`, [S1, ...more], () => {
      const r = root({}, at ? {} : opt), l = link(r, {}, at ? opt : {})
      return {chain: [r, l]}
    }, refuse(1, reason, at))
  }
}
header('json', 'a header that is no JSON', 'malformed', {headerText: '{'})
header('empty', 'an empty header', 'malformed', {headerText: ''})
header('array', 'a header that is an array', 'malformed', {headerText: '["Ed25519","aat+jwt"]'})
header('utf8', 'a header with bytes that are no UTF-8', 'malformed', {headerText: Buffer.concat([Buffer.from('{"alg":"Ed25519","typ":"aat+jwt","x":"'), Buffer.from([0xff]), Buffer.from('"}')])})
header('twice', 'alg twice in the header', 'malformed', {headerText: '{"alg":"none","alg":"Ed25519","kid":"at-ed","typ":"aat+jwt"}'}, ['§12:duplicate members'])
header('twice-escaped', 'alg twice in the header, once as an escape', 'malformed', {headerText: '{"\\u0061lg":"none","alg":"Ed25519","kid":"at-ed","typ":"aat+jwt"}'}, ['§12:duplicate members'])
header('crit', 'a critical extension', 'malformed', {header: {crit: ['exp']}})
header('crit-empty', 'an empty list of critical extensions', 'malformed', {header: {crit: []}})
for (const typ of ['JWT', 'AT+JWT', 'application/at+jwt', 'at+jwt ', 'dpop+jwt', 'aat-pop+jwt', 'agent-manifest+jwt', 'agent-key+jwt', 'client-authentication+jwt', 'kavach-revocations+jwt', undefined]) {
  const kind = /dpop|pop|agent|client|JWT$/.test(typ ?? '') ? ['§12:a DPoP proof, manifest, card, assertion, id token used as a link and the reverse'] : ['§12:Unicode, case and normalisation']
  header('typ-' + (typ ?? 'none').replace(/[^A-Za-z-]/g, '_'), typ === undefined ? 'no typ' : `typ "${typ}"`, 'bad_typ', {header: {typ}}, kind)
}
vector('1-typ-at-link', 'typ of an access token in a link', [S1], () => { const r = root(); return {chain: [r, link(r, {}, {header: {typ: 'at+jwt'}})]} }, refuse(1, 'bad_typ', 1))
vector('1-typ-aat-root', 'typ aat+jwt in a root', [S1], () => ({chain: [root({}, {header: {typ: 'aat+jwt'}})]}), permit())
const confusion = '§12:algorithm confusion'
for (const alg of ['none', 'None', 'EdDSA', 'Ed448', 'ed25519', 'ES256', 'ES384', 'ES256K', 'PS256', 'RS256', 'HS256', '', undefined]) {
  header('alg-' + (alg === undefined ? 'absent' : alg || 'empty'), alg === undefined ? 'no alg' : `alg "${alg}" over an Ed25519 signature`, 'alg_not_allowed', {header: {alg}}, [confusion])
}
header('alg-none-unsigned', 'alg none and no signature', 'alg_not_allowed', {header: {alg: 'none'}, signature: () => Buffer.alloc(0)}, [confusion])
for (const at of [0, 1]) {
  const key = at ? 'orch' : 'at-ed'
  vector(`1-alg-hmac-raw-${at ? 'link' : 'root'}`, 'HS256 with the bytes of the public key as the secret', [S1, confusion], () => {
    const opt = {header: {alg: 'HS256'}, signature: (_, input) => createHmac('sha256', Buffer.from(keys[key].jwk.x, 'base64url')).update(input).digest()}
    const r = root({}, at ? {} : opt)
    return {chain: [r, link(r, {}, at ? opt : {})]}
  }, refuse(1, 'alg_not_allowed', at))
}
vector('1-alg-es-under-ed', 'an ES256 signature where the anchor is Ed25519', [S1, confusion], () => ({chain: [root({}, {by: 'at-es', header: {kid: 'at-ed'}})]}), refuse(1, 'alg_not_allowed', 0))
vector('1-alg-ed-under-es', 'an Ed25519 signature where the anchor is ES256', [S1, confusion], () => ({chain: [root({}, {by: 'at-ed', header: {kid: 'at-es'}})]}), refuse(1, 'alg_not_allowed', 0))
vector('1-alg-rs-under-es', 'an RS256 token where the anchor is ES256', [S1, confusion], () => ({chain: [plain({}, {by: 'at-rs', header: {kid: 'at-es'}})]}), refuse(1, 'alg_not_allowed', 0))
vector('1-alg-es-under-rs', 'an ES256 token where the anchor is RS256', [S1, confusion], () => ({chain: [plain({}, {by: 'at-es', header: {kid: 'at-rs'}})]}), refuse(1, 'alg_not_allowed', 0))
vector('1-alg-rs-root', 'a root signed with RS256', [S1, confusion], () => ({chain: [root({}, {by: 'at-rs'})]}), refuse(1, 'alg_not_allowed', 0))
vector('1-alg-rs-plain', 'a plain token signed with RS256', [S1], () => ({chain: [plain({}, {by: 'at-rs'})]}), permit())
vector('1-alg-es-plain', 'a plain token signed with ES256', [S1], () => ({chain: [plain({}, {by: 'at-es'})]}), permit())
vector('1-alg-es-root', 'a root signed with ES256, for an Ed25519 key', [S1], () => ({chain: [root({}, {by: 'at-es'})]}), permit())
vector('1-alg-mixed', 'a chain of both algorithms', [S1], () => {
  const r = root({}, {by: 'at-es', key: 'es-orch'}), l = link(r, {}, {key: 'rev'}), m = link(l, {}, {key: 'es-helper'})
  return {chain: [r, l, m]}
}, permit())
vector('1-alg-link-es-under-ed', 'a link signed ES256 below an Ed25519 key', [S1, confusion], () => { const r = root(); return {chain: [r, link(r, {}, {by: 'es-orch'})]} }, refuse(1, 'alg_not_allowed', 1))
vector('1-alg-link-ed-under-es', 'a link signed Ed25519 below an ES256 key', [S1, confusion], () => { const r = root({}, {key: 'es-orch'}); return {chain: [r, link(r, {}, {by: 'orch'})]} }, refuse(1, 'alg_not_allowed', 1))
const handed = '§12:header-supplied key'
for (const [name, value] of [['jwk', () => keys.mallory.jwk], ['jku', () => 'https://mallory.example/jwks.json'], ['x5u', () => 'https://mallory.example/cert'], ['x5c', () => ['MIIB']]]) {
  vector(`2-header-${name}-root`, `a root by somebody who hands over the key as ${name}`, ['§6.2', handed], () => ({chain: [root({}, {by: 'mallory', header: {kid: 'at-ed', [name]: value()}})]}), refuse(2, 'signature_invalid', 0))
  vector(`2-header-${name}-link`, `a link by somebody who hands over the key as ${name}`, ['§6.2', handed], () => { const r = root(); return {chain: [r, link(r, {}, {by: 'mallory', header: {[name]: value()}})]} }, refuse(2, 'signature_invalid', 1))
  vector(`1-header-${name}-ignored`, `${name} beside the right signature is not read`, [S1, handed], () => { const r = root({}, {header: {[name]: value()}}); return {chain: [r, link(r, {}, {header: {[name]: value()}})]} }, permit())
}
vector('1-kid-link-ignored', 'a kid in a link is ignored', [S1], () => { const r = root(); return {chain: [r, link(r, {}, {header: {kid: 'at-es'}})]} }, permit())
vector('1-spelling', 'a header with spaces, in another order and with unknown members', [S1], () => {
  const r = root(); return {chain: [r, link(r, {}, {headerText: ' { "typ" : "aat\\u002bjwt" , "cty":"x", "alg" : "Ed25519" } '})]}
}, permit())

// ---- 2 ----
const S2 = '§6.2', injection = '§12:kid injection and a kid of another purpose or issuer'
const kid = (id, title, value, more = []) => vector('2-kid-' + id, title, [S2, injection, ...more], () => ({chain: [root({}, {header: {kid: value}})]}), refuse(2, 'unknown_root', 0))
kid('absent', 'no kid', undefined)
kid('empty', 'an empty kid', '')
kid('unknown', 'the kid of nobody', 'at-nobody')
kid('case', 'a kid in capitals', 'AT-ED')
kid('path', 'a kid that is a path', 'at-ed/../at-es')
kid('sql', "a kid that is SQL", "at-ed' OR '1'='1")
kid('nul', 'a kid with a NUL', 'at-ed\0')
kid('prototype', 'a kid that JavaScript objects have', '__proto__', ['§12:prototype names as tool or argument'])
kid('constructor', 'another kid that JavaScript objects have', 'constructor', ['§12:prototype names as tool or argument'])
kid('long', 'a kid of 65 characters', 'at-' + 'a'.repeat(62))
for (const purpose of ['rv-1', 'mf-1']) {
  vector('2-kid-' + purpose, `signed by the key ${purpose}, which stands in the key set for another purpose`, [S2, injection], () => ({chain: [root({}, {by: purpose})]}), refuse(2, 'unknown_root', 0))
}
vector('2-kid-order', 'alg none and an unknown kid: the algorithm comes first', [S2], () => ({chain: [root({}, {header: {alg: 'none', kid: 'at-nobody'}})]}), refuse(1, 'alg_not_allowed', 0))
vector('2-kid-of-another-anchor', 'the kid of another anchor of the same algorithm', [S2, injection], () => ({
  chain: [root({}, {header: {kid: 'at-2'}})], anchors: [{kid: 'at-ed', jwk: keys['at-ed'].jwk}, {kid: 'at-2', jwk: keys.foreign.jwk}],
}), refuse(2, 'signature_invalid', 0))
vector('2-kid-same-elsewhere', 'a root of another server whose key has the same kid', [S2, injection, '§12:cross-issuer'], () => ({chain: [root({iss: 'https://other.example'}, {by: 'foreign', header: {kid: 'at-ed'}})]}), refuse(2, 'signature_invalid', 0))
vector('2-kid-rotated', 'a root under a key that is no longer in the set', [S2], () => ({chain: [root()], anchors: [{kid: 'at-es', jwk: keys['at-es'].jwk}]}), refuse(2, 'unknown_root', 0))
vector('2-suffix', 'a link without its root', [S2, '§12:truncated to a prefix; suffix alone'], () => { const c = three(); return {chain: [c[1]]} }, refuse(2, 'unknown_root', 0))
vector('2-suffix-long', 'two links without their root', [S2, '§12:truncated to a prefix; suffix alone'], () => { const c = three(); return {chain: [c[1], c[2]]} }, refuse(2, 'unknown_root', 0))

const signature = (id, title, opt, {key, at = 0, covers = []} = {}) => vector('2-signature-' + id, title, [S2, ...covers], () => {
  const r = root({}, {...(key && {by: 'at-es', key: 'es-orch'}), ...(at ? {} : opt)})
  return {chain: at ? [r, link(r, {}, opt)] : [r]}
}, refuse(2, 'signature_invalid', at))
const flip = at => s => { const t = Buffer.from(s); t[at] ^= 1; return t }
for (const at of [0, 1]) {
  const name = at ? 'link' : 'root'
  signature('flip-' + name, `one bit of the signature of a ${name}`, {signature: flip(5)}, {at})
  signature('flip-es-' + name, `one bit of the ES256 signature of a ${name}`, {signature: flip(40)}, {at, key: true})
  signature('empty-' + name, `no signature, in a ${name}`, {signature: () => Buffer.alloc(0)}, {at})
  signature('short-' + name, `a signature of 63 bytes, in a ${name}`, {signature: s => s.subarray(0, 63)}, {at})
  signature('long-' + name, `a signature of 65 bytes, in a ${name}`, {signature: s => Buffer.concat([s, Buffer.alloc(1)])}, {at})
  signature('zero-es-' + name, `r = s = 0, in a ${name}`, {signature: () => Buffer.alloc(64)}, {at, key: true})
  signature('order-es-' + name, `r = s = n, in a ${name}`, {signature: () => Buffer.concat([bytes32(N), bytes32(N)])}, {at, key: true})
  signature('der-' + name, `an ES256 signature in DER, in a ${name}`, {signature: der}, {at, key: true})
}
function der(s) {
  const integer = b => { let i = 0; while (i < 31 && b[i] === 0) i++; b = b.subarray(i); if (b[0] & 0x80) b = Buffer.concat([Buffer.alloc(1), b]); return Buffer.concat([Buffer.from([2, b.length]), b]) }
  const body = Buffer.concat([integer(s.subarray(0, 32)), integer(s.subarray(32))])
  return Buffer.concat([Buffer.from([0x30, body.length]), body])
}
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n
signature('plus-order', 'an Ed25519 signature with S + L', {signature: s => {
  const big = number(Buffer.from(s.subarray(32)).reverse()) + ORDER
  return Buffer.concat([s.subarray(0, 32), bytes32(big).reverse()])
}})
vector('2-signature-es-twin', 'ES256 (r, n − s): the other signature of the same bytes. The token is the same, its lid too', [S2], () => ({
  chain: [root({}, {by: 'at-es', signature: s => Buffer.concat([s.subarray(0, 32), bytes32(N - number(s.subarray(32)))])})],
}), permit())
vector('2-signature-other-bytes', 'the signature is of another token', [S2, '§12:splicing a child under another parent of the same key'], () => {
  const a = root(), b = root({scope: 'repository:read repository:write'})
  return {chain: [b], token: b.input + '.' + a.text.split('.')[2]}
}, refuse(2, 'signature_invalid', 0))
vector('2-signature-by-holder', 'a root signed by its own holder', [S2], () => ({chain: [root({}, {by: 'orch', header: {kid: 'at-ed'}})]}), refuse(2, 'signature_invalid', 0))
vector('2-link-by-its-holder', 'a link signed by the key it is for', [S2, '§12:substituted cnf'], () => { const r = root(); return {chain: [r, link(r, {}, {by: 'rev'})]} }, refuse(2, 'signature_invalid', 1))
vector('2-link-by-server', 'a link signed by the server', [S2], () => { const r = root(); return {chain: [r, link(r, {}, {by: 'at-ed'})]} }, refuse(2, 'signature_invalid', 1))
vector('2-link-by-grandparent', 'a link signed by the key before the last', [S2], () => { const c = line(2); return {chain: [...c, link(c[1], {}, {by: 'orch'})]} }, refuse(2, 'signature_invalid', 2))
vector('2-cnf-substituted', 'the key of the root replaced, the signature kept', [S2, '§12:substituted cnf'], () => {
  const r = root(), forged = root({cnf: cnf('mallory')})
  const token = {...forged, key: 'mallory', text: forged.input + '.' + r.text.split('.')[2]}
  return {chain: [token, link(token)]}
}, refuse(2, 'signature_invalid', 0))
vector('2-cnf-substituted-link', 'the key of a link replaced, the signature kept', [S2, '§12:substituted cnf'], () => {
  const r = root(), l = link(r), forged = link(r, {cnf: cnf('mallory')}, {key: 'mallory'})
  return {chain: [r, {...forged, text: forged.input + '.' + l.text.split('.')[2]}]}
}, refuse(2, 'signature_invalid', 1))
const order = '§12:reordered, skipped, duplicated links'
vector('2-skipped', 'a link is left out', [S2, order], () => { const c = three(); return {chain: [c[0], c[2]]} }, refuse(2, 'signature_invalid', 1))
vector('2-reordered', 'two links change places', [S2, order], () => { const c = three(); return {chain: [c[0], c[2], c[1]]} }, refuse(2, 'signature_invalid', 1))
vector('2-duplicated', 'a link stands twice', [S2, order], () => { const c = line(2); return {chain: [...c, c[1]]} }, refuse(2, 'signature_invalid', 2))
vector('1-root-duplicated', 'a root stands twice', [S1, order], () => { const r = root(); return {chain: [r, r]} }, refuse(1, 'bad_typ', 1))
vector('1-root-under-root', 'a root below a root of the same holder', [S1, order], () => ({chain: [root(), root({}, {by: 'orch', header: {kid: undefined}})]}), refuse(1, 'bad_typ', 1))
vector('14-prefix', 'a chain cut to a prefix, by the holder of the leaf', ['§6.14', '§12:truncated to a prefix; suffix alone'], () => { const c = line(2); return {chain: [c[0]], proofKey: 'rev'} }, refuse(14, 'holder_binding_failed'))
vector('14-prefix-own', 'a prefix is a credential of its own, for its own holder', ['§6.14', '§12:truncated to a prefix; suffix alone'], () => ({chain: [line(2)[0]]}), permit())

// ---- 4 to 9, 12, 13 ----
const edge = (id, title, step, reason, over, covers = [], opt = {}) => vector(id, title, [`§6.${step}`, ...[covers].flat()], () => {
  const r = root(), value = typeof over === 'function' ? over(r) : over
  return {chain: [r, link(r, value, typeof opt === 'function' ? opt(r) : opt)]}
}, refuse(step, reason, 1))
for (const [name, iss] of [['other', 'https://other.example'], ['slash', ISSUER + '/'], ['case', 'https://Kavach.example'], ['http', 'http://kavach.example'], ['prefix', 'https://kavach.example.evil.example'], ['homoglyph', 'https://kаvach.example']]) {
  vector('4-issuer-' + name, `iss ${iss}`, ['§6.4', '§12:cross-issuer', ...(name === 'homoglyph' || name === 'case' ? ['§12:Unicode, case and normalisation'] : [])], () => ({chain: [root({iss})]}), refuse(4, 'issuer_mismatch', 0))
}
vector('4-issuer-plain', 'a plain token of another issuer', ['§6.4', '§12:cross-issuer'], () => ({chain: [plain({iss: 'https://other.example'})]}), refuse(4, 'issuer_mismatch', 0))
for (const [name, iss] of [
  ['server', () => ISSUER], ['own', () => keys.rev.uri], ['stranger', () => keys.mallory.uri], ['thumbprint', () => keys.orch.jkt], ['client', () => 'orchestrator'],
  ['case', () => keys.orch.uri.replace('urn:ietf', 'URN:IETF')], ['sha-512', () => keys.orch.uri.replace('sha-256', 'sha-512')], ['longer', () => keys.orch.uri + 'A'],
]) edge('4-iss-' + name, `iss of a link is ${name === 'own' ? 'its own key' : name}`, 4, 'iss_mismatch', () => ({iss: iss()}))
vector('4-iss-grandparent', 'iss of a link is the key of its grandparent', ['§6.4'], () => { const c = line(2); return {chain: [...c, link(c[1], {iss: keys.orch.uri})]} }, refuse(4, 'iss_mismatch', 2))
edge('5-jti-parent', 'the jti of the parent', 5, 'duplicate_jti', r => ({jti: r.claims.jti}), '§12:a copied jti used to revoke or to spend another\'s link')
vector('5-jti-root', 'the jti of the root, two links below', ['§6.5'], () => { const c = line(2); return {chain: [...c, link(c[1], {jti: c[0].claims.jti})]} }, refuse(5, 'duplicate_jti', 2))
vector('5-jti-case', 'jtis that differ in case are distinct', ['§6.5', '§12:Unicode, case and normalisation'], () => { const r = root({jti: 'ABC'}); return {chain: [r, link(r, {jti: 'abc'})]} }, permit())
const splice = '§12:splicing a child under another parent of the same key'
for (const [name, value] of [
  ['nobody', () => digest('x')], ['whole', r => digest(r.text)], ['payload', r => digest(r.text.split('.')[1])], ['hex', r => Buffer.from(r.lid, 'base64url').toString('hex')],
  ['padded', r => r.lid + '='], ['base64', r => Buffer.from(r.lid, 'base64url').toString('base64')], ['prefix', r => r.lid.slice(0, 42)],
]) edge('6-par-hash-' + name, `par_hash: ${name}`, 6, 'par_hash_mismatch', r => ({par_hash: value(r)}))
vector('6-splice', 'a child of one root below another root of the same key', ['§6.6', splice], () => {
  const narrow = root({scope: 'repository:read'}), wide = root()
  return {chain: [wide, link(narrow)]}
}, refuse(6, 'par_hash_mismatch', 1))
vector('6-splice-link', 'a child of one link below its sister of the same key', ['§6.6', splice], () => {
  const r = root(), a = link(r, {scope: 'repository:read'}), b = link(r)
  return {chain: [r, b, link(a)]}
}, refuse(6, 'par_hash_mismatch', 2))
vector('6-splice-copied', 'the sister has the same claims but for the jti', ['§6.6', splice], () => { const r = root(), a = link(r), b = link(r); return {chain: [r, b, link(a)]} }, refuse(6, 'par_hash_mismatch', 2))
for (const [name, over] of [
  ['same', {del_depth: 0}], ['two', {del_depth: 2}], ['negative', {del_depth: -1}], ['none', {del_depth: undefined}], ['max-none', {del_max_depth: undefined}],
  ['max-wider', {del_max_depth: 4}], ['max-below', {del_max_depth: 0}], ['max-huge', {del_max_depth: 9007199254740991}],
]) edge('7-depth-' + name, `a link with ${JSON.stringify(over)} below depth 0 of 3`, 7, 'depth_invalid', over, name === 'max-wider' ? '§12:depth reset through exchange' : [])
for (const [name, over] of [['one', {del_depth: 1}], ['max-nine', {del_max_depth: 9}], ['max-negative', {del_max_depth: -1}], ['no-depth', {del_depth: undefined}], ['no-max', {del_max_depth: undefined}]]) {
  vector('7-root-' + name, `a root with ${name}`, ['§6.7'], () => ({chain: [root(over)]}), refuse(7, 'depth_invalid', 0))
}
vector('7-sealed', 'a link below a sealed root', ['§6.7'], () => { const r = root({del_max_depth: 0}); return {chain: [r, link(r, {del_max_depth: 1})]} }, refuse(7, 'depth_invalid', 1))
vector('7-sealed-equal', 'a link below a sealed root that keeps its maximum', ['§6.7'], () => { const r = root({del_max_depth: 0}); return {chain: [r, link(r)]} }, refuse(7, 'depth_invalid', 1))
vector('7-sealed-alone', 'a sealed root is a credential of its own', ['§6.7'], () => ({chain: [root({del_max_depth: 0})]}), permit())
vector('7-sealed-link', 'a sealed link is a credential of its own', ['§6.7'], () => { const r = root(); return {chain: [r, link(r, {del_max_depth: 1})]} }, permit())
vector('7-sealed-link-child', 'a link below a sealed link', ['§6.7'], () => { const r = root(), l = link(r, {del_max_depth: 1}); return {chain: [r, l, link(l, {del_max_depth: 2})]} }, refuse(7, 'depth_invalid', 2))
const parent = '§12:a plain token as parent'
vector('7-plain-parent', 'a link below a plain token that is bound', ['§6.7', parent], () => { const p = plain({}, {key: 'orch'}); return {chain: [p, link(p)]} }, refuse(7, 'depth_invalid', 0))
vector('7-plain-parent-unbound', 'a link below a plain token without cnf', ['§6.7', parent], () => { const p = plain(); return {chain: [p, link(p)]} }, refuse(7, 'depth_invalid', 0))
vector('3-plain-with-jwk', 'a plain token with cnf.jwk', ['§6.3', parent], () => ({chain: [plain({cnf: cnf('orch')}, {key: 'orch'})]}), refuse(3, 'malformed', 0))
for (const [name, sub] of [['other', 'usr_mallory'], ['case', 'usr_Alice'], ['space', 'usr_alice '], ['homoglyph', 'usr_аlice']]) {
  edge('8-sub-' + name, `sub of a link: ${name}`, 8, 'principal_altered', {sub}, ['§12:principal swap', ...(name === 'other' ? [] : ['§12:Unicode, case and normalisation'])])
}
vector('8-sub-nfd', 'sub in another normalisation', ['§6.8', '§12:Unicode, case and normalisation'], () => { const r = root({sub: 'usr_ren\u00e9'}); return {chain: [r, link(r, {sub: 'usr_rene\u0301'})]} }, refuse(8, 'principal_altered', 1))
for (const [name, aud] of [['other', [OTHER]], ['more', [GIT, OTHER]], ['slash', [GIT + '/']], ['case', ['https://GIT.example/api']], ['prefix', ['https://git.example']]]) {
  edge('9-aud-' + name, `aud of a link: ${name}`, 9, 'audience_widened', {aud}, '§12:audience confusion')
}
edge('12-key-root', 'the key of the parent again', 12, 'key_reuse', {}, [], {key: 'orch'})
vector('12-key-grandparent', 'the key of the root again, two links below', ['§6.12'], () => { const c = line(2); return {chain: [...c, link(c[1], {}, {key: 'orch'})]} }, refuse(12, 'key_reuse', 2))
vector('12-key-es', 'an ES256 key again', ['§6.12'], () => { const r = root({}, {key: 'es-orch'}), l = link(r); return {chain: [r, l, link(l, {}, {key: 'es-orch'})]} }, refuse(12, 'key_reuse', 2))
const confused = ['§6.13', '§12:audience confusion']
const audience = (id, title, aud, more, want) => vector('13-' + id, title, confused, () => ({chain: [root({aud})], ...more}), want)
audience('other', 'a token for another resource server', [OTHER], {}, refuse(13, 'audience_mismatch'))
audience('two', 'a token that names this one and another', [GIT, OTHER], {}, refuse(13, 'audience_mismatch'))
audience('slash', 'a trailing slash', [GIT + '/'], {}, refuse(13, 'audience_mismatch'))
audience('parent', 'the origin without the path', ['https://git.example'], {}, refuse(13, 'audience_mismatch'))
audience('case', 'the host in capitals', ['https://GIT.example/api'], {}, refuse(13, 'audience_mismatch'))
audience('string', 'aud as a string', GIT, {}, permit())
audience('shared-mcp', 'kavach\'s own /mcp takes a token that names several', [ISSUER + '/mcp', GIT], {audience: ISSUER + '/mcp', policy: {shared_audience: true}}, permit())
audience('shared-api', 'kavach\'s own /api takes a token that names several', [GIT, ISSUER + '/api'], {audience: ISSUER + '/api', policy: {shared_audience: true}}, permit())
audience('shared-absent', 'kavach\'s own /mcp does not take one that does not name it', [GIT, OTHER], {audience: ISSUER + '/mcp', policy: {shared_audience: true}}, refuse(13, 'audience_mismatch'))
vector('13-narrowed', 'a root for two, a leaf for one of them', confused, () => { const r = root({aud: [GIT, OTHER]}); return {chain: [r, link(r, {aud: [GIT]})]} }, permit())
vector('13-narrowed-away', 'a root for two, a leaf for the other', confused, () => { const r = root({aud: [GIT, OTHER]}); return {chain: [r, link(r, {aud: [OTHER]})]} }, refuse(13, 'audience_mismatch'))
vector('13-leaf-two', 'a leaf that names both', confused, () => { const r = root({aud: [GIT, OTHER]}); return {chain: [r, link(r)]} }, refuse(13, 'audience_mismatch'))

// ---- 10 ----
const S10 = '§6.10', tricks = '§12:time tricks'
const time = (id, title, claims, want) => vector('10-' + id, title, [S10, tricks], () => ({chain: [root(claims)]}), want)
const early = refuse(10, 'not_yet_valid', 0), wrong = refuse(10, 'malformed', 0)
time('iat-30', 'iat 30 s ahead', {iat: NOW + 30}, permit())
time('iat-31', 'iat 31 s ahead', {iat: NOW + 31}, early)
time('iat-far', 'iat at 2^53 − 2', {iat: 9007199254740990, exp: 9007199254740991}, early)
time('nbf-30', 'nbf 30 s ahead', {nbf: NOW + 30}, permit())
time('nbf-31', 'nbf 31 s ahead', {nbf: NOW + 31}, early)
time('nbf-past', 'nbf before iat', {nbf: 0}, permit())
time('nbf-exp', 'nbf = exp', {exp: NOW + 20, nbf: NOW + 20}, wrong)
time('exp-iat', 'exp = iat', {iat: NOW + 5, exp: NOW + 5}, wrong)
time('exp-before', 'exp before iat', {iat: NOW + 5, exp: NOW + 4}, wrong)
time('life-3600', 'a root of 3600 s', {iat: NOW - 60, exp: NOW + 3540}, permit())
time('life-3601', 'a root of 3601 s', {iat: NOW - 60, exp: NOW + 3541}, wrong)
time('life-overflow', 'exp − iat far beyond 2^53', {iat: -9007199254740991, exp: 9007199254740991}, wrong)
time('exp-now', 'exp = now', {exp: NOW}, refuse(10, 'expired', 0))
time('exp-next', 'a second left', {exp: NOW + 1}, permit())
time('exp-past', 'expired an hour ago', {iat: NOW - 3900, exp: NOW - 3600}, refuse(10, 'expired', 0))
time('order-early-wrong', 'not yet valid and out of order: the former', {iat: NOW + 31, exp: NOW + 30}, early)
time('order-wrong-expired', 'out of order and expired: the former', {iat: NOW - 5, exp: NOW - 5}, wrong)
vector('10-plain-life', 'a plain token of 3601 s', [S10], () => ({chain: [plain({iat: NOW - 60, exp: NOW + 3541})]}), wrong)
vector('10-plain-expired', 'a plain token that expired', [S10], () => ({chain: [plain({exp: NOW})]}), refuse(10, 'expired', 0))
edge('10-link-iat-31', 'a link with iat 31 s ahead', 10, 'not_yet_valid', {iat: NOW + 31}, tricks)
edge('10-link-nbf-31', 'a link with nbf 31 s ahead', 10, 'not_yet_valid', {nbf: NOW + 31}, tricks)
edge('10-link-exp-iat', 'a link with exp = iat', 10, 'malformed', {iat: NOW + 5, exp: NOW + 5}, tricks)
edge('10-link-nbf-exp', 'a link with nbf = exp', 10, 'malformed', {nbf: NOW + 20, exp: NOW + 20}, tricks)
edge('10-link-iat-before', 'a link issued before its parent', 10, 'outlives_parent', {iat: NOW - 61}, tricks)
edge('10-link-outlives', 'a link that ends a second after its parent', 10, 'outlives_parent', {exp: NOW + 241}, tricks)
edge('10-link-expired', 'a link that ended now', 10, 'expired', {exp: NOW}, tricks)
edge('10-link-outlives-expired', 'issued before its parent and expired: the former', 10, 'outlives_parent', {iat: NOW - 61, exp: NOW}, tricks)
edge('10-link-exp-max', 'exp at 2^53 − 1', 10, 'outlives_parent', {exp: 9007199254740991}, tricks)
vector('10-parent-expired', 'the root expired, the link would not have', [S10], () => { const r = root({exp: NOW}); return {chain: [r, link(r, {exp: NOW + 240})]} }, refuse(10, 'expired', 0))
vector('10-middle-expired', 'the link in the middle expired', [S10], () => { const r = root(), l = link(r, {exp: NOW}); return {chain: [r, l, link(l, {exp: NOW + 100})]} }, refuse(10, 'expired', 1))
vector('10-root-first', 'the root expired and the link is forged: root first', [S10], () => { const r = root({exp: NOW}); return {chain: [r, link(r, {}, {by: 'mallory'})]} }, refuse(10, 'expired', 0))

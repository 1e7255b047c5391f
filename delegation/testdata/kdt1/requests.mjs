// Steps 14 to 17 of delegation.md §6: possession, revocation, scope, state.
import {aat, ALICE, b64, cnf, details, digest, dpop, GIT, ISSUER, join, keys, line, link, NOW, OTHER, permit, plain, raw, refuse, replayKey, root, seal, sha256, URL, valid, vector} from './lib.mjs'

const failed = refuse(14, 'holder_binding_failed')
const S14 = '§6.14', stolen = '§12:stolen token without the key', elsewhere = '§12:proof for another server, chain, tool or arguments', kinds = '§12:a DPoP proof, manifest, card, assertion, id token used as a link and the reverse'
const chainOf2 = () => line(2)

// ---- 14: scheme ----
vector('14-bearer-plain', 'an unbound token as Bearer', [S14], () => ({chain: [plain()]}), permit())
vector('14-dpop-plain-unbound', 'an unbound token as DPoP', [S14], () => { const p = plain(); return {chain: [p], scheme: 'DPoP', proofs: [{type: 'dpop', text: dpop('mallory', p.text)}]} }, failed)
vector('14-bearer-bound', 'a bound token as Bearer', [S14, stolen], () => ({chain: [plain({}, {key: 'orch'})], scheme: 'Bearer', proofs: []}), failed)
vector('14-bearer-bound-proof', 'a bound token as Bearer, with a good proof', [S14], () => ({chain: [plain({}, {key: 'orch'})], scheme: 'Bearer'}), failed)
vector('14-bearer-root', 'a root as Bearer', [S14, stolen], () => ({chain: [root()], scheme: 'Bearer', proofs: []}), failed)
vector('14-bearer-chain', 'a chain as Bearer', [S14, stolen], () => ({chain: chainOf2(), scheme: 'Bearer', proofs: []}), failed)
vector('14-bearer-chain-proof', 'a chain as Bearer, with a good proof', [S14], () => ({chain: chainOf2(), scheme: 'Bearer'}), failed)
vector('14-dpop-bound', 'a bound plain token with its proof', [S14], () => ({chain: [plain({}, {key: 'orch'})]}), permit())
vector('14-dpop-bound-es', 'a token bound to an ES256 key with its proof', [S14], () => ({chain: [plain({}, {key: 'es-orch'})]}), permit())
vector('14-plain-stray-proof', 'an unbound token as Bearer beside a proof: there is nothing that it could prove', [S14], () => { const p = plain(); return {chain: [p], proofs: [{type: 'dpop', text: dpop('mallory', p.text)}]} }, permit())
vector('14-no-proof', 'a chain without a proof', [S14, stolen], () => ({chain: chainOf2(), proofs: []}), failed)
vector('14-two-proofs', 'two proofs', [S14], () => { const c = chainOf2(), t = join(c); return {chain: c, proofs: [1, 2].map(i => ({type: 'dpop', text: dpop('rev', t, {jti: 'proof-' + i})}))} }, failed)

// ---- 14: DPoP ----
const proved = (id, title, over, opt, want = failed, covers = [], more = {}) => vector('14-dpop-' + id, title, [S14, ...[covers].flat()], () => {
  const chain = chainOf2(), token = join(chain)
  return {chain, proofs: [{type: 'dpop', text: dpop(more.key ?? 'rev', token, typeof over === 'function' ? over(chain, token) : over, opt)}], ...more.vector}
}, want)
proved('good', 'a chain with the proof of its last key', {}, {}, permit())
proved('es', 'a chain whose leaf is ES256', {}, {}, failed, [], {key: 'es-rev'})
proved('thief', 'a proof by a key that is not in the chain', {}, {}, failed, stolen, {key: 'mallory'})
proved('parent', 'a proof by the key of the parent', {}, {}, failed, stolen, {key: 'orch'})
proved('server', 'a proof by the server key', {}, {}, failed, [], {key: 'at-ed'})
proved('jwk-of-holder', 'the jwk of the holder over the signature of a thief', {}, {by: 'mallory', header: {jwk: keys.rev.jwk}}, failed, [stolen, '§12:header-supplied key'])
proved('no-jwk', 'no jwk', {}, {header: {jwk: undefined}})
proved('jwk-private', 'a private key in the header', {}, {header: {jwk: keys.rev.private}})
proved('kid', 'a kid beside the jwk', {}, {header: {kid: keys.rev.jkt}})
proved('eddsa', 'alg EdDSA, as many libraries write it', {}, {header: {alg: 'EdDSA'}}, permit())
proved('es-alg', 'alg ES256 for an Ed25519 key', {}, {header: {alg: 'ES256'}}, failed, '§12:algorithm confusion')
proved('none', 'alg none', {}, {header: {alg: 'none'}, signature: () => Buffer.alloc(0)}, failed, '§12:algorithm confusion')
proved('crit', 'a critical extension', {}, {header: {crit: ['b64']}})
for (const typ of ['JWT', 'DPoP+jwt', 'aat+jwt', 'at+jwt', 'aat-pop+jwt', undefined]) proved('typ-' + (typ ?? 'none').replace('+', '_'), `typ ${typ}`, {}, {header: {typ}}, failed, kinds)
proved('flip', 'one bit of the signature', {}, {signature: s => { const t = Buffer.from(s); t[0] ^= 1; return t }})
proved('twice', 'htm twice', {}, {edit: t => t.replace('{', '{"htm":"POST",')}, failed, '§12:duplicate members')
for (const name of ['htm', 'htu', 'iat', 'jti', 'ath']) { proved('without-' + name, `no ${name}`, {[name]: undefined}); proved('null-' + name, `${name}: null`, {[name]: null}) }
for (const [id, htm] of [['other', 'POST'], ['case', 'get'], ['list', ['GET']]]) proved('htm-' + id, `htm ${JSON.stringify(htm)}`, {htm}, {}, failed, elsewhere)
for (const [id, htu, ok] of [
  ['other-host', 'https://evil.example/api/diff'], ['other-path', GIT + '/comments'], ['http', 'http://git.example/api/diff'], ['port', 'https://git.example:8443/api/diff'], ['prefix', GIT], ['slash', URL + '/'], ['case-path', GIT + '/Diff'], ['user', 'https://git.example@evil.example/api/diff'],
  ['relative', '/api/diff'], ['encoded-slash', 'https://git.example/api%2Fdiff'], ['list', [URL]],
  ['query', URL + '?a=1#b', 1], ['case-host', 'https://GIT.example/api/diff', 1], ['port-443', 'https://git.example:443/api/diff', 1], ['encoded', 'https://git.example/%61pi/diff', 1], ['dots', 'https://git.example/x/../api/diff', 1],
]) proved('htu-' + id, `htu ${htu}`, {htu}, {}, ok ? permit() : failed, ok ? [] : elsewhere)
for (const [id, ath] of [['root', c => digest(c[0].text)], ['leaf', c => digest(c[1].text)], ['lid', c => c[1].lid], ['reversed', c => digest(c[1].text + '~' + c[0].text)], ['sha-hex', (_, t) => sha256(t).toString('hex')], ['padded', (_, t) => digest(t) + '=']]) {
  proved('ath-' + id, `ath: ${id}`, (c, t) => ({ath: ath(c, t)}), {}, failed, elsewhere)
}
vector('14-dpop-other-chain', 'the proof of the holder for another chain of the same holder', [S14, elsewhere], () => { const a = line(2), r = root(), b = [r, link(r)]; return {chain: b, proofs: [{type: 'dpop', text: dpop('rev', join(a))}]} }, failed)
vector('14-dpop-longer-chain', 'the proof for a chain, sent with a link more by a thief', [S14, elsewhere], () => { const a = line(2), c = [...a, link(a[1])]; return {chain: c, proofs: [{type: 'dpop', text: dpop('rev', join(a))}]} }, failed)
for (const [id, iat, ok] of [['-30', NOW - 30, 1], ['-31', NOW - 31], ['+30', NOW + 30, 1], ['+31', NOW + 31], ['float', raw(NOW + '.0')], ['exponent', raw('1795e6')], ['string', String(NOW)], ['true', true], ['2-53-1', raw('9007199254740993')], ['minus', -1]]) {
  proved('iat' + (/^[-+]/.test(id) ? id : '-' + id), `iat ${id}`, {iat}, {}, ok ? permit() : failed, ['§12:time tricks', ...(/\d$/.test(id) && id !== '2-53-1' ? [] : ['§12:number tricks'])])
}
proved('jti-empty', 'an empty jti', {jti: ''})
proved('jti-129', 'a jti of 129 bytes', {jti: 'a'.repeat(129)})
proved('jti-number', 'a jti that is a number', {jti: 5})
proved('unknown-claims', 'claims that nobody knows', {exp: NOW - 1, nbf: NOW + 100, iss: 'x', aud: OTHER}, {}, permit())
proved('nonce-unasked', 'a nonce that nobody asked for', {nonce: 'n-1'}, {}, permit())
for (const [id, nonce, ok] of [['good', 'n-1', 1], ['other', 'n-2'], ['absent', undefined], ['null', null], ['list', ['n-1']]]) {
  proved('nonce-' + id, `a nonce was asked for: ${id}`, {nonce}, {}, ok ? permit() : failed, [], {vector: {policy: {nonce: 'n-1'}}})
}
// The reverse: tokens of other kinds where a proof belongs.
const instead = (id, title, make) => vector('14-instead-' + id, title, [S14, kinds], () => { const c = chainOf2(); return {chain: c, proofs: [{type: 'dpop', text: make(c)}]} }, failed)
instead('link', 'a link as the proof', c => link(c[1], {}, {by: 'rev'}).text)
instead('root', 'the root as the proof', c => c[0].text)
instead('aat', 'an AAT proof as the DPoP proof', c => aat(c[1]))
instead('manifest', 'a manifest as the proof', () => seal({typ: 'agent-manifest+jwt', jwk: keys.rev.jwk}, {id: keys.rev.jkt, jwk: keys.rev.jwk, iat: NOW}, {by: 'rev'}).text)
instead('card', 'a key card as the proof', () => seal({typ: 'agent-key+jwt', jwk: keys.rev.jwk}, {iss: 'rev', aud: GIT, jwk: keys.rev.jwk, iat: NOW, exp: NOW + 60, jti: 'c'}, {by: 'rev'}).text)
instead('assertion', 'a client assertion as the proof', () => seal({typ: 'JWT'}, {iss: 'rev', sub: 'rev', aud: ISSUER, iat: NOW, exp: NOW + 60, jti: 'a'}, {by: 'rev'}).text)
instead('empty', 'an empty proof', () => '')
instead('json', 'a proof in the JSON serialisation', () => '{"payload":"e30","protected":"e30","signature":"e30"}')
// And proofs, manifests, cards, assertions and id tokens where a token belongs.
const asToken = (id, title, header, claims) => {
  vector('1-as-link-' + id, title + ' as a link', ['§6.1', kinds], () => { const r = root(), l = link(r); return {chain: [r, {...seal(header, {...l.claims, ...claims}, {by: 'orch'}), key: 'rev'}]} }, refuse(1, 'bad_typ', 1))
  vector('1-as-root-' + id, title + ' as a token', ['§6.1', kinds], () => { const r = root(); return {chain: [{...seal({...header, kid: 'at-ed'}, {...r.claims, ...claims}, {by: 'at-ed'}), key: 'orch'}]} }, refuse(1, 'bad_typ', 0))
}
asToken('dpop', 'a DPoP proof', {typ: 'dpop+jwt', jwk: keys.orch.jwk}, {htm: 'GET', htu: URL})
asToken('aat-pop', 'an AAT proof', {typ: 'aat-pop+jwt'}, {aat_tool: 'read_file', hta: {}})
asToken('manifest', 'a manifest', {typ: 'agent-manifest+jwt'}, {seq: 1, name: 'reviewer'})
asToken('card', 'a key card', {typ: 'agent-key+jwt'}, {jwk: keys.rev.jwk})
asToken('assertion', 'a client assertion', {typ: 'client-authentication+jwt'}, {})
asToken('assertion-untyped', 'a client assertion without typ', {}, {})
asToken('id-token', 'an id token', {typ: 'JWT'}, {nonce: 'n', auth_time: NOW})
asToken('feed', 'a revocation feed', {typ: 'kavach-revocations+jwt'}, {seq: 1})

// ---- 14: side effects ----
const write = {method: 'POST', dpop: {htm: 'POST'}}
vector('14-write-dpop', 'a DPoP proof for a chain and a side effect', [S14], () => ({chain: chainOf2(), ...write}), failed)
vector('14-write-dpop-allowed', 'the same where the server takes DPoP for writes', [S14], () => ({chain: chainOf2(), ...write, policy: {dpop_for_writes: true}}), permit())
vector('14-write-read-only', 'a POST that changes nothing', [S14], () => ({chain: chainOf2(), ...write, policy: {read_only: true}}), permit())
vector('14-write-plain', 'a DPoP proof for a plain token and a side effect', [S14], () => ({chain: [plain({}, {key: 'orch'})], ...write}), permit())
vector('14-write-root', 'a root alone and a side effect', [S14], () => ({chain: [root()], ...write}), failed)
for (const method of ['HEAD', 'OPTIONS']) vector('14-read-' + method.toLowerCase(), `${method} is no side effect`, [S14], () => ({chain: chainOf2(), method, dpop: {htm: method}}), permit())
for (const method of ['PUT', 'DELETE', 'PATCH', 'QUERY']) vector('14-write-' + method.toLowerCase(), `${method} is a side effect`, [S14], () => ({chain: chainOf2(), method, dpop: {htm: method}}), failed)

// ---- 14: AAT proofs ----
const grant = {authorization_details: details({read_file: {}, write_file: {}})}
const toolCall = (name = 'read_file', args_text = '{}') => ({scopes: [['repository:read']], tool: {name, args_text}})
const popped = (id, title, over, opt, want = failed, covers = [], more = {}) => vector('14-aat-' + id, title, [S14, ...[covers].flat()], () => {
  const r = root(grant), chain = [r, link(r)]
  return {chain, carrier: 'meta', method: 'POST', request: toolCall(...(more.call ?? [])), pop: aat(chain[1], typeof over === 'function' ? over(chain) : over, opt), ...more.vector}
}, want)
popped('good', 'a chain with an AAT proof, for a side effect', {}, {}, permit())
popped('arguments', 'the arguments of the call', {hta: {path: '/a', n: 1}}, {}, permit(), [], {call: ['read_file', '{ "n": 1.0, "path": "\\u002fa" }']})
popped('thief', 'signed by a key that is not in the chain', {}, {by: 'mallory'}, failed, stolen)
popped('parent', 'signed by the key of the parent', {}, {by: 'orch'}, failed, stolen)
popped('jwk', 'a thief who hands over the key', {}, {by: 'mallory', header: {jwk: keys.mallory.jwk}}, failed, '§12:header-supplied key')
popped('alg-eddsa', 'alg EdDSA', {}, {header: {alg: 'EdDSA'}}, failed, '§12:algorithm confusion')
popped('alg-none', 'alg none', {}, {header: {alg: 'none'}, signature: () => Buffer.alloc(0)}, failed, '§12:algorithm confusion')
popped('crit', 'a critical extension', {}, {header: {crit: ['x']}})
for (const typ of ['dpop+jwt', 'aat+jwt', 'JWT', undefined]) popped('typ-' + (typ ?? 'none').replace('+', '_'), `typ ${typ}`, {}, {header: {typ}}, failed, kinds)
for (const name of ['jti', 'iat', 'aat_id', 'aat_hash', 'aat_tool', 'hta', 'aat_aud']) { popped('without-' + name, `no ${name}`, {[name]: undefined}); popped('null-' + name, `${name}: null`, {[name]: null}) }
popped('aud-other', 'aat_aud is another server', {aat_aud: OTHER}, {}, failed, elsewhere)
popped('aud-slash', 'aat_aud with a slash', {aat_aud: GIT + '/'}, {}, failed, elsewhere)
popped('aud-list', 'aat_aud is a list', {aat_aud: [GIT]}, {}, failed, elsewhere)
popped('id-root', 'aat_id is the jti of the root', c => ({aat_id: c[0].claims.jti}), {}, failed, elsewhere)
popped('hash-root', 'aat_hash is of the root', c => ({aat_hash: c[0].lid}), {}, failed, elsewhere)
popped('hash-whole', 'aat_hash is of the whole token', c => ({aat_hash: digest(c[1].text)}), {}, failed, elsewhere)
popped('tool-other', 'a proof for another tool', {aat_tool: 'write_file'}, {}, failed, elsewhere)
popped('tool-case', 'a proof for a tool in another case', {aat_tool: 'Read_file'}, {}, failed, elsewhere)
popped('hta-other', 'a proof for other arguments', {hta: {path: '/b'}}, {}, failed, elsewhere, {call: ['read_file', '{"path":"/a"}']})
popped('hta-more', 'a proof for an argument more', {hta: {path: '/a', all: true}}, {}, failed, elsewhere, {call: ['read_file', '{"path":"/a"}']})
popped('hta-empty', 'a proof for no arguments', {hta: {}}, {}, failed, elsewhere, {call: ['read_file', '{"path":"/a"}']})
popped('hta-list', 'hta is a list', {hta: []}, {}, failed, elsewhere)
popped('hta-number', '1 is not "1"', {hta: {n: '1'}}, {}, failed, elsewhere, {call: ['read_file', '{"n":1}']})
popped('hta-nfd', 'arguments in another normalisation', {hta: {n: 'e\u0301'}}, {}, failed, [elsewhere, '§12:Unicode, case and normalisation'], {call: ['read_file', '{"n":"\u00e9"}']})
popped('hta-twice', 'a member twice in hta', {hta: raw('{"a":2,"a":1}')}, {}, failed, '§12:duplicate members', {call: ['read_file', '{"a":1}']})
popped('not-canonical', 'a proof that is not in canonical form', {}, {payload: undefined, edit: t => ' ' + t}, permit())
for (const [id, iat, ok] of [['-30', NOW - 30, 1], ['-31', NOW - 31], ['+30', NOW + 30, 1], ['+31', NOW + 31], ['float', raw(NOW + '.0')], ['string', String(NOW)]]) popped('iat' + (/^[-+]/.test(id) ? id : '-' + id), `iat ${id}`, {iat}, {}, ok ? permit() : failed, ok || /^[-+]/.test(id) ? '§12:time tricks' : '§12:number tricks')
for (const [id, nonce, ok] of [['good', 'n-1', 1], ['other', 'n-2'], ['absent', undefined]]) popped('nonce-' + id, `a nonce was asked for: ${id}`, {nonce}, {}, ok ? permit() : failed, [], {vector: {policy: {nonce: 'n-1'}}})
popped('nonce-unasked', 'a nonce that nobody asked for', {nonce: 'n-1'}, {}, permit())
popped('instead-dpop', 'a DPoP proof as the AAT proof', {}, {header: {typ: 'dpop+jwt', jwk: keys.rev.jwk}}, failed, kinds)
vector('14-aat-spliced', 'the proof of the holder for another link with the same jti', [S14, elsewhere, '§12:a copied jti used to revoke or to spend another\'s link'], () => {
  const r = root(grant), a = link(r, {jti: 'same'}), b = link(r, {jti: 'same', scope: 'repository:read'})
  return {chain: [r, b], carrier: 'meta', method: 'POST', request: toolCall(), pop: aat(a)}
}, failed)
vector('14-aat-es', 'an AAT proof by an ES256 key', [S14], () => { const r = root(grant), l = link(r, {}, {key: 'es-rev'}); return {chain: [r, l], carrier: 'meta', method: 'POST', request: toolCall(), pop: aat(l)} }, permit())
vector('14-aat-root', 'an AAT proof for a root alone', [S14], () => { const r = root(grant); return {chain: [r], carrier: 'meta', method: 'POST', request: toolCall(), pop: aat(r)} }, permit())

// ---- carriers ----
const two = '§12:two credentials in one request'
const carried = (id, title, credentials, want) => vector('0-carrier-' + id, title, ['§6.0', two], () => {
  const r = root(grant), chain = [r, link(r)], other = [r, link(r)]
  return {chain, credentials: credentials(join(chain), join(other)), proofs: [{type: 'aat', text: aat(chain[1])}], method: 'POST', request: toolCall()}
}, want)
const header = (token, scheme = 'DPoP') => ({carrier: 'authorization', scheme, token})
const meta = token => ({carrier: 'meta', chain: token.split('~')})
const malformed = refuse(0, 'malformed')
carried('same', 'the same chain in _meta and in the Authorization header', a => [meta(a), header(a)], permit())
carried('other', 'one chain in _meta, another in the Authorization header', (a, b) => [meta(a), header(b)], malformed)
carried('union', 'the root in the Authorization header, the chain in _meta', a => [meta(a), header(a.split('~')[0])], malformed)
carried('headers', 'two Authorization headers', (a, b) => [header(a), header(b)], malformed)
carried('headers-same', 'the same Authorization header twice', a => [header(a), header(a)], malformed)
carried('bearer-plain', 'an unbound token as Bearer beside a chain in _meta', a => [meta(a), header(plain().text, 'Bearer')], malformed)

vector('0-carrier-no-proof', '_meta with a chain and without a proof is no presentation', ['§6.0', stolen], () => { const r = root(grant), chain = [r, link(r)]; return {chain, carrier: 'meta', method: 'POST', request: toolCall(), proofs: []} }, malformed)

// ---- 15 ----
const S15 = '§6.15'
const revoked = (id, title, what, covers = [], want = refuse(15, 'revoked'), make = () => line(3)) => vector('15-' + id, title, [S15, ...[covers].flat()], () => { const chain = make(); return {chain, revoked: what(chain)} }, want)
const live = '§12:revoked parent with live children'
revoked('gid', 'the grant', () => ({gid: ['gnt_1']}), live)
for (const [i, name] of ['root', 'middle', 'leaf'].entries()) {
  revoked('lid-' + name, `the lid of the ${name}`, c => ({tok: [c[i].lid]}), i < 2 ? live : [])
  revoked('key-' + name, `the key of the ${name}`, c => ({key: [c[i].claims.cnf.jkt]}), i < 2 ? live : [])
  revoked('agent-' + name, `the client of the ${name}`, c => ({agent: [digest(c[i].claims.client_id)]}), i < 2 ? live : [])
}
revoked('principal', 'the principal', () => ({agent: [digest(ALICE)]}), live)
revoked('anc-lid', 'a link that the root was exchanged from', () => ({tok: [digest('gone')]}), '§12:exchange that forgets a revoked link or a budget', undefined, () => line(2, {anc: [digest('gone'), keys.k3.jkt]}))
revoked('anc-key', 'a key that the root was exchanged from', () => ({key: [keys.k3.jkt]}), '§12:exchange that forgets a revoked link or a budget', undefined, () => line(2, {anc: [digest('gone'), keys.k3.jkt]}))
revoked('act', 'an agent that handed the token on', () => ({agent: [digest('boss')]}), live, undefined, () => line(2, {act: {sub: 'orchestrator', act: {sub: 'boss'}}}))
revoked('plain', 'the lid of a plain token', c => ({tok: [c[0].lid]}), [], undefined, () => [plain()])
revoked('plain-key', 'the key of a bound plain token', c => ({key: [keys.orch.jkt]}), [], undefined, () => [plain({}, {key: 'orch'})])
const spared = permit()
revoked('nothing', 'nothing of it', () => ({gid: ['gnt_2'], tok: [digest('x')], key: [keys.mallory.jkt], agent: [digest('mallory')]}), [], spared)
revoked('jti', 'a jti identifies nothing: the jti of the leaf among the lids', c => ({tok: [c[2].claims.jti], gid: [c[2].claims.jti]}), '§12:a copied jti used to revoke or to spend another\'s link', spared)
revoked('jti-copied', 'a link with a copied jti is revoked by its lid, and only that one', () => { const r = root({jti: 'r'}); return {tok: [link(r, {jti: 'copied', scope: ''}).lid]} }, '§12:a copied jti used to revoke or to spend another\'s link', spared, () => { const r = root({jti: 'r'}); return [r, link(r, {jti: 'copied'})] })
revoked('sibling', 'the sister of the leaf', c => ({tok: [link(c[1], {scope: ''}).lid]}), [], spared)
revoked('child', 'what was derived below', c => ({tok: [link(c[2]).lid]}), [], spared)
revoked('plain-agent-name', 'the name itself, not its hash', () => ({agent: ['reviewer']}), [], spared)
revoked('kinds', 'a lid among the keys and a key among the lids', c => ({key: [c[0].lid], tok: [keys.orch.jkt]}), [], spared)
revoked('before', 'everything of the grant issued before now', () => ({before: {gnt_1: NOW}}), live)
revoked('before-all', 'everything issued before now', () => ({before: {'*': NOW}}), live)
revoked('before-earlier', 'everything issued before the token was', () => ({before: {gnt_1: NOW - 60, '*': NOW - 60}}), [], spared)
revoked('before-other', 'everything of another grant', () => ({before: {gnt_2: NOW}}), [], spared)
vector('15-stale', 'the source of revocations is stale', [S15], () => ({chain: line(2), revoked: {stale: true}}), refuse(15, 'status_unknown'))
vector('15-stale-write', 'the source is stale and the request is a side effect', [S15], () => ({chain: line(2), ...write, policy: {dpop_for_writes: true}, revoked: {stale: true}}), refuse(15, 'status_unknown'))
vector('15-none', 'no source of revocations: permitted, and it says what was not looked at', [S15], () => ({chain: line(2), revoked: null}), permit({unchecked: ['revocation']}))
vector('14-unchecked-proof', 'the proof was not shown: valid as far as it goes, never authorised', [S14], () => ({chain: line(2), proofs: null, revoked: null}), valid(['proof', 'revocation']))
vector('16-unchecked-request', 'no request: valid as far as it goes, never authorised', ['§6.16'], () => ({chain: line(2), request: null}), valid(['request']))
vector('16-unchecked-all', 'the chain alone', ['§6.16'], () => ({chain: line(2), proofs: null, request: null, revoked: null}), valid(['proof', 'request', 'revocation']))
vector('16-unchecked-refused', 'the proof was not shown and the request is refused', ['§6.16'], () => ({chain: line(2), proofs: null, request: {scopes: [['repository:admin']]}}), refuse(16, 'scope_not_granted', 0, 'scope'))

// ---- 16: scope ----
const S16 = '§6.16'
const scope = (id, title, scopes, want, make = () => [root()], covers = []) => vector('16-scope-' + id, title, [S16, ...covers], () => ({chain: make(), request: {...(scopes && {scopes})}}), want)
const missing = at => refuse(16, 'scope_not_granted', at, 'scope')
scope('both', 'two scopes that are held', [['repository:read'], ['comment:write']], permit())
scope('one-missing', 'one of two scopes is missing', [['repository:read'], ['repository:write']], missing(0))
scope('alternative', 'either of two', [['repository:admin', 'repository:read']], permit())
scope('none-needed', 'a request that needs no scope', [], permit())
scope('unset', 'a request that does not say what it needs', undefined, refuse(16, 'scope_not_granted', null, 'scope', 'unhandled:scope'), undefined, ['§12:a request that leaves a restricted dimension unset'])
scope('case', 'a scope in another case', [['Repository:read']], missing(0), undefined, ['§12:Unicode, case and normalisation'])
scope('wildcard', 'a scope that looks like a wildcard', [['repository']], missing(0), () => [root({scope: 'repository:read'})], ['§12:wildcard tricks'])
scope('leaf', 'the leaf gave the scope away', [['comment:write']], missing(1), () => { const r = root(); return [r, link(r, {scope: 'repository:read'})] })
scope('middle', 'the link in the middle gave it away', [['comment:write']], missing(1), () => { const r = root(), l = link(r, {scope: 'repository:read'}); return [r, l, link(l)] })
scope('empty', 'a leaf without scopes', [['repository:read']], missing(1), () => { const r = root(); return [r, link(r, {scope: ''})] }, ['§12:dropped constraint, empty map, empty list'])
scope('alternatives-split', 'every link holds one of the alternatives, each another', [['a:b', 'c:d']], permit(), () => { const r = root({scope: 'a:b c:d'}); return [r, link(r, {scope: 'c:d'})] })
vector('16-order-scope-tools', 'scope and tool are not granted: scope comes first', [S16, '§6.order'], () => ({chain: [root(grant)], request: {scopes: [['x:y']], tool: {name: 'other', args_text: '{}'}}}), missing(0))
vector('16-order-tools-limits', 'tool and resource are not granted: the tool comes first', [S16, '§6.order'], () => ({chain: [root({authorization_details: details({read_file: {}}, {resources: ['a']})})], request: {scopes: [['repository:read']], tool: {name: 'other', args_text: '{}'}, resource: 'b'}}), refuse(16, 'constraint_violated', 0, 'tools'))
vector('16-order-resource-network', 'resource and network are not granted: the resource comes first', [S16, '§6.order'], () => ({chain: [root({authorization_details: details({}, {resources: ['a'], allow_network: ['a'], max_file_size: 1})})], request: {scopes: [['repository:read']], resource: 'b', network: 'b', size: 2}}), refuse(16, 'constraint_violated', 0, 'resources'))

// ---- 17 ----
const S17 = '§6.17', fanOut = '§12:sibling fan-out against max_calls'
vector('17-replayed', 'a proof that was seen', [S17], () => ({chain: line(2), state: {seen: [replayKey('rev')]}}), refuse(17, 'replayed'))
vector('17-replayed-aat', 'an AAT proof that was seen', [S17], () => { const r = root(grant), chain = [r, link(r)]; return {chain, carrier: 'meta', method: 'POST', request: toolCall(), state: {seen: [replayKey('rev')]}} }, refuse(17, 'replayed'))
vector('17-replayed-other-key', 'another key used the same jti', [S17], () => ({chain: line(2), state: {seen: [replayKey('orch'), replayKey('mallory')]}}), permit())
vector('17-replayed-kinds', 'the jti of a DPoP proof was used in an AAT proof: one memory', [S17], () => ({chain: line(2), state: {seen: [replayKey('rev')]}}), refuse(17, 'replayed'))
vector('17-replayed-refused', 'a replayed proof of a request that is refused anyway', [S17, '§6.order'], () => ({chain: line(2), request: {scopes: [['x:y']]}, state: {seen: [replayKey('rev')]}}), missing(0))
vector('17-plain-no-proof', 'an unbound token uses up nothing', [S17], () => ({chain: [plain()], state: {seen: [replayKey('orch')]}}), permit())
const calls = (...limits) => {
  const list = [root({authorization_details: details({}, limits[0] === undefined ? undefined : {max_calls: limits[0]})})]
  for (const limit of limits.slice(1)) list.push(link(list.at(-1), {authorization_details: details({}, limit === undefined ? undefined : {max_calls: limit})}))
  return list
}
const count = (id, title, limits, used, want, covers = []) => vector('17-calls-' + id, title, [S17, '§5', ...covers], () => {
  const chain = calls(...limits)
  return {chain, state: used && {counters: Object.fromEntries(used.map((n, i) => [chain[i]?.lid ?? digest('other'), n]).filter(([, n]) => n !== undefined))}}
}, want)
const spent = refuse(17, 'constraint_violated', null, 'max_calls')
count('no-counter', 'a budget where nobody counts', [3], null, refuse(16, 'needs_counter', 0, 'max_calls'))
count('no-counter-link', 'a budget of a link where nobody counts', [undefined, 3], null, refuse(16, 'needs_counter', 1, 'max_calls'))
count('first', 'the first call', [3], [], permit({debits: [0]}))
count('last', 'the last call', [3], [2], permit({debits: [0]}))
count('spent', 'one call too many', [3], [3], spent)
count('both', 'every link that has a budget is debited', [3, 2], [1, 0], permit({debits: [0, 1]}))
count('skipped', 'only links that have a budget are debited', [undefined, 2], [], permit({debits: [1]}))
count('parent-spent', 'the parent is spent, the child is new: a sister spent it', [3, 3], [3], spent, [fanOut])
count('child-spent', 'the child is spent, the parent is not', [9, 2], [2, 2], spent)
count('grandparent-spent', 'three links, the root is spent', [5, 5, 5], [5, 1], spent, [fanOut])
vector('17-calls-other-link', 'the budget of a link with the same jti is another', [S17, '§12:a copied jti used to revoke or to spend another\'s link'], () => {
  const r = root(), over = {jti: 'copied', authorization_details: details({}, {max_calls: 1})}
  const mine = link(r, over), other = link(r, {...over, scope: ''})
  return {chain: [r, mine], state: {counters: {[other.lid]: 1, copied: 1}}}
}, permit({debits: [1]}))
vector('17-order-replay-counter', 'a replayed proof and a spent budget: the proof comes first', [S17, '§6.order'], () => { const chain = calls(1); return {chain, state: {seen: [replayKey('orch')], counters: {[chain[0].lid]: 1}}} }, refuse(17, 'replayed'))
vector('17-audit-and-calls', 'a budget and a duty to record', [S17], () => ({chain: [root({authorization_details: details({}, {max_calls: 3, audit_required: true})})], state: {counters: {}}}), permit({debits: [0], obligations: ['audit_required']}))

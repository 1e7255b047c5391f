// Step 3 of delegation.md §6: strict JSON, shapes of claims, keys.
import {b64, cnf, details, digest, GIT, keys, LIMITS, link, NOW, permit, plain, raw, refuse, root, TOOLS, vector} from './lib.mjs'

const S3 = '§6.3'
const bad = at => refuse(3, 'malformed', at)
const inRoot = (id, title, over, covers = [], want = bad(0), opt) => vector('3-' + id, title, [S3, ...[covers].flat()], () => ({chain: [root(over, opt)]}), want)
const inLink = (id, title, over, covers = [], want = bad(1), opt) => vector('3-' + id, title, [S3, ...[covers].flat()], () => { const r = root(); return {chain: [r, link(r, over, opt)]} }, want)

// ---- strict JSON (§8) ----
const duplicate = '§12:duplicate members', json = '§12:JSON serialisation, whitespace, non-canonical base64', deep = '§12:huge chain, deep JSON, constraint bomb'
const edited = (id, title, edit, covers = [], want) => inRoot('json-' + id, title, {}, covers, want, {edit})
edited('member-twice', 'scope twice', t => t.replace('{', '{"scope":"repository:admin",'), duplicate)
edited('member-twice-escaped', 'scope twice, once as an escape', t => t.replace('{', '{"sc\\u006fpe":"repository:admin",'), duplicate)
edited('member-twice-equal', 'the same scope twice', t => t.replace('{', '{"gid":"gnt_1",'), duplicate)
edited('member-twice-deep', 'jkt twice in cnf', t => t.replace('"cnf":{', '"cnf":{"jkt":"x",'), duplicate)
edited('member-twice-unknown', 'a member twice inside an unknown claim', t => t.replace('{', '{"a":{"b":1,"b":2},'), duplicate)
edited('member-twice-tool', 'a tool twice', t => t.replace('"tools":{}', '"tools":{"read":{},"read":{}}'), duplicate)
edited('surrogate', 'a lone surrogate', t => t.replace('usr_alice', '\\ud800'), '§12:Unicode, case and normalisation')
edited('surrogate-name', 'a lone surrogate in the name of an unknown claim', t => t.replace('{', '{"\\udc00":1,'), '§12:Unicode, case and normalisation')
edited('surrogates', 'a pair of surrogates in an unknown claim', t => t.replace('{', '{"x":"\\ud83d\\ude00",'), '§12:Unicode, case and normalisation', permit())
edited('trailing', 'data behind the object', t => t + '{}')
edited('trailing-space', 'white space around the object', t => ' \n' + t + '\t', json, permit())
edited('bom', 'a byte order mark', t => '\ufeff' + t)
edited('comment', 'a comment', t => t.replace('{', '{/**/'))
edited('trailing-comma', 'a comma behind the last member', t => t.replace(/}$/, ',}'))
edited('single-quotes', 'single quotes', t => t.replace('"iat"', "'iat'"))
edited('nan', 'NaN in an unknown claim', t => t.replace('{', '{"x":NaN,'), '§12:number tricks')
edited('leading-zero', 'a leading zero in an unknown claim', t => t.replace('{', '{"x":01,'), '§12:number tricks')
edited('control', 'a raw newline in a string', t => t.replace('usr_alice', 'usr_\nalice'))
edited('array', 'an array of the claims', t => '[' + t + ']')
edited('empty', 'no claims at all', () => '')
edited('null', 'null as the claims', () => 'null')
const nested = n => raw('['.repeat(n) + ']'.repeat(n))
inRoot('json-depth-96', 'JSON nested 96 deep', {x: nested(95)}, [], permit())
inRoot('json-depth-97', 'JSON nested 97 deep', {x: nested(96)}, deep)
inRoot('json-depth-2000', 'JSON nested 2000 deep', {x: nested(2000)}, deep)
vector('3-json-utf8', 'bytes that are no UTF-8', [S3, '§12:Unicode, case and normalisation'], () => {
  const text = Buffer.from(JSON.stringify({iss: 'x'}))
  text[8] = 0xff
  return {chain: [root({}, {payload: text})]}
}, bad(0))
vector('3-json-overlong', 'an overlong encoding of a quote', [S3, '§12:Unicode, case and normalisation'], () => ({chain: [root({}, {payload: Buffer.concat([Buffer.from('{"x":"'), Buffer.from([0xc0, 0xa2]), Buffer.from('"}')])})]}), bad(0))

// ---- integers ----
const number = '§12:number tricks'
const oddly = {
  float: raw(`${NOW + 240}.0`), exponent: raw('17950002e2'), capital: raw('1E9'), string: String(NOW + 240), true: true, null: null, list: [NOW + 240], object: {},
  'two-53': raw('9007199254740992'), 'two-53-1': raw('9007199254740993'), 'two-63': raw('9223372036854775808'), 'two-64': raw('18446744073709551617'), huge: raw('1' + '0'.repeat(400)), fraction: raw('1795000240.5'), 'minus-zero': raw('-0'),
}
for (const [name, value] of Object.entries(oddly)) {
  inRoot('exp-' + name, `exp: ${name}`, {exp: value}, number)
  if (['float', 'exponent', 'string', 'null', 'two-53'].includes(name)) {
    inRoot('iat-' + name, `iat: ${name}`, {iat: value}, number)
    inRoot('nbf-' + name, `nbf: ${name}`, {nbf: value}, number)
    inLink('link-exp-' + name, `exp of a link: ${name}`, {exp: value}, number)
  }
}
for (const [name, value] of [['float', raw('0.0')], ['exponent', raw('0e0')], ['minus-zero', raw('-0')], ['string', '0'], ['false', false], ['null', null]]) {
  inRoot('del-depth-' + name, `del_depth: ${name}`, {del_depth: value}, number)
  inLink('del-max-depth-' + name, `del_max_depth of a link: ${name}`, {del_max_depth: value}, number)
}

// ---- claims that have to be there, and their types ----
for (const name of ['iss', 'sub', 'client_id', 'aud', 'iat', 'exp', 'jti', 'scope']) {
  inRoot('root-without-' + name, `a root without ${name}`, {[name]: undefined})
  inLink('link-without-' + name, `a link without ${name}`, {[name]: undefined})
  vector('3-plain-without-' + name, `a plain token without ${name}`, [S3], () => ({chain: [plain({[name]: undefined})]}), bad(0))
  inRoot('root-null-' + name, `a root whose ${name} is null`, {[name]: null}, name === 'iat' || name === 'exp' ? [number] : [])
  inRoot('root-typed-' + name, `a root whose ${name} is an object`, {[name]: {}})
}
for (const name of ['cnf', 'authorization_details', 'gid']) inRoot('root-without-' + name, `a root without ${name}`, {[name]: undefined})
for (const name of ['cnf', 'authorization_details', 'par_hash']) inLink('link-without-' + name, `a link without ${name}`, {[name]: undefined})
vector('3-plain-without-gid', 'a plain token without gid', [S3], () => ({chain: [plain({gid: undefined})]}), bad(0))
for (const name of ['cnf', 'authorization_details', 'gid']) inRoot('root-null-' + name, `a root whose ${name} is null`, {[name]: null})
inLink('link-null-par_hash', 'a link whose par_hash is null', {par_hash: null})
inLink('link-number-par_hash', 'a link whose par_hash is a number', {par_hash: 5})
inRoot('forbidden-par_hash', 'par_hash in a root', {par_hash: digest('x')})
vector('3-plain-par_hash', 'par_hash in a plain token', [S3], () => ({chain: [plain({par_hash: digest('x')})]}), bad(0))
for (const [name, value] of [['gid', 'gnt_1'], ['anc', ['x']], ['act', {sub: 'reviewer'}], ['status', {status_list: {idx: 0, uri: 'https://kavach.example/s'}}], ['may_act', {sub: 'mallory'}]]) {
  inLink('forbidden-' + name, `${name} in a link`, {[name]: value}, name === 'act' ? '§12:forged actor name' : [])
}
for (const name of ['card', 'status', 'may_act']) inRoot('null-' + name, `a root whose ${name} is null`, {[name]: null})
for (const [id, value, want] of [['null', null], ['number', 5], ['object', {}], ['short', 'x'], ['digest', digest('x'), permit()]]) inLink('card-' + id, `card of a link: ${id}`, {card: value}, [], want)
inRoot('unknown-claims', 'claims that nobody knows carry no authority', {scopes: 'admin', scp: ['admin'], roles: ['admin'], permissions: ['*'], admin: true, x: null}, [], permit())
vector('16-unknown-scopes', 'scopes in a claim of another name are none', ['§6.16'], () => ({chain: [root({scp: ['repository:admin'], scopes: 'repository:admin'})], request: {scopes: [['repository:admin']]}}), refuse(16, 'scope_not_granted', 0, 'scope'))
inRoot('unknown-proto', 'a claim called __proto__', {x: 1}, '§12:prototype names as tool or argument', permit(), {edit: t => t.replace('{', '{"__proto__":{"scope":"repository:admin"},')})
inRoot('case-scope', 'Scope is not scope', {scope: undefined, Scope: 'repository:read'}, '§12:Unicode, case and normalisation')
inRoot('case-duplicate', 'Scope beside scope is an unknown claim', {Scope: 'repository:admin'}, '§12:Unicode, case and normalisation', permit())
const claim = (name, list, covers) => { for (const [id, value, want] of list) inRoot(`${name}-${id}`, `${name}: ${id}`, {[name]: value}, covers, want) }
claim('aud', [['empty', []], ['string-empty', ''], ['member-empty', ['']], ['numbers', [1]], ['twice', [GIT, GIT]], ['nested', [[GIT]]], ['nine', Array.from({length: 9}, (_, i) => GIT + i)], ['null-member', [GIT, null]]], '§12:audience confusion')
claim('scope', [
  ['list', ['repository:read']], ['twice', 'a b a'], ['double-space', 'a  b'], ['leading-space', ' a'], ['trailing-space', 'a '], ['tab', 'a\tb'], ['newline', 'a\nb'], ['quote', 'a"b'], ['backslash', 'a\\b'],
  ['wildcard', 'repository:*', undefined], ['star', '*'], ['cyrillic', 'repositоry:read'], ['nbsp', 'a\u00a0b'], ['long', 'a'.repeat(129)], ['colon-first', ':read'],
], ['§12:wildcard tricks', '§12:Unicode, case and normalisation'])
claim('scope', [['long-enough', 'repository:read ' + 'a'.repeat(128), permit()], ['grammar', 'repository:read A9._:/-z', permit()], ['unsorted', 'repository:read a', permit()]])
claim('client_id', [['long', 'a'.repeat(257)], ['empty', ''], ['unicode', 'agеnt'], ['control', 'a\nb'], ['number', 5]], '§12:forged actor name')
claim('client_id', [['longest', 'a'.repeat(256), permit()], ['printable', 'https://client.example/a b?c#d', permit()]])
claim('jti', [['long', 'a'.repeat(129)], ['empty', ''], ['unicode', 'é'], ['number', 5]])
claim('jti', [['longest', 'a'.repeat(128), permit()]])
claim('gid', [['number', 5], ['empty', '']])
claim('anc', [['many', Array.from({length: 33}, (_, i) => digest('' + i))], ['string', 'x'], ['numbers', [1]]])
claim('anc', [['most', Array.from({length: 32}, (_, i) => digest('' + i)), permit()]])
claim('act', [['string', 'boss'], ['list', [{sub: 'boss'}]], ['no-sub', {iss: 'x'}], ['deep', {sub: 'a', act: {act: {sub: 'b'}}}]], '§12:forged actor name')
claim('act', [['nested', {sub: 'orchestrator', act: {sub: 'boss'}}, permit()], ['unproved', {sub: 'orchestrator', proved: false, act: {sub: 'boss'}}, permit()]])

// ---- cnf ----
const key = '§12:small-order or off-curve key', substituted = '§12:substituted cnf'
const confirm = (id, title, value, covers = []) => inRoot('cnf-' + id, title, {cnf: value}, covers)
const own = () => cnf('orch')
confirm('string', 'cnf is a string', keys.orch.jkt)
confirm('list', 'cnf is a list', [own()])
confirm('empty', 'cnf is empty', {})
confirm('jkt-only', 'a root with cnf.jkt alone', {jkt: keys.orch.jkt})
confirm('jwk-only', 'a root with cnf.jwk alone', {jwk: keys.orch.jwk})
confirm('jkt-other', 'jkt is of another key', {jwk: keys.orch.jwk, jkt: keys.rev.jkt}, substituted)
confirm('jkt-padded', 'jkt with padding', {jwk: keys.orch.jwk, jkt: keys.orch.jkt + '='}, json)
confirm('jkt-null', 'jkt is null', {jwk: keys.orch.jwk, jkt: null})
confirm('extra', 'a member beside jwk and jkt', {...own(), kid: 'x'})
confirm('x5t', 'cnf with x5t#S256', {'x5t#S256': digest('x')})
for (const [name, value] of [['kid', 'x'], ['alg', 'Ed25519'], ['use', 'sig'], ['key_ops', ['verify']], ['ext', true], ['x5c', []]]) confirm('jwk-' + name, `jwk with ${name}`, {...own(), jwk: {...keys.orch.jwk, [name]: value}})
confirm('jwk-private', 'a private key', {...own(), jwk: keys.orch.private})
confirm('jwk-y', 'an Ed25519 key with y', {...own(), jwk: {...keys.orch.jwk, y: keys.orch.jwk.x}})
confirm('jwk-oct', 'a symmetric key', {jwk: {kty: 'oct', k: 'AAAA'}, jkt: digest('{"k":"AAAA","kty":"oct"}')})
confirm('jwk-rsa', 'an RSA key', {jwk: keys['at-rs'].jwk, jkt: keys['at-rs'].jkt})
confirm('jwk-crv-case', 'crv in another case', {...own(), jwk: {...keys.orch.jwk, crv: 'ed25519'}})
confirm('jwk-x25519', 'a key for key agreement', {...own(), jwk: {...keys.orch.jwk, crv: 'X25519'}})
confirm('jwk-p384', 'a curve that is not allowed', {jwk: {...keys['es-orch'].jwk, crv: 'P-384'}, jkt: keys['es-orch'].jkt})
confirm('jwk-number', 'x is a number', {...own(), jwk: {...keys.orch.jwk, x: 5}})
confirm('jwk-null', 'x is null', {...own(), jwk: {...keys.orch.jwk, x: null}})
function okp(x, text = b64(x)) {
  return {jwk: {kty: 'OKP', crv: 'Ed25519', x: text}, jkt: digest(`{"crv":"Ed25519","kty":"OKP","x":"${text}"}`)}
}
function ec(x, y) {
  return {jwk: {kty: 'EC', crv: 'P-256', x: b64(x), y: b64(y)}, jkt: digest(`{"crv":"P-256","kty":"EC","x":"${b64(x)}","y":"${b64(y)}"}`)}
}
const point = Buffer.from(keys.orch.jwk.x, 'base64url')
confirm('x-short', 'an Ed25519 key of 31 bytes', okp(point.subarray(1)), key)
confirm('x-long', 'an Ed25519 key of 33 bytes', okp(Buffer.concat([point, Buffer.alloc(1)])), key)
confirm('x-loose', 'x with trailing bits', okp(point, loose(keys.orch.jwk.x)), json)
confirm('x-padded', 'x with padding', okp(point, keys.orch.jwk.x + '='), json)
function loose(text) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1)) | 1]
}
// The points of order 1, 2, 4 and 8, and the spellings of them that are not
// canonical (y ≥ p, or x = 0 with the sign bit).
const small = {
  'order-1': '0100000000000000000000000000000000000000000000000000000000000000',
  'order-2': 'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'order-4': '0000000000000000000000000000000000000000000000000000000000000000',
  'order-4-sign': '0000000000000000000000000000000000000000000000000000000000000080',
  'order-8-a': '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'order-8-b': '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
  'order-8-c': 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'order-8-d': 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
  'y-p': 'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'y-p-plus-1': 'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'y-p-sign': 'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'order-1-sign': '0100000000000000000000000000000000000000000000000000000000000080',
  'order-2-sign': 'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'y-p-plus-3': 'f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'y-all-ones': 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
}
for (const [name, hex] of Object.entries(small)) confirm('ed-' + name, `an Ed25519 point: ${name}`, okp(Buffer.from(hex, 'hex')), key)
// "Ed25519 canonical and not of small order": whether there is a point for y is
// not asked on import. No signature holds under such a key.
vector('2-ed-off-curve', 'an Ed25519 key that is no point: nothing verifies under it', ['§6.2', key], () => {
  const none = okp(Buffer.from('02' + '00'.repeat(31), 'hex'))
  const r = root({cnf: none})
  return {chain: [r, link({...r, key: 'orch'}, {iss: 'urn:ietf:params:oauth:jwk-thumbprint:sha-256:' + none.jkt})]}
}, refuse(2, 'signature_invalid', 1))
const [x, y] = ['x', 'y'].map(n => Buffer.from(keys['es-orch'].jwk[n], 'base64url'))
const p = Buffer.from('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff', 'hex')
const altered = Buffer.from(y)
altered[31] ^= 1
confirm('p256-off-curve', 'a P-256 point off the curve', ec(x, altered), key)
confirm('p256-zero', 'the point 0, 0', ec(Buffer.alloc(32), Buffer.alloc(32)), key)
confirm('p256-x-p', 'x = p', ec(p, y), key)
confirm('p256-x-short', 'x of 31 bytes', ec(x.subarray(1), y), key)
confirm('p256-x-long', 'x of 33 bytes', ec(Buffer.concat([Buffer.alloc(1), x]), y), key)
confirm('p256-no-y', 'no y', {jwk: {kty: 'EC', crv: 'P-256', x: b64(x)}, jkt: keys['es-orch'].jkt}, key)
inLink('link-cnf-small', 'a key of small order in a link', {cnf: okp(Buffer.from(small['order-8-a'], 'hex'))}, key)
vector('2-small-order-signature', 'a key of small order, whose signature of zeros verifies every message in careless libraries', [S3, key], () => {
  const zero = okp(Buffer.from(small['order-1'], 'hex'))
  const r = root({cnf: zero})
  const forged = link({...r, key: 'orch'}, {iss: 'urn:ietf:params:oauth:jwk-thumbprint:sha-256:' + zero.jkt}, {signature: () => Buffer.concat([Buffer.from(small['order-1'], 'hex'), Buffer.alloc(32)])})
  return {chain: [r, forged]}
}, bad(0))
vector('3-plain-cnf-extra', 'a plain token whose cnf has another member', [S3], () => ({chain: [plain({cnf: {jkt: keys.orch.jkt, kid: 'x'}}, {key: 'orch'})]}), bad(0))
vector('3-plain-cnf-jkt', 'a plain token whose jkt is no thumbprint', [S3], () => ({chain: [plain({cnf: {jkt: 'orch'}}, {key: 'orch'})]}), bad(0))

// ---- authorization_details ----
const second = '§12:second authorisation entry'
const grant = (id, title, value, covers = []) => inRoot('details-' + id, title, {authorization_details: value}, covers)
const entry = {type: TOOLS, tools: {}}, limits = {type: LIMITS, max_file_size: 5}
grant('object', 'an object instead of a list', entry)
grant('string', 'a string', JSON.stringify([entry]))
grant('empty', 'an empty list', [], '§12:dropped constraint, empty map, empty list')
grant('tools-twice', 'two entries of tools', [entry, {type: TOOLS, tools: {admin: {}}}], second)
grant('tools-twice-equal', 'the same entry twice', [entry, entry], second)
grant('limits-twice', 'two entries of limits', [entry, limits, {type: LIMITS}], second)
grant('limits-only', 'limits without tools', [limits], second)
grant('other', 'an entry of another type', [entry, {type: 'payment_initiation'}], second)
grant('other-only', 'only an entry of another type', [{type: 'payment_initiation'}], second)
grant('untyped', 'an entry without a type', [entry, {}], second)
grant('type-null', 'an entry whose type is null', [entry, {type: null}], second)
grant('type-case', 'a type in another case', [{type: 'Attenuating_agent_token', tools: {}}], '§12:Unicode, case and normalisation')
grant('not-object', 'an entry that is a string', [entry, LIMITS], second)
grant('null-entry', 'an entry that is null', [entry, null], second)
grant('member', 'an unknown member in the entry of tools', [{...entry, locations: [GIT]}])
grant('member-null', 'an unknown member that is null', [{...entry, x: null}])
grant('no-tools', 'no tools', [{type: TOOLS}])
grant('tools-null', 'tools: null', [{type: TOOLS, tools: null}])
grant('tools-list', 'tools is a list', [{type: TOOLS, tools: []}])
grant('tool-null', 'a tool whose arguments are null', [{type: TOOLS, tools: {read: null}}])
grant('tool-list', 'a tool whose arguments are a list', [{type: TOOLS, tools: {read: []}}])
grant('tool-true', 'a tool whose arguments are true', [{type: TOOLS, tools: {read: true}}])
grant('many-tools', '65 tools', details(Object.fromEntries(Array.from({length: 65}, (_, i) => ['t' + i, {}]))), deep)
vector('3-details-most-tools', '64 tools', [S3], () => ({
  chain: [root({authorization_details: details(Object.fromEntries(Array.from({length: 64}, (_, i) => ['t' + i, {}])))})],
  request: {scopes: [['repository:read']], tool: {name: 't63', args_text: '{}'}},
}), permit())
vector('3-plain-details', 'a plain token with tools and limits', [S3], () => ({
  chain: [plain({authorization_details: details({read: {}}, {max_file_size: 5})})],
  request: {scopes: [['repository:read']], tool: {name: 'read', args_text: '{}'}, size: 5},
}), permit())
vector('3-plain-details-limits', 'a plain token with limits alone', [S3], () => ({chain: [plain({authorization_details: [limits]})]}), bad(0))

// kavach_limits (delegation.md §5): shapes (step 3), edges (11), requests (16).
import {details, GIT, link, OTHER, permit, plain, raw, refuse, root, vector} from './lib.mjs'

const wild = '§12:wildcard tricks', unicode = '§12:Unicode, case and normalisation', dropped = '§12:dropped constraint, empty map, empty list'
const unset = '§12:a request that leaves a restricted dimension unset', number = '§12:number tricks', redirect = '§12:a redirect past allow_network'
const dims = {resources: 'resource', allow_network: 'network', max_file_size: 'size'}
const ask = more => ({scopes: [['repository:read']], ...more})
const limited = limits => root({authorization_details: details({}, limits)})

// ---- shapes ----
const shape = (id, title, limits, covers = [], want = refuse(3, 'malformed', 0), request) =>
  vector('3-limits-' + id, title, ['§6.3', '§5', ...[covers].flat()], () => ({chain: [limited(limits)], ...(request && {request: ask(request)})}), want)
shape('unknown', 'an unknown member', {max_cost: 5})
shape('unknown-null', 'an unknown member that is null', {max_cost: null})
shape('case', 'a member in another case', {Max_calls: 5}, unicode)
shape('prototype', 'a member called constructor', {constructor: 5}, '§12:prototype names as tool or argument')
for (const [member, list] of Object.entries({
  resources: [['null', null], ['string', 'git/*'], ['numbers', [1]], ['null-member', [null]], ['object', {}]],
  allow_network: [['null', null], ['string', 'git.internal'], ['numbers', [1]], ['object', {}]],
  max_file_size: [['null', null], ['string', '5'], ['unit', '5MB'], ['float', raw('5.0')], ['exponent', raw('5e0')], ['negative', -1], ['minus-zero', raw('-0')], ['two-53', raw('9007199254740992')], ['true', true], ['list', [5]]],
  max_calls: [['null', null], ['zero', 0], ['string', '5'], ['float', raw('1.0')], ['negative', -1], ['two-53', raw('9007199254740992')], ['true', true]],
  audit_required: [['null', null], ['number', 1], ['string', 'true'], ['list', [true]]],
})) for (const [id, value] of list) shape(`${member}-${id}`, `${member}: ${id}`, {[member]: value}, member.startsWith('max') ? number : [])
for (const [id, entry] of [
  ['empty', ''], ['slash-star', '/*'], ['star', '*'], ['star-middle', 'git/*/pr'], ['star-twice', 'git/*/*'], ['star-suffix', 'git/pr*'], ['star-prefix', '*/git'], ['dot', 'git/./pr'], ['dots', 'git/../pr'],
  ['dots-end', 'git/..'], ['double-slash', 'git//pr'], ['percent', 'git%2Fpr'], ['percent-dots', 'git/%2e%2e/x'], ['unicode', 'git/рr'], ['control', 'git/\n'], ['long', 'a'.repeat(257)], ['double-slash-star', 'git//*'],
]) shape('resource-' + id, `a resource: ${JSON.stringify(entry).slice(0, 40)}`, {resources: [entry]}, [wild, ...(id === 'unicode' ? [unicode] : [])])
shape('resource-many', '33 resources', {resources: Array.from({length: 33}, (_, i) => 'r/' + i)})
shape('resource-most', '32 resources', {resources: Array.from({length: 32}, (_, i) => 'r/' + i)}, [], permit(), {resource: 'r/31'})
shape('resource-longest', 'a resource of 256 bytes', {resources: ['a'.repeat(256)]}, [], permit(), {resource: 'a'.repeat(256)})
for (const [id, entry] of [
  ['empty', ''], ['star', '*'], ['star-dot', '*.'], ['star-name', '*git.internal'], ['star-middle', 'git.*.internal'], ['stars', '*.*.internal'], ['upper', 'Git.internal'], ['unicode', 'gіt.internal'], ['dot-end', 'git.internal.'],
  ['dot-first', '.internal'], ['dots', 'git..internal'], ['dash', '-git.internal'], ['underscore', 'git_x.internal'], ['scheme', 'https://git.internal'], ['path', 'git.internal/x'], ['user', 'a@git.internal'], ['space', 'git.internal '],
  ['port-empty', 'git.internal:'], ['port-zero', 'git.internal:0'], ['port-leading', 'git.internal:0443'], ['port-large', 'git.internal:65536'], ['port-name', 'git.internal:https'], ['port-plus', 'git.internal:+443'],
  ['v6-bare', '2001:db8::1'], ['v6-upper', '[2001:DB8::1]'], ['v6-long', '[2001:db8:0:0:0:0:0:1]'], ['v6-mapped', '[::ffff:192.0.2.1]'], ['v6-zone', '[fe80::1%eth0]'], ['v6-star', '*.[2001:db8::1]'],
  ['v4-leading', '192.0.02.1'], ['v4-five', '192.0.2.1.5'], ['v4-large', '192.0.2.256'], ['v4-short', '127.1'], ['v4-hex', '0x7f.1'], ['v4-number', '2130706433'], ['v4-star', '*.0.0.1'], ['long', 'a.'.repeat(127) + 'aa'],
]) shape('network-' + id, `a host: ${JSON.stringify(entry).slice(0, 40)}`, {allow_network: [entry]}, [wild, ...(id === 'unicode' ? [unicode] : [])])
shape('network-many', '33 hosts', {allow_network: Array.from({length: 33}, (_, i) => `h${i}.internal`)})

// ---- requests ----
const request = (id, title, limits, given, want, covers = []) =>
  vector('16-' + id, title, ['§6.16', '§5', ...[covers].flat()], () => ({chain: [limited(limits)], request: ask(given)}), want)
// A dimension that the request leaves out is about no token.
const no = (dimension, detail, at = 0) => refuse(16, 'constraint_violated', at, dimension, detail)
for (const [member, value] of [['resources', ['git/pr/847']], ['allow_network', ['git.internal']], ['max_file_size', 5]]) {
  request('unset-' + member, `${member} is restricted and the request does not speak about it`, {[member]: value}, {}, no(member, 'unhandled:' + member, null), unset)
  request('none-' + member, `${member} is restricted and the action has none`, {[member]: value}, {[dims[member]]: null}, member === 'resources' ? no(member, undefined, null) : permit(), unset)
}
request('empty-resources', 'resources [] is none', {resources: []}, {resource: 'git/pr/847'}, no('resources'), dropped)
request('empty-network', 'allow_network [] is no network', {allow_network: []}, {network: 'git.internal:443'}, no('allow_network'), dropped)
request('empty-network-none', 'allow_network [] and an action that opens no connection', {allow_network: []}, {network: null}, permit(), dropped)
for (const [id, entry, resource, pass] of [
  ['equal', 'git/pr/847', 'git/pr/847', 1], ['other', 'git/pr/847', 'git/pr/848', 0], ['longer', 'git/pr/847', 'git/pr/8470', 0], ['below', 'git/pr/847', 'git/pr/847/files', 0], ['case', 'git/pr/847', 'Git/pr/847', 0],
  ['prefix', 'git/pr/*', 'git/pr/847', 1], ['prefix-deep', 'git/pr/*', 'git/pr/847/files', 1], ['prefix-itself', 'git/pr/*', 'git/pr', 0], ['prefix-slash', 'git/pr/*', 'git/pr/', 0], ['prefix-sibling', 'git/pr/*', 'git/private', 0],
  ['dots', 'git/pr/*', 'git/pr/../secret', 0], ['dot', 'git/pr/*', 'git/pr/./847', 0], ['double', 'git/pr/*', 'git/pr//847', 0], ['percent', 'git/pr/*', 'git/pr/%2e%2e/secret', 0], ['star', 'git/pr/*', 'git/pr/*', 0], ['unicode', 'git/pr/*', 'git/pr/８47', 0], ['empty', 'git/pr/*', '', 0],
]) request('resource-' + id, `${entry} and ${JSON.stringify(resource)}`, {resources: [entry]}, {resource}, pass ? permit() : no('resources'), wild)
for (const [id, entry, network, pass] of [
  ['equal', 'git.internal', 'git.internal:443', 1], ['no-port', 'git.internal', 'git.internal', 1], ['other', 'git.internal', 'evil.example:443', 0], ['sub', 'git.internal', 'a.git.internal:443', 0], ['suffix', 'git.internal', 'evilgit.internal:443', 0],
  ['upper', 'git.internal', 'GIT.internal:443', 0], ['dot-end', 'git.internal', 'git.internal.:443', 0], ['port', 'git.internal:443', 'git.internal:443', 1], ['port-other', 'git.internal:443', 'git.internal:8443', 0], ['port-missing', 'git.internal:443', 'git.internal', 0],
  ['star', '*.internal', 'git.internal:443', 1], ['star-deep', '*.internal', 'a.b.internal:443', 1], ['star-apex', '*.internal', 'internal:443', 0], ['star-suffix', '*.internal', 'evilinternal:443', 0], ['star-itself', '*.internal', '*.internal:443', 0], ['star-address', '*.internal', '10.0.0.1:443', 0],
  ['v4', '192.0.2.1', '192.0.2.1:80', 1], ['v4-other', '192.0.2.1', '192.0.2.2:80', 0], ['v4-decimal', '192.0.2.1', '3221225985:80', 0], ['v4-mapped', '192.0.2.1', '[::ffff:192.0.2.1]:80', 0], ['v6', '[2001:db8::1]', '[2001:db8::1]:80', 1], ['v6-long', '[2001:db8::1]', '[2001:db8:0::1]:80', 0],
  ['user', 'git.internal', 'git.internal@evil.example:443', 0], ['empty', 'git.internal', '', 0],
]) request('network-' + id, `${entry} and ${JSON.stringify(network)}`, {allow_network: [entry]}, {network}, pass ? permit() : no('allow_network'), id.startsWith('star') ? wild : [])
request('network-redirect', 'what git.internal redirects to is a connection of its own', {allow_network: ['git.internal']}, {network: 'metadata.google.internal:80'}, no('allow_network'), redirect)
request('network-redirect-port', 'a redirect to another port of the same host', {allow_network: ['git.internal:443']}, {network: 'git.internal:80'}, no('allow_network'), redirect)
for (const [id, size, pass] of [['below', 4, 1], ['equal', 5, 1], ['above', 6, 0], ['zero', 0, 1], ['negative', -1, 0]]) request('size-' + id, `${size} of 5 bytes`, {max_file_size: 5}, {size}, pass ? permit() : no('max_file_size'))
request('size-nothing', 'max_file_size 0 takes an empty file', {max_file_size: 0}, {size: 0}, permit())
request('audit', 'audit_required is a duty of who serves the request', {audit_required: true}, {}, permit({obligations: ['audit_required']}))
request('audit-false', 'audit_required false is none', {audit_required: false}, {}, permit())
request('entry-empty', 'an entry of limits without a limit restricts nothing', {}, {}, permit(), dropped)
vector('16-every-link', 'the root restricts, the leaf repeats it: the root is asked first', ['§6.16'], () => {
  const r = limited({resources: ['git/pr/847']}); return {chain: [r, link(r)], request: ask({resource: 'git/pr/848'})}
}, no('resources'))
vector('16-leaf-only', 'the leaf restricts what the root did not', ['§6.16', unset], () => {
  const r = root(); return {chain: [r, link(r, {authorization_details: details({}, {resources: ['git/pr/847']})})], request: ask()}
}, refuse(16, 'constraint_violated', null, 'resources', 'unhandled:resources'))
vector('16-leaf-tighter', 'the root allows it, the leaf does not', ['§6.16'], () => {
  const r = limited({resources: ['git/pr/*']}); return {chain: [r, link(r, {authorization_details: details({}, {resources: ['git/pr/847']})})], request: ask({resource: 'git/pr/848'})}
}, refuse(16, 'constraint_violated', 1, 'resources'))
vector('16-plain-limits', 'limits of a plain token bind as well', ['§6.16'], () => ({chain: [plain({authorization_details: details({}, {max_file_size: 5})})], request: ask({size: 6})}), no('max_file_size'))

// ---- edges ----
const S11 = '§6.11'
function edge(id, title, parent, child, dimension, given, covers = []) {
  vector('11-' + id, title, [S11, '§5', ...[covers].flat()], () => {
    const r = limited(parent)
    return {chain: [r, link(r, {authorization_details: details({}, child)})], request: ask(given)}
  }, dimension === null ? permit() : refuse(11, 'not_narrower', 1, dimension))
}
const drop = {resources: ['git/pr/*'], allow_network: ['*.internal'], max_file_size: 5, max_calls: 5, audit_required: true}
for (const [member, value] of Object.entries(drop)) {
  const rest = {...drop}
  delete rest[member]
  edge('dropped-' + member, `${member} is dropped by the child`, drop, rest, member, {}, dropped)
}
edge('dropped-entry', 'the entry of limits is dropped by the child', {max_file_size: 5}, undefined, undefined, {}, dropped)
edge('dropped-empty-entry', 'an entry of limits without members is dropped by the child', {}, undefined, undefined, {}, dropped)
edge('added-entry', 'a child adds limits', undefined, {max_file_size: 5}, null, {size: 5})
edge('dropped-false', 'audit_required false is dropped', {audit_required: false}, {}, 'audit_required', {}, dropped)
for (const [id, parent, child, ok, given] of [
  ['resource-equal', ['git/pr/847'], ['git/pr/847'], 1, 'git/pr/847'], ['resource-literal-in-prefix', ['git/pr/*'], ['git/pr/847'], 1, 'git/pr/847'], ['resource-prefix-in-prefix', ['git/*'], ['git/pr/*'], 1, 'git/pr/1'], ['resource-prefix-equal', ['git/pr/*'], ['git/pr/*'], 1, 'git/pr/1'],
  ['resource-wider-prefix', ['git/pr/*'], ['git/*'], 0], ['resource-prefix-under-literal', ['git/pr'], ['git/pr/*'], 0], ['resource-apex', ['git/pr/*'], ['git/pr'], 0], ['resource-one-more', ['git/pr/847'], ['git/pr/847', 'git/pr/848'], 0], ['resource-sibling', ['git/pr/*'], ['git/private/x'], 0],
  ['resource-from-none', [], ['git/pr/847'], 0], ['resource-case', ['git/pr/*'], ['Git/pr/847'], 0],
]) edge(id, `resources ${JSON.stringify(parent)} to ${JSON.stringify(child)}`, {resources: parent}, {resources: child}, ok === 1 ? null : 'resources', {resource: given}, wild)
for (const [id, parent, child, ok, given] of [
  ['network-equal', ['git.internal'], ['git.internal'], 1, 'git.internal:443'], ['network-port-added', ['git.internal'], ['git.internal:443'], 1, 'git.internal:443'], ['network-port-dropped', ['git.internal:443'], ['git.internal'], 0], ['network-port-other', ['git.internal:443'], ['git.internal:80'], 0],
  ['network-star-name', ['*.internal'], ['git.internal'], 1, 'git.internal:443'], ['network-star-star', ['*.internal'], ['*.eu.internal'], 1, 'git.eu.internal:443'], ['network-star-equal', ['*.internal'], ['*.internal'], 1, 'git.internal:443'], ['network-star-apex', ['*.internal'], ['internal'], 0],
  ['network-exact-star', ['git.internal'], ['*.git.internal'], 0], ['network-star-wider', ['*.eu.internal'], ['*.internal'], 0], ['network-star-suffix', ['*.internal'], ['evilinternal'], 0], ['network-star-address', ['*.internal'], ['10.0.0.1'], 0],
  ['network-one-more', ['git.internal'], ['git.internal', 'evil.example'], 0], ['network-from-none', [], ['git.internal'], 0], ['network-address', ['192.0.2.1'], ['192.0.2.1:443'], 1, '192.0.2.1:443'], ['network-address-other', ['192.0.2.1'], ['192.0.2.2'], 0],
]) edge(id, `allow_network ${JSON.stringify(parent)} to ${JSON.stringify(child)}`, {allow_network: parent}, {allow_network: child}, ok ? null : 'allow_network', {network: given}, wild)
vector('11-resource-none', 'a child keeps no resource: allowed, and then nothing is', [S11, dropped], () => {
  const r = limited({resources: ['git/pr/*']})
  return {chain: [r, link(r, {authorization_details: details({}, {resources: []})})], request: ask({resource: 'git/pr/1'})}
}, refuse(16, 'constraint_violated', 1, 'resources'))
edge('size-equal', 'max_file_size equal', {max_file_size: 5}, {max_file_size: 5}, null, {size: 5})
edge('size-less', 'max_file_size smaller', {max_file_size: 5}, {max_file_size: 4}, null, {size: 4})
edge('size-more', 'max_file_size larger', {max_file_size: 5}, {max_file_size: 6}, 'max_file_size', {})
edge('size-largest', 'max_file_size 2^53 − 1 below the same', {max_file_size: 9007199254740991}, {max_file_size: 9007199254740991}, null, {size: 5}, number)
edge('calls-more', 'max_calls larger', {max_calls: 5}, {max_calls: 6}, 'max_calls', {})
edge('audit-lowered', 'audit_required lowered', {audit_required: true}, {audit_required: false}, 'audit_required', {})
vector('11-audit-raised', 'audit_required raised by the child', [S11], () => {
  const r = limited({audit_required: false})
  return {chain: [r, link(r, {authorization_details: details({}, {audit_required: true})})]}
}, permit({obligations: ['audit_required']}))
vector('11-calls-two-audiences', 'a child that adds max_calls for two resource servers', [S11], () => {
  const r = root({aud: [GIT, OTHER]})
  return {chain: [r, link(r, {authorization_details: details({}, {max_calls: 5})})]}
}, refuse(11, 'not_narrower', 1, 'max_calls'))
vector('11-calls-one-audience', 'a child that adds max_calls and keeps one of two resource servers', [S11], () => {
  const r = root({aud: [GIT, OTHER]})
  return {chain: [r, link(r, {aud: [GIT], authorization_details: details({}, {max_calls: 5})})], state: {counters: {}}}
}, permit({debits: [1]}))
vector('11-aat-root-limits-added', 'a link adds limits below a root for AAT-only verifiers', [S11], () => {
  const r = root({}, {header: {typ: 'aat+jwt'}})
  return {chain: [r, link(r, {authorization_details: details({}, {max_file_size: 5})})]}
}, refuse(11, 'not_narrower', 1))
vector('11-aat-root-limits-kept', 'a link repeats the limits of a root for AAT-only verifiers', [S11], () => {
  const r = root({authorization_details: details({}, {max_file_size: 5})}, {header: {typ: 'aat+jwt'}})
  return {chain: [r, link(r)], request: ask({size: 5})}
}, permit())
const scopes = (id, title, parent, child, ok, covers = []) => vector('11-scope-' + id, title, [S11, ...covers], () => {
  const r = root({scope: parent}); return {chain: [r, link(r, {scope: child})], request: {scopes: []}}
}, ok ? permit() : refuse(11, 'not_narrower', 1, 'scope'))
scopes('equal', 'the same scopes in another order', 'a:b c:d', 'c:d a:b', 1)
scopes('less', 'one of two scopes', 'a:b c:d', 'a:b', 1)
scopes('none', 'no scope', 'a:b', '', 1, [dropped])
scopes('more', 'a scope more', 'a:b', 'a:b c:d', 0)
scopes('case', 'a scope in another case', 'a:b', 'A:b', 0, [unicode])
scopes('prefix', 'a scope that begins like one', 'repository', 'repository:read', 0, [wild])
scopes('from-none', 'a scope below none', '', 'a:b', 0, [dropped])
scopes('hierarchy', 'edges never expand a hierarchy', 'repository:write', 'repository:read', 0)

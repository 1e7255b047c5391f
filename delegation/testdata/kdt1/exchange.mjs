// Deriving (delegation.md §7): offline (a link) and online (exchange). The
// subject is what the credentials are; exchange looks at steps 0 to 12 of it.
import {ALICE, cnf, details, digest, GIT, keys, line, link, NOW, OTHER, plain, refuse, restart, root, vector, vectors} from './lib.mjs'

// op adds a vector of an operation: exactly the claims that are named are
// compared, null says that there is none.
function op(kind, id, title, covers, build, expected) {
  vector(`7-${kind}-${id}`, title, [`§7.${kind}`, ...[covers].flat()], () => ({...build(), proofs: null, request: null, revoked: null}), made => made.expected ?? refuse(0, 'x'))
  const v = vectors.at(-1)
  restart()
  const made = build()
  const ask = made[kind]
  v[kind] = {...ask, ...(ask.key && {key: kind === 'derive' ? keys[ask.key].private : keys[ask.key].jwk}), ...(ask.to && {to: keys[ask.to].jwk})}
  v.expected = expected.verdict === 'refuse' ? expected : {verdict: kind === 'derive' ? 'derived' : 'exchanged', claims: typeof expected === 'function' ? expected(made.chain) : expected}
}
const no = (reason, dimension) => refuse(7, reason, null, dimension)
const budget = '§12:exchange that forgets a revoked link or a budget', reset = '§12:depth reset through exchange', forged = '§12:forged actor name'
const dropped = '§12:dropped constraint, empty map, empty list'

// ---- online ----
const base = {caller: 'reviewer', receiver: 'scribe', receiver_proved: true, key: 'k5', scopes: ['repository:read'], audience: [GIT], aware: true}
const exchange = (id, title, covers, ask, expected, make = () => line(2)) => op('exchange', id, title, covers, () => ({chain: make(), exchange: {...base, ...ask}}), expected)
exchange('root', 'a chain becomes a new root for another key', [budget, reset], {}, c => ({
  sub: ALICE, gid: 'gnt_1', client_id: 'scribe', scope: 'repository:read', aud: [GIT], exp: NOW + 120, del_depth: 0, del_max_depth: 6, cnf: cnf('k5'),
  anc: [c[0].lid, keys.orch.jkt, c[1].lid, keys.rev.jkt], act: {sub: 'scribe', act: {sub: 'reviewer', act: {sub: 'orchestrator'}}},
}))
exchange('anc-grows', 'anc of the subject stands before its own ids', budget, {}, c => ({anc: [digest('gone'), c[0].lid, keys.orch.jkt, c[1].lid, keys.rev.jkt]}), () => line(2, {anc: [digest('gone')]}))
exchange('anc-33', 'more than 32 ids in anc', budget, {}, no('too_large'), () => line(2, {anc: Array.from({length: 29}, (_, i) => digest('' + i))}))
exchange('anc-32', '32 ids in anc', budget, {}, () => ({scope: 'repository:read'}), () => line(2, {anc: Array.from({length: 28}, (_, i) => digest('' + i))}))
exchange('budget', 'a link has a budget of calls', budget, {}, no('not_narrower', 'max_calls'), () => { const r = root(); return [r, link(r, {authorization_details: details({}, {max_calls: 3})})] })
exchange('budget-root', 'the root has a budget of calls', budget, {}, no('not_narrower', 'max_calls'), () => [root({authorization_details: details({}, {max_calls: 3})})])
exchange('sealed', 'a sealed chain is not handed on', reset, {}, no('depth_invalid'), () => { const r = root(); return [r, link(r, {del_max_depth: 1})] })
exchange('depth-left', 'two hand-overs left: one remains', reset, {}, () => ({del_depth: 0, del_max_depth: 1}), () => { const r = root(); return [r, link(r, {del_max_depth: 3})] })
exchange('depth-last', 'one hand-over left: the result is plain', reset, {}, () => ({del_depth: null, del_max_depth: null, cnf: {jkt: keys.k5.jkt}}), () => { const r = root(); return [r, link(r, {del_max_depth: 2})] })
exchange('depth-asked', 'less depth than is left', [], {max_depth: 1}, () => ({del_max_depth: 1}))
exchange('self', 'the same key keeps itself, without depth', reset, {receiver: undefined, key: undefined}, () => ({del_depth: null, del_max_depth: null, cnf: {jkt: keys.rev.jkt}, client_id: 'reviewer'}))
exchange('self-sealed', 'the same key, from a sealed chain', reset, {receiver: undefined, key: undefined}, () => ({del_depth: null, cnf: {jkt: keys.rev.jkt}}), () => { const r = root(); return [r, link(r, {del_max_depth: 1})] })
exchange('unbound', 'a bound subject never yields an unbound token', [], {key: undefined}, no('holder_binding_failed'))
exchange('scope-wider', 'a scope that the leaf does not hold', [], {scopes: ['comment:write']}, no('not_narrower', 'scope'), () => { const r = root(); return [r, link(r, {scope: 'repository:read'})] })
exchange('audience-wider', 'another resource', '§12:audience confusion', {audience: [OTHER]}, no('audience_widened'))
exchange('ttl', 'cut to what the subject has left', [], {ttl: 3600}, () => ({exp: NOW + 200, iat: NOW}), () => line(2, {}, {exp: NOW + 200}))
exchange('limits-kept', 'limits that nobody mentions stay', dropped, {}, () => ({authorization_details: details({}, {max_file_size: 5, resources: ['git/*']})}), () => [root({authorization_details: details({}, {max_file_size: 5, resources: ['git/*']})})])
exchange('limits-tighter', 'limits may be tighter', [], {limits_text: '{"resources":["git/a"]}'}, () => ({authorization_details: details({}, {max_file_size: 5, resources: ['git/a']})}), () => [root({authorization_details: details({}, {max_file_size: 5, resources: ['git/*']})})])
exchange('limits-wider', 'limits may not be wider', [], {limits_text: '{"max_file_size":6}'}, no('not_narrower', 'max_file_size'), () => [root({authorization_details: details({}, {max_file_size: 5})})])
exchange('tools-wider', 'a tool that the subject does not have', [], {tools_text: '{"admin":{}}'}, no('not_narrower', 'tools'), () => [root({authorization_details: details({read: {}})})])
exchange('tools-every-link', 'authority is covered by every link: the root restricts an argument, the leaf repeats it, the result drops it', dropped, {tools_text: '{"read":{}}'}, no('not_narrower', 'tools'), () => { const r = root({authorization_details: details({read: {a: {constraint_type: 'exact', value: 1}}})}); return [r, link(r)] })
exchange('party-principal', 'the receiver is the principal', forged, {receiver: ALICE}, no('party_repeated', 'agent'))
exchange('party-root', 'the receiver is the client of the root', forged, {receiver: 'orchestrator'}, no('party_repeated', 'agent'))
exchange('party-act', 'the receiver stands in act', forged, {receiver: 'boss'}, no('party_repeated', 'agent'), () => line(2, {act: {sub: 'orchestrator', act: {sub: 'boss'}}}))
exchange('party-unproved', 'a receiver that was only named', forged, {receiver_proved: false}, () => ({act: {sub: 'scribe', proved: false, act: {sub: 'reviewer', act: {sub: 'orchestrator'}}}}))
exchange('key-reuse', 'a key that is in the chain already', [], {key: 'orch'}, no('key_reuse'))
exchange('plain-subject', 'a plain unbound token of a grant with depth 3', [], {caller: 'client', grant_depth: 3}, () => ({del_depth: 0, del_max_depth: 2, act: {sub: 'scribe', act: {sub: 'client'}}}), () => [plain()])
exchange('plain-subject-hops', 'an exchanged plain token remembers the depth that was left', reset, {caller: 'client', grant_depth: 3}, no('depth_invalid'), () => [plain({act: {sub: 'client', act: {sub: 'a', act: {sub: 'b'}}}})])
exchange('subject-expired', 'an expired subject', '§12:time tricks', {}, refuse(10, 'expired', 0), () => [root({exp: NOW})])

// ---- offline ----
const narrow = {key: 'rev', to: 'helper', client_id: 'helper', scopes: ['repository:read']}
const derive = (id, title, covers, ask, expected, make = () => line(2)) => op('derive', id, title, covers, () => ({chain: make(), derive: {...narrow, ...ask}}), expected)
derive('link', 'a link', [], {}, c => ({
  iss: keys.rev.uri, sub: ALICE, client_id: 'helper', aud: [GIT], iat: NOW, exp: NOW + 120, scope: 'repository:read', cnf: cnf('helper'), del_depth: 2, del_max_depth: 8,
  par_hash: c[1].lid, authorization_details: details(), gid: null, act: null, anc: null,
}))
derive('parent-ahead', 'iat is not before the parent\'s', '§12:time tricks', {}, () => ({iat: NOW + 20}), () => line(2, {}, {iat: NOW + 20}))
derive('ttl', 'cut to what the parent has left', '§12:time tricks', {ttl: 900}, () => ({exp: NOW + 100}), () => line(2, {}, {exp: NOW + 100}))
derive('expired', 'an expired parent', '§12:time tricks', {}, no('expired'), () => line(2, {}, {exp: NOW}))
derive('sealed', 'a sealed parent', [], {}, no('depth_invalid'), () => { const r = root(); return [r, link(r, {del_max_depth: 1})] })
derive('seal', 'a link that may not be handed on', [], {max_depth: 0}, () => ({del_depth: 2, del_max_depth: 2}))
derive('scope', 'a scope that the parent does not hold', [], {scopes: ['repository:admin']}, no('not_narrower', 'scope'))
derive('audience', 'another resource', '§12:audience confusion', {audience: [OTHER]}, no('audience_widened'))
derive('key-reuse', 'a key that is in the chain', [], {to: 'orch'}, no('key_reuse'))
derive('limits-kept', 'limits that nobody mentions stay', dropped, {}, () => ({authorization_details: details({}, {max_file_size: 5})}), () => { const r = root({authorization_details: details({}, {max_file_size: 5})}); return [r, link(r)] })
derive('limits-wider', 'limits may not be wider', [], {limits_text: '{"max_file_size":6}'}, no('not_narrower', 'max_file_size'), () => { const r = root({authorization_details: details({}, {max_file_size: 5})}); return [r, link(r)] })
derive('tools-wider', 'a tool that the parent does not have', [], {tools_text: '{"admin":{}}'}, no('not_narrower', 'tools'), () => { const r = root({authorization_details: details({read: {}})}); return [r, link(r)] })
derive('plain', 'a plain token is no parent', '§12:a plain token as parent', {key: 'orch', to: 'rev'}, no('depth_invalid'), () => [plain({}, {key: 'orch'})])

// The order of delegation.md §6: two things are wrong, the first one is named.
import {details, digest, ISSUER, keys, link, NOW, OTHER, refuse, root, vector} from './lib.mjs'

const flip = at => s => { const t = Buffer.from(s); t[at] ^= 1; return t }

// ---- order: each failure beside the ones that come later ----
const R = NOW - 60
const linkDefects = [
  ['crit', 1, 'malformed', s => { s.opt.header = {...s.opt.header, crit: ['x']} }],
  ['typ', 1, 'bad_typ', s => { s.opt.header = {...s.opt.header, typ: 'at+jwt'} }],
  ['alg', 1, 'alg_not_allowed', s => { s.opt.header = {...s.opt.header, alg: 'EdDSA'} }],
  ['signature', 2, 'signature_invalid', s => { s.opt.signature = flip(9) }],
  ['claim', 3, 'malformed', s => { s.over.gid = 'gnt_2' }],
  ['iss', 4, 'iss_mismatch', s => { s.over.iss = ISSUER }],
  ['jti', 5, 'duplicate_jti', (s, r) => { s.over.jti = r.claims.jti }],
  ['par_hash', 6, 'par_hash_mismatch', s => { s.over.par_hash = digest('x') }],
  ['depth', 7, 'depth_invalid', s => { s.over.del_depth = 2 }],
  ['sub', 8, 'principal_altered', s => { s.over.sub = 'usr_mallory' }],
  ['aud', 9, 'audience_widened', s => { s.over.aud = [OTHER] }],
  ['early', 10, 'not_yet_valid', s => { s.over.nbf = NOW + 31 }],
  ['times', 10, 'malformed', s => { s.over.exp = R - 1 }],
  ['outlives', 10, 'outlives_parent', s => { s.over.iat = R - 1 }],
  ['expired', 10, 'expired', s => { s.over.exp = NOW }],
  ['scope', 11, 'not_narrower', s => { s.over.scope = 'repository:write' }],
  ['key', 12, 'key_reuse', s => { s.opt.key = 'orch' }],
]
const rootDefects = [
  ['crit', 1, 'malformed', s => { s.opt.header = {...s.opt.header, crit: ['x']} }],
  ['typ', 1, 'bad_typ', s => { s.opt.header = {...s.opt.header, typ: 'JWT'} }],
  ['alg', 1, 'alg_not_allowed', s => { s.opt.header = {...s.opt.header, alg: 'EdDSA'} }],
  ['signature', 2, 'signature_invalid', s => { s.opt.signature = flip(9) }],
  ['claim', 3, 'malformed', s => { s.over.par_hash = digest('x') }],
  ['iss', 4, 'issuer_mismatch', s => { s.over.iss = 'https://other.example' }],
  ['depth', 7, 'depth_invalid', s => { s.over.del_depth = 1 }],
  ['early', 10, 'not_yet_valid', s => { s.over.nbf = NOW + 31 }],
  ['times', 10, 'malformed', s => { s.over.exp = R - 1 }],
  ['expired', 10, 'expired', s => { s.over.exp = NOW }],
]
function orders(name, defects, build, at) {
  for (let i = 0; i < defects.length; i++) {
    for (const j of [i + 1, i + 2, defects.length - 1]) {
      if (j <= i || j >= defects.length || j === defects.length - 1 && j - i > 2 && i % 3) continue
      const [first, step, reason, apply] = defects[i], [later, , , also] = defects[j]
      const id = `order-${name}-${first}-${later}`
      if (vectorsAdded.has(id)) continue
      vectorsAdded.add(id)
      const dimension = reason === 'not_narrower' ? 'scope' : undefined
      vector(id, `${name}: ${first} and ${later} are wrong; ${reason} comes first`, [`§6.${step}`, '§6.order'], () => {
        const s = {over: {}, opt: {}}, r = root()
        also(s, r)
        apply(s, r)
        return build(s, r)
      }, refuse(step, reason, at, dimension))
    }
  }
}
const vectorsAdded = new Set()
orders('link', linkDefects, (s, r) => ({chain: [r, link(r, s.over, s.opt)]}), 1)
orders('root', rootDefects, s => ({chain: [root(s.over, s.opt)]}), 0)
vector('order-root-kid-signature', 'root: kid of nobody and a forged signature; unknown_root comes first', ['§6.2', '§6.order'], () => ({chain: [root({}, {header: {kid: 'at-nobody'}, signature: flip(9)})]}), refuse(2, 'unknown_root', 0))
vector('order-link-scope-limits', 'scope and limits are wider: scope comes first', ['§6.11', '§6.order'], () => {
  const r = root({authorization_details: details({}, {max_file_size: 1})})
  return {chain: [r, link(r, {scope: 'repository:write', authorization_details: details()})]}
}, refuse(11, 'not_narrower', 1, 'scope'))
vector('order-link-first', 'both links are wrong: the first one is named', ['§6.order'], () => {
  const r = root(), l = link(r, {sub: 'usr_mallory'})
  return {chain: [r, l, link(l, {}, {by: 'mallory'})]}
}, refuse(8, 'principal_altered', 1))
// After the chain: 13 to 17.
const after = [
  ['audience', 13, 'audience_mismatch', v => { v.audience = OTHER; v.url = OTHER + '/x' }],
  ['proof', 14, 'holder_binding_failed', v => { v.proofs = [] }],
  ['revoked', 15, 'revoked', v => { v.revoked = {gid: ['gnt_1']} }],
  ['scope', 16, 'scope_not_granted', v => { v.request.scopes = [['repository:admin']] }],
  ['resource', 16, 'constraint_violated', v => { v.request.resource = 'git/pr/848' }],
  ['counter', 16, 'needs_counter', v => { v.state.counters = undefined }],
  ['replay', 17, 'replayed', v => { v.state.seen = [digest(keys.rev.jkt + 'proof-1')] }],
  ['spent', 17, 'constraint_violated', v => { v.state.counters = {[v.chain[0].lid]: 3} }],
]
const dims = {scope: 'scope', resource: 'resources', counter: 'max_calls', spent: 'max_calls'}
for (let i = 0; i < after.length; i++) {
  for (let j = i + 1; j < after.length; j++) {
    const [first, step, reason, apply] = after[i], [later, , , also] = after[j]
    if (first === 'counter' && later === 'spent') continue
    vector(`order-request-${first}-${later}`, `${first} and ${later} are wrong; ${reason} comes first`, [`§6.${step}`, '§6.order'], () => {
      const r = root({authorization_details: details({}, {resources: ['git/pr/847'], max_calls: 3})})
      const v = {chain: [r, link(r)], request: {scopes: [['repository:read']], resource: 'git/pr/847'}, state: {counters: {}}}
      also(v)
      apply(v)
      return v
    }, refuse(step, reason, {scope: 0, resource: 0, counter: 0}[first] ?? null, dims[first]))
  }
}

// Writes ../kdt1.json, the KDT-1 vectors: node generate.mjs [FILE]
// The same bytes every time: keys come from names and nothing is left to chance.
// ../README.md explains the fields.
import {writeFileSync} from 'node:fs'
import {fileURLToPath} from 'node:url'
import {GIT, ISSUER, keys, NOW, URL as url, vectors} from './lib.mjs'
import './steps.mjs'
import './order.mjs'
import './shapes.mjs'
import './constraints.mjs'
import './limits.mjs'
import './requests.mjs'
import './exchange.mjs'

const anchors = ['at-ed', 'at-es', 'at-rs', 'rv-1', 'mf-1'].map(kid => ({kid, alg: keys[kid].alg, jwk: keys[kid].jwk}))
const file = {
  profile: 'KDT1',
  spec: 'draft-niyikiza-oauth-attenuating-agent-tokens-02 with RFC 9068, 9449, 7800',
  about: 'Chains, proofs and requests with the verdict that a KDT-1 verifier must give, and the reason of every refusal. delegation/testdata/README.md explains the fields. The keys are made from their names; none protects anything.',
  defaults: {now: NOW, issuer: ISSUER, audience: GIT, method: 'GET', url, policy: {}, state: {}, anchors},
  keys: Object.fromEntries(Object.values(keys).map(({name, alg, jwk, jkt, private: secret}) => [name, {alg, jkt, jwk, private: secret}])),
  vectors,
}
// One vector a line, so that a change shows as the vectors it changes.
const {vectors: list, ...head} = file
const text = JSON.stringify(head, null, 1).slice(0, -2) + ',\n "vectors": [\n' + list.map(v => '  ' + JSON.stringify(v)).join(',\n') + '\n ]\n}\n'
writeFileSync(process.argv[2] ?? fileURLToPath(new globalThis.URL('../kdt1.json', import.meta.url)), text)

-- The life of an agent after its registration: new manifests, key changes,
-- suspension (delegation.md §9 "Compromise", §10).

-- The keys that are known to be an agent's. until is 0 for identity keys, those
-- of its manifests: seq is the manifest that brought the key, and none is ever
-- another agent's or comes back. For delegation keys, which the agent proved or
-- signed a card for, seq is 0, and -1 for those it only named; nothing that is bound to the key outlives
-- until. While the agent's status is not 'active' every key of it counts as
-- revoked: here at once, elsewhere through the feed.
CREATE TABLE agent_keys (
  jkt   TEXT   NOT NULL,
  agent TEXT   NOT NULL,
  seq   BIGINT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (jkt, agent)
);
CREATE INDEX agent_keys_agent ON agent_keys (agent);
CREATE INDEX agent_keys_until ON agent_keys (until);
INSERT INTO agent_keys (jkt, agent, seq, until) SELECT jkt, id, 1, 0 FROM agents;

-- An enrolment may be for a key change of one agent that is there, and then for
-- nothing else. Empty: for one agent that is new.
ALTER TABLE enrolments ADD COLUMN renews TEXT NOT NULL DEFAULT '';

-- A suspension stands in revocations too, kind 'agent', value the agent's id,
-- until 0: so it has a number, and the feed's agent member. Resuming sets until.

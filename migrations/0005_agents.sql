-- Agents, the manifests they signed, and the invitations to become one
-- (design D2; authorization-server.md §5; delegation.md §10). An agent's
-- standing grant is a row of grants.

-- id is the RFC 7638 thumbprint of the agent's first key. What its current
-- manifest says stands here as columns, lists as JSON arrays of strings;
-- public_key is the JWK of its identity key, jkt that key's thumbprint.
CREATE TABLE agents (
  id               TEXT   NOT NULL PRIMARY KEY,
  owner            TEXT   NOT NULL,
  name             TEXT   NOT NULL,
  status           TEXT   NOT NULL,
  version          TEXT   NOT NULL,
  purpose          TEXT   NOT NULL,
  scopes           TEXT   NOT NULL,
  capabilities     TEXT   NOT NULL,
  max_depth        BIGINT NOT NULL,
  public_key       TEXT   NOT NULL,
  jkt              TEXT   NOT NULL,
  manifest_seq     BIGINT NOT NULL,
  manifest_expires BIGINT NOT NULL,
  created          BIGINT NOT NULL,
  UNIQUE (owner, name)
);
CREATE INDEX agents_jkt ON agents (jkt);

-- Every manifest as it was signed, so that who an agent was can be proved.
CREATE TABLE manifests (
  agent TEXT   NOT NULL,
  seq   BIGINT NOT NULL,
  token TEXT   NOT NULL,
  added BIGINT NOT NULL,
  PRIMARY KEY (agent, seq)
);

-- hash is of the token; it is spent by one registration. used is 0 until then.
CREATE TABLE enrolments (
  hash    TEXT   NOT NULL PRIMARY KEY,
  owner   TEXT   NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used    BIGINT NOT NULL,
  agent   TEXT   NOT NULL
);
CREATE INDEX enrolments_expires ON enrolments (expires);

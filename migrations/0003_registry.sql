-- What the authorization server knows: its keys, clients and resources, and
-- what was revoked (design D2, D7; authorization-server.md §3, §3a).

-- Sealed by the deployment secret. slot is "<purpose>/<alg>/<generation>": the
-- first process to insert it wins.
CREATE TABLE keys (
  kid     TEXT   NOT NULL PRIMARY KEY,
  slot    TEXT   NOT NULL UNIQUE,
  purpose TEXT   NOT NULL,
  alg     TEXT   NOT NULL,
  sealed  TEXT   NOT NULL,
  created BIGINT NOT NULL
);

-- Static and registered clients. Lists are JSON arrays of strings. used is 0
-- until a person approved the client or it got a token.
CREATE TABLE clients (
  id               TEXT   NOT NULL PRIMARY KEY,
  name             TEXT   NOT NULL,
  kind             TEXT   NOT NULL,
  method           TEXT   NOT NULL,
  secret_hash      TEXT   NOT NULL,
  redirect_uris    TEXT   NOT NULL,
  grant_types      TEXT   NOT NULL,
  scopes           TEXT   NOT NULL,
  application_type TEXT   NOT NULL,
  uri              TEXT   NOT NULL,
  logo_uri         TEXT   NOT NULL,
  disabled         BIGINT NOT NULL,
  created          BIGINT NOT NULL,
  used             BIGINT NOT NULL
);
CREATE INDEX clients_unused ON clients (kind, used, created);

CREATE TABLE resources (
  id           TEXT   NOT NULL PRIMARY KEY,
  name         TEXT   NOT NULL,
  aware        BIGINT NOT NULL,
  token_alg    TEXT   NOT NULL,
  introspector TEXT   NOT NULL,
  created      BIGINT NOT NULL
);

-- A scope belongs to exactly one resource; two of one resource may not differ
-- only by case (folded). position keeps the order they were given in.
CREATE TABLE scopes (
  name        TEXT   NOT NULL PRIMARY KEY,
  resource    TEXT   NOT NULL,
  folded      TEXT   NOT NULL,
  position    BIGINT NOT NULL,
  description TEXT   NOT NULL,
  sensitive   BIGINT NOT NULL,
  users       TEXT   NOT NULL,
  roles       TEXT   NOT NULL,
  UNIQUE (resource, folded)
);

-- seq grows with every new row and the highest is never deleted: the feed's
-- seq must not go back. until is 0 for what stays until an operator lifts it.
CREATE TABLE revocations (
  seq   BIGINT NOT NULL PRIMARY KEY,
  kind  TEXT   NOT NULL,
  value TEXT   NOT NULL,
  path  TEXT   NOT NULL,
  until BIGINT NOT NULL,
  at    BIGINT NOT NULL,
  UNIQUE (kind, value)
);
CREATE INDEX revocations_until ON revocations (until);

-- What may be presented once: hash of who and which id, until it has expired
-- anyway.
CREATE TABLE replays (
  key   TEXT   NOT NULL PRIMARY KEY,
  until BIGINT NOT NULL
);
CREATE INDEX replays_until ON replays (until);

-- Which tokens a record issued: revoke finds what lies below a link by it.
CREATE INDEX audit_lids_issued ON audit_lids (seq) WHERE role = 'issued';

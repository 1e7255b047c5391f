-- What an authorization needs while it happens and while it lives (design D2).
-- There is no row per access token: its gid names a grant.

-- One authorization of a person for a client (kind 'authorization'), or what an
-- agent may get on its own (kind 'standing'). scope and resource are sorted and
-- separated by one space; neither can hold one. expires is 0 for never, revoked
-- is 0 while it lives.
CREATE TABLE grants (
  gid          TEXT   NOT NULL PRIMARY KEY,
  kind         TEXT   NOT NULL,
  sub          TEXT   NOT NULL,
  client_id    TEXT   NOT NULL,
  redirect_uri TEXT   NOT NULL,
  scope        TEXT   NOT NULL,
  resource     TEXT   NOT NULL,
  max_depth    BIGINT NOT NULL,
  hours        TEXT   NOT NULL,
  created      BIGINT NOT NULL,
  used         BIGINT NOT NULL,
  expires      BIGINT NOT NULL,
  revoked      BIGINT NOT NULL
);
CREATE INDEX grants_sub ON grants (sub, client_id);
CREATE INDEX grants_expires ON grants (kind, expires);
CREATE UNIQUE INDEX grants_standing ON grants (client_id) WHERE kind = 'standing';

-- hash is of the code. The grant's row is made when the code is redeemed;
-- until then all of it stands here. used is 0 until it is; keep is when the row
-- may go: soon for a code nobody used, at the family's end for a used one, so
-- that a stolen code is recognised as long as what it gave is alive.
CREATE TABLE codes (
  hash          TEXT   NOT NULL PRIMARY KEY,
  gid           TEXT   NOT NULL,
  client_id     TEXT   NOT NULL,
  redirect_uri  TEXT   NOT NULL,
  redirect_sent BIGINT NOT NULL,
  challenge     TEXT   NOT NULL,
  sub           TEXT   NOT NULL,
  scope         TEXT   NOT NULL,
  resource      TEXT   NOT NULL,
  max_depth     BIGINT NOT NULL,
  created       BIGINT NOT NULL,
  expires       BIGINT NOT NULL,
  used          BIGINT NOT NULL,
  keep          BIGINT NOT NULL
);
CREATE INDEX codes_keep ON codes (keep);

-- hash is of the token. Used rows stay until the family's absolute end: their
-- reuse is how a theft is seen.
CREATE TABLE refresh_tokens (
  hash       TEXT   NOT NULL PRIMARY KEY,
  gid        TEXT   NOT NULL,
  client_id  TEXT   NOT NULL,
  created    BIGINT NOT NULL,
  expires    BIGINT NOT NULL,
  used       BIGINT NOT NULL,
  family_end BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_gid ON refresh_tokens (gid);
CREATE INDEX refresh_tokens_end ON refresh_tokens (family_end);

-- A request that waits for a person. id is the hash of the transaction id on
-- the pages, browser the hash of the browser session. decided is 0 while open.
CREATE TABLE pending (
  id            TEXT   NOT NULL PRIMARY KEY,
  browser       TEXT   NOT NULL,
  client_id     TEXT   NOT NULL,
  redirect_uri  TEXT   NOT NULL,
  redirect_sent BIGINT NOT NULL,
  state         TEXT   NOT NULL,
  state_sent    BIGINT NOT NULL,
  challenge     TEXT   NOT NULL,
  scope         TEXT   NOT NULL,
  resource      TEXT   NOT NULL,
  prompt        TEXT   NOT NULL,
  login_hint    TEXT   NOT NULL,
  created       BIGINT NOT NULL,
  expires       BIGINT NOT NULL,
  decided       BIGINT NOT NULL
);
CREATE INDEX pending_expires ON pending (expires);

-- One approved scope. redirect_uri is the registered one, so that a port chosen
-- by a native client does not ask again.
CREATE TABLE consents (
  sub          TEXT   NOT NULL,
  client_id    TEXT   NOT NULL,
  redirect_uri TEXT   NOT NULL,
  resource     TEXT   NOT NULL,
  scope        TEXT   NOT NULL,
  fingerprint  TEXT   NOT NULL,
  granted      BIGINT NOT NULL,
  PRIMARY KEY (sub, client_id, redirect_uri, resource, scope)
);

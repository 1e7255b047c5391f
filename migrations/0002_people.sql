-- People: who may sign in, who is signed in, and who tries to (package people).

-- name is canonical (NFKC, lower case, trimmed), password an argon2id PHC string.
CREATE TABLE users (
  id       TEXT   NOT NULL PRIMARY KEY,
  name     TEXT   NOT NULL,
  role     TEXT   NOT NULL CHECK (role IN ('member', 'auditor', 'operator')),
  disabled BIGINT NOT NULL CHECK (disabled IN (0, 1)),
  password TEXT   NOT NULL,
  created  BIGINT NOT NULL
);
CREATE UNIQUE INDEX users_name ON users (name);

-- hash is the SHA-256 of the random id that stands in the cookie; id is the
-- public one of the account page and the log. network is a /24 or /48.
CREATE TABLE sessions (
  hash    TEXT   NOT NULL PRIMARY KEY,
  id      TEXT   NOT NULL,
  user_id TEXT   NOT NULL,
  started BIGINT NOT NULL,
  seen    BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  device  TEXT   NOT NULL,
  network TEXT   NOT NULL
);
CREATE UNIQUE INDEX sessions_id ON sessions (id);
CREATE INDEX sessions_user ON sessions (user_id, started);
CREATE INDEX sessions_expires ON sessions (expires);

-- One row per account, browser, address or form that was tried lately. subject
-- is a keyed hash: what was typed cannot be read from it.
CREATE TABLE attempts (
  subject TEXT   NOT NULL PRIMARY KEY,
  tries   BIGINT NOT NULL,
  until   BIGINT NOT NULL,
  seen    BIGINT NOT NULL
);
CREATE INDEX attempts_seen ON attempts (seen);

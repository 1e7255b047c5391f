-- The log (design D2, audit.md §1–3). Portable part; the triggers that refuse
-- UPDATE and DELETE are in 0001_audit.<adapter>.sql.

CREATE TABLE settings (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

-- One row per record. bytes is the JCS form as written and hashed; leaf its
-- hash; the other columns are what records are found by and are proved by
-- nothing: readers show bytes.
CREATE TABLE audit_records (
  seq      BIGINT NOT NULL PRIMARY KEY,
  id       TEXT   NOT NULL,
  wrote    TEXT   NOT NULL,
  time     BIGINT NOT NULL,
  bytes    TEXT   NOT NULL,
  leaf     TEXT   NOT NULL,
  path     TEXT   NOT NULL,
  agent    TEXT   NOT NULL,
  sub      TEXT   NOT NULL,
  action   TEXT   NOT NULL,
  resource TEXT   NOT NULL,
  result   TEXT   NOT NULL,
  grant_id TEXT   NOT NULL
);
CREATE UNIQUE INDEX audit_records_id ON audit_records (id, wrote);
CREATE INDEX audit_records_time ON audit_records (time, seq);
CREATE INDEX audit_records_agent ON audit_records (agent, seq);
CREATE INDEX audit_records_sub ON audit_records (sub, seq);
CREATE INDEX audit_records_action ON audit_records (action, seq);
CREATE INDEX audit_records_resource ON audit_records (resource, seq);
CREATE INDEX audit_records_result ON audit_records (result, seq);
CREATE INDEX audit_records_grant ON audit_records (grant_id, seq);

-- What a record mentions by id: role is chain, anc or issued (lid) or key (a
-- key thumbprint of the chain). exp is in Unix seconds, of issued only, else 0.
CREATE TABLE audit_lids (
  lid  TEXT   NOT NULL,
  role TEXT   NOT NULL,
  seq  BIGINT NOT NULL,
  exp  BIGINT NOT NULL
);
CREATE INDEX audit_lids_lid ON audit_lids (lid, seq);

-- The one row every batch locks first.
CREATE TABLE audit_head (
  one  BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
  size BIGINT NOT NULL,
  leaf TEXT   NOT NULL
);

-- Entries of narrowing Changes that committed while only the log refused.
CREATE TABLE audit_outbox (
  id    TEXT   NOT NULL PRIMARY KEY,
  time  BIGINT NOT NULL,
  entry TEXT   NOT NULL
);
CREATE INDEX audit_outbox_time ON audit_outbox (time, id);

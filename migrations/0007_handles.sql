-- What stands for a delegation until the named agent fetches it
-- (authorization-server.md §5, mcp.md §3).

-- hash is of the handle. sealed is the parent and what was asked of it, under a
-- key derived from the handle, so that who reads the database reads nothing;
-- it is emptied by the redemption. used is 0 until then.
CREATE TABLE handles (
  hash    TEXT   NOT NULL PRIMARY KEY,
  sealed  TEXT   NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used    BIGINT NOT NULL
);
CREATE INDEX handles_expires ON handles (expires);

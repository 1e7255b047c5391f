-- What the role that `kavach serve` connects as may do on PostgreSQL, and no
-- more. It owns nothing: it can neither change the schema nor switch off the
-- triggers that keep the log as it is. Whoever owns the tables runs this after
-- every migration: `kavach migrate --grant ROLE`, or
--
--   psql --single-transaction -v ON_ERROR_STOP=1 -v role=ROLE -f roles.postgres.sql

-- The log only grows; its head moves. Whether a database is closed is decided
-- by whoever moves the deployment, as its owner.
REVOKE ALL ON audit_records, audit_lids, audit_head, audit_outbox FROM :"role";
GRANT SELECT, INSERT ON audit_records, audit_lids TO :"role";
GRANT SELECT, UPDATE (size, leaf) ON audit_head TO :"role";
GRANT SELECT, INSERT, DELETE ON audit_outbox TO :"role";

-- What is known of the schema, and the name of the log, are not the server's.
REVOKE ALL ON migrations, settings FROM :"role";
GRANT SELECT ON migrations TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON settings TO :"role";
ALTER TABLE settings ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS settings_select ON settings;
CREATE POLICY settings_select ON settings FOR SELECT USING (true);
DROP POLICY IF EXISTS settings_insert ON settings;
CREATE POLICY settings_insert ON settings FOR INSERT WITH CHECK (name <> 'audit.log');
DROP POLICY IF EXISTS settings_update ON settings;
CREATE POLICY settings_update ON settings FOR UPDATE USING (name <> 'audit.log');
DROP POLICY IF EXISTS settings_delete ON settings;
CREATE POLICY settings_delete ON settings FOR DELETE USING (name <> 'audit.log');

-- The rest is the deployment: rows come, change and go. None is ever truncated.
REVOKE ALL ON
  agent_keys, agents, attempts, clients, codes, consents, counters, enrolments,
  grants, handles, keys, manifests, pending, refresh_tokens, replays, resources,
  revocations, scopes, sessions, users
  FROM :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON
  agent_keys, agents, attempts, clients, codes, consents, counters, enrolments,
  grants, handles, keys, manifests, pending, refresh_tokens, replays, resources,
  revocations, scopes, sessions, users
  TO :"role";

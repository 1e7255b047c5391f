-- The life of a key (docs/keys.md): next, active, retired, gone. Each is a
-- time, so that replicas agree without telling each other.
--   signs    from when it signs
--   rests    until when; 0: until a newer one is made
--   ends     until when what it signed is accepted; 0: no end yet
--   revoked  since when nothing of it is accepted; 0: never
ALTER TABLE keys ADD COLUMN signs BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN rests BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN ends BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN revoked BIGINT NOT NULL DEFAULT 0;
UPDATE keys SET signs = created;

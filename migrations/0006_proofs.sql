-- Keys that clients prove, and what is bound to them (authorization-server.md
-- §2, §5; RFC 7523, RFC 9449).

-- public_keys are those of private_key_jwt, a JSON array of JWKs as text;
-- bound says that the client gets only tokens bound by DPoP.
ALTER TABLE clients ADD COLUMN public_keys TEXT NOT NULL DEFAULT '[]';
ALTER TABLE clients ADD COLUMN bound BIGINT NOT NULL DEFAULT 0;

-- The thumbprint of the key whose proof a redemption or a refresh needs, empty
-- for none.
ALTER TABLE pending ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE codes ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE refresh_tokens ADD COLUMN jkt TEXT NOT NULL DEFAULT '';

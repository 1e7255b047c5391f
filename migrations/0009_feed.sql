-- What the revocation feed needs to know of a revocation (delegation.md §9).

-- gid is the grant that a revoked link came from. absorbed is 1 for a link
-- below another that is revoked: its row stays, the feed leaves it out.
-- issued_before, of a row of kind 'before', ends what its grant, or every grant
-- for '*', had issued until then.
ALTER TABLE revocations ADD COLUMN gid TEXT NOT NULL DEFAULT '';
ALTER TABLE revocations ADD COLUMN absorbed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE revocations ADD COLUMN issued_before BIGINT NOT NULL DEFAULT 0;
CREATE INDEX revocations_gid ON revocations (gid, kind);

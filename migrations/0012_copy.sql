-- A database may be closed to all that writes (docs/backup.md).

-- Empty while the deployment lives here. Otherwise a word and what it needs:
-- 'copy ID' a copy that is not complete, 'moved ID KIND' what such a copy was
-- made of, 'backup' a file that is only restored from. It stands in the row
-- that every batch locks first, so that closing has an exact place among all
-- writers: what was committed before is copied, and nothing is after.
ALTER TABLE audit_head ADD COLUMN closed TEXT NOT NULL DEFAULT '';

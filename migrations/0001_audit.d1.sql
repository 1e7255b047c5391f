-- No record is ever updated or deleted (audit.md §2), nor replaced: on D1
-- INSERT OR REPLACE deletes without a DELETE trigger.
CREATE TRIGGER audit_records_no_update BEFORE UPDATE ON audit_records
BEGIN SELECT RAISE(ABORT, 'audit records are never updated'); END
;;
CREATE TRIGGER audit_records_no_delete BEFORE DELETE ON audit_records
BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END
;;
CREATE TRIGGER audit_records_no_replace BEFORE INSERT ON audit_records
WHEN EXISTS (SELECT 1 FROM audit_records WHERE seq = NEW.seq)
  OR EXISTS (SELECT 1 FROM audit_records WHERE id = NEW.id AND wrote = NEW.wrote)
BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: audit_records.id, audit_records.wrote'); END
;;
CREATE TRIGGER audit_lids_no_update BEFORE UPDATE ON audit_lids
BEGIN SELECT RAISE(ABORT, 'audit records are never updated'); END
;;
CREATE TRIGGER audit_lids_no_delete BEFORE DELETE ON audit_lids
BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END
;;
CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'the audit head is never deleted'); END
;;
CREATE TRIGGER audit_head_no_replace BEFORE INSERT ON audit_head WHEN EXISTS (SELECT 1 FROM audit_head)
BEGIN SELECT RAISE(ABORT, 'the audit head is never replaced'); END
;;
CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head WHEN NEW.size < OLD.size
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END
;;

-- What a batch must hold to commit (audit.md §3, D1). No row but the fence is
-- ever kept: ok = 1 is ignored, and anything else breaks the batch with the
-- name of what was lost.
CREATE TABLE change_guard (
  k  TEXT   NOT NULL PRIMARY KEY,
  ok BIGINT NOT NULL
)
;;
INSERT INTO change_guard (k, ok) VALUES ('fence', 0)
;;
CREATE TRIGGER change_guard_lost BEFORE INSERT ON change_guard
BEGIN SELECT CASE WHEN NEW.ok = 1 THEN RAISE(IGNORE) ELSE RAISE(ABORT, 'lost ' || NEW.k) END; END
;;

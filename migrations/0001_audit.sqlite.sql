-- No record is ever updated or deleted (audit.md §2).
CREATE TRIGGER audit_records_no_update BEFORE UPDATE ON audit_records
BEGIN SELECT RAISE(ABORT, 'audit records are never updated'); END
;;
CREATE TRIGGER audit_records_no_delete BEFORE DELETE ON audit_records
BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END
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
CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head WHEN NEW.size < OLD.size
BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END
;;

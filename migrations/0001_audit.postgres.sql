-- No record is ever updated or deleted (audit.md §2).
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log only grows: no % of %', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END
$$
;;
CREATE TRIGGER audit_records_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
;;
CREATE TRIGGER audit_lids_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_lids
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
;;
CREATE TRIGGER audit_head_no_delete BEFORE DELETE OR TRUNCATE ON audit_head
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
;;
CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head
  FOR EACH ROW WHEN (NEW.size < OLD.size) EXECUTE FUNCTION audit_refuse()
;;

-- What is done to versions, pins and planned changes is on the audit trail too. That a version is uploaded or deleted, and
-- that an alias moves it, stands there already.
create constraint trigger version_history_audit after insert on version_history
  deferrable initially deferred for each row
  when (new.to_state in ('evaluated', 'retired') or new.from_state = new.to_state)
  execute function audit_change('steps', 'digest', 'tenant_id');
create constraint trigger alias_pins_audit after insert or delete on alias_pins
  deferrable initially deferred for each row execute function audit_change('pins', 'id', 'tenant_id');
create constraint trigger alias_schedules_audit after insert or update on alias_schedules
  deferrable initially deferred for each row execute function audit_change('schedules', 'id', 'tenant_id');

-- Which process let a request through: what Redis' budget counters hold of it is named by the same id, so that it can be
-- put right when that process is gone. Nil: entries from before, and processes whose limits nobody shares.
alter table ledger_entries add column process_id uuid not null default '00000000-0000-0000-0000-000000000000';
alter table ledger_open add column process_id uuid not null default '00000000-0000-0000-0000-000000000000';

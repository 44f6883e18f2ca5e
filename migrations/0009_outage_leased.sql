-- A plan may let its requests go on with what gateways have borrowed ahead of them.
alter table plans drop constraint plans_limits_outage_known;
alter table plans add constraint plans_limits_outage_known check (limits_outage in ('closed', 'leased', 'open'));

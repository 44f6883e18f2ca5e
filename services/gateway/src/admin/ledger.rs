//! `banyan.v1.LedgerService`.

use std::sync::Arc;

use domain::{Fault, Limits, TenantName};
use proto::v1::{self, ledger_service_server::LedgerService};
use store::{EntryKind, GroupBy, ListedEntry, Store, UsageGroup};
use time::{Date, Month, OffsetDateTime};
use tonic::{Request, Response, Status};

use super::{Reach, reach};
use crate::{
    edge::answer,
    guard::Session,
    ledger::Ledger,
    limits::{self, RateLimits},
    parse::{self, Violations, wire_time},
    reconcile::{self, ReconcileError},
    store_fault::StoreFault as _,
    workers::Workers,
};

pub struct Ledgers {
    store: Store,
    ledger: Ledger,
    workers: Workers,
    limits: Arc<dyn RateLimits>,
    defaults: Limits,
}

impl Ledgers {
    pub const fn new(
        store: Store,
        ledger: Ledger,
        workers: Workers,
        limits: Arc<dyn RateLimits>,
        defaults: Limits,
    ) -> Self {
        Self { store, ledger, workers, limits, defaults }
    }

    async fn reach(&self, session: &Session, parent: &TenantName) -> Result<Reach, Fault> {
        reach(&self.store, session, &parent.tenant, "tenant", parent, self.defaults).await
    }

    async fn summarize(
        &self,
        session: Session,
        message: v1::SummarizeUsageRequest,
    ) -> Result<v1::SummarizeUsageResponse, Fault> {
        let mut violations = Violations::default();
        let parent = violations.parse::<TenantName>("parent", &message.parent);
        let mut time = |field: &str, given: Option<prost_types::Timestamp>, default: OffsetDateTime| {
            given.map_or(Some(default), |given| parse::timestamp(&mut violations, field, &given))
        };
        let from = time("start_time", message.start_time, OffsetDateTime::UNIX_EPOCH);
        let to = time("end_time", message.end_time, OffsetDateTime::now_utc());
        let by: Vec<_> = message.group_by.iter().filter_map(|by| read_group_by(&mut violations, *by)).collect();
        let period = by.contains(&GroupBy::Day) && by.contains(&GroupBy::Month);
        violations.require("group_by", !period, "must name the day or the month, not both");
        let (parent, from, to) =
            violations.check(parent.zip(from).zip(to).map(|((name, from), to)| (name, from, to)))?;
        let rows = self.reach(&session, &parent).await?.rows;
        let groups = rows.usage_summary(from, to, &by).await.map_err(|error| error.fault(&parent))?;
        Ok(v1::SummarizeUsageResponse { groups: groups.into_iter().map(wire_group).collect() })
    }

    async fn list(
        &self,
        session: Session,
        message: v1::ListLedgerEntriesRequest,
    ) -> Result<v1::ListLedgerEntriesResponse, Fault> {
        let parent: TenantName = parse::name("parent", &message.parent)?;
        let page = parse::page(message.page_size, message.page_token)?;
        let rows = self.reach(&session, &parent).await?.rows;
        let found = rows.list_entries(&page).await.map_err(|error| error.fault(&parent))?;
        let entries = found.items.into_iter().map(wire_entry).collect();
        Ok(v1::ListLedgerEntriesResponse { entries, next_page_token: found.next_page_token })
    }

    async fn invoice(&self, session: Session, message: v1::GetInvoiceRequest) -> Result<v1::Invoice, Fault> {
        let mut violations = Violations::default();
        let parent = violations.parse::<TenantName>("parent", &message.parent);
        let month = month(&message.month);
        violations.require("month", month.is_some(), "must be a year and a month, such as `2026-11`");
        let (parent, (from, to)) = violations.check(parent.zip(month))?;
        let rows = self.reach(&session, &parent).await?.rows;
        let groups = rows.usage_summary(from, to, &[GroupBy::Model, GroupBy::Price]).await;
        let groups = groups.map_err(|error| error.fault(&parent))?;
        let spent = rows.spent(None, from, to, &[]).await.map_err(|error| error.fault(&parent))?;
        let total_micros = groups.iter().map(|group| group.charged).sum();
        Ok(v1::Invoice {
            parent: message.parent,
            month: message.month,
            lines: groups.into_iter().map(wire_line).collect(),
            total_micros,
            open_micros: spent.saturating_sub(total_micros),
        })
    }
}

#[tonic::async_trait]
impl LedgerService for Ledgers {
    async fn summarize_usage(
        &self,
        request: Request<v1::SummarizeUsageRequest>,
    ) -> Result<Response<v1::SummarizeUsageResponse>, Status> {
        answer(request, |session, message| self.summarize(session, message)).await
    }

    async fn list_ledger_entries(
        &self,
        request: Request<v1::ListLedgerEntriesRequest>,
    ) -> Result<Response<v1::ListLedgerEntriesResponse>, Status> {
        answer(request, |session, message| self.list(session, message)).await
    }

    async fn get_invoice(&self, request: Request<v1::GetInvoiceRequest>) -> Result<Response<v1::Invoice>, Status> {
        answer(request, |session, message| self.invoice(session, message)).await
    }

    async fn reconcile(
        &self,
        request: Request<v1::ReconcileRequest>,
    ) -> Result<Response<v1::ReconcileResponse>, Status> {
        answer(request, |_, _| async move {
            let checks = reconcile::reconcile(&self.store, &self.ledger, &self.workers, self.limits.as_ref()).await;
            let checks = checks.map_err(|error| match error {
                ReconcileError::Store(error) => error.fault("ledger"),
                ReconcileError::Limits(error) => limits::unavailable(&error),
            })?;
            let wire = |check: reconcile::Check| v1::Check {
                name: check.name.to_owned(),
                left: check.left.to_owned(),
                left_value: check.left_value,
                right: check.right.to_owned(),
                right_value: check.right_value,
            };
            Ok(v1::ReconcileResponse { checks: checks.into_iter().map(wire).collect() })
        })
        .await
    }
}

/// The first moment of a month of UTC and of the next one.
fn month(text: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (year, number) = text.split_once('-').filter(|(year, month)| year.len() == 4 && month.len() == 2)?;
    let (year, month) = (year.parse::<i32>().ok()?, Month::try_from(number.parse::<u8>().ok()?).ok()?);
    let start = |year, month| Some(Date::from_calendar_date(year, month, 1).ok()?.midnight().assume_utc());
    let next = if month == Month::December { year + 1 } else { year };
    Some((start(year, month)?, start(next, month.next())?))
}

fn read_group_by(violations: &mut Violations, wire: i32) -> Option<GroupBy> {
    match v1::UsageGroupBy::try_from(wire) {
        Ok(v1::UsageGroupBy::Day) => Some(GroupBy::Day),
        Ok(v1::UsageGroupBy::Month) => Some(GroupBy::Month),
        Ok(v1::UsageGroupBy::Model) => Some(GroupBy::Model),
        Ok(v1::UsageGroupBy::ApiKey) => Some(GroupBy::ApiKey),
        Ok(v1::UsageGroupBy::Unspecified) | Err(_) => {
            violations.add("group_by", "must be one of USAGE_GROUP_BY_…");
            None
        }
    }
}

fn wire_group(group: UsageGroup) -> v1::UsageGroup {
    v1::UsageGroup {
        period: group.period.map(wire_time),
        model: group.model.unwrap_or_default(),
        api_key_id: group.api_key.map(|key| key.to_string()).unwrap_or_default(),
        requests: group.requests,
        prompt_tokens: group.prompt_tokens,
        cached_prompt_tokens: group.cached_prompt_tokens,
        completion_tokens: group.completion_tokens,
        amount_micros: group.charged,
    }
}

fn wire_line(group: UsageGroup) -> v1::InvoiceLine {
    let price = group.price.unwrap_or_default();
    v1::InvoiceLine {
        model: group.model.unwrap_or_default(),
        requests: group.requests,
        input_tokens: group.prompt_tokens - group.cached_prompt_tokens,
        cached_input_tokens: group.cached_prompt_tokens,
        output_tokens: group.completion_tokens,
        input_micros: price.input,
        cached_input_micros: price.cached_input,
        output_micros: price.output,
        amount_micros: group.charged,
    }
}

fn wire_entry(entry: ListedEntry) -> v1::LedgerEntry {
    let kind = match entry.kind {
        EntryKind::Reserved => v1::LedgerEntryKind::Reserved,
        EntryKind::Posted => v1::LedgerEntryKind::Posted,
        EntryKind::Voided => v1::LedgerEntryKind::Voided,
        EntryKind::Expired => v1::LedgerEntryKind::Expired,
    };
    v1::LedgerEntry {
        request_id: entry.request.to_string(),
        kind: kind.into(),
        admit_time: Some(wire_time(entry.at)),
        create_time: Some(wire_time(entry.created_at)),
        api_key_id: entry.api_key.to_string(),
        model: entry.model,
        input_micros: entry.price.input,
        cached_input_micros: entry.price.cached_input,
        output_micros: entry.price.output,
        prompt_tokens: entry.prompt_tokens,
        cached_prompt_tokens: entry.cached_prompt_tokens,
        completion_tokens: entry.completion_tokens,
        held_micros: entry.held,
        charged_micros: entry.charged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_all_of_it_and_no_more() {
        let day = |text: &str| month(text).map(|(from, to)| (from.date().to_string(), to.date().to_string()));
        let dates = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        assert_eq!(day("2026-11"), dates("2026-11-01", "2026-12-01"));
        assert_eq!(day("2026-12"), dates("2026-12-01", "2027-01-01"));
        for wrong in ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01"] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }
}

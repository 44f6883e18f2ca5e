//! Wire to types that cannot be wrong. Every violation of a message is collected before it is refused.

mod generate;

use std::{fmt::Display, str::FromStr, time::Duration};

use domain::{BUDGET_MAX, Fault, KeyLimits, TenantLimits};
use proto::v1;
use store::Page;
use time::OffsetDateTime;

pub use generate::{GenerateRequest, Input, generate, input};

const PAGE_SIZE_DEFAULT: u16 = 100;
const PAGE_SIZE_MAX: u16 = 1_000;
const DISPLAY_NAME_CHARS_MAX: usize = 256;
/// Violations travel in the trailers of the response, which clients bound.
const VIOLATIONS_MAX: usize = 32;

/// Collects violations. A value that is wrong is `None`, and then [`Violations::check`] refuses.
#[derive(Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, description: impl Display) {
        self.0.push((field.into(), description.to_string()));
    }

    pub fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.add(field, error)).ok()
    }

    /// Empty means absent.
    pub fn parse_optional<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() { None } else { self.parse(field, text) }
    }

    pub fn require(&mut self, field: &str, holds: bool, description: impl Display) {
        if !holds {
            self.add(field, description);
        }
    }

    /// Text that people read: bounded, without control characters.
    pub fn display_name(&mut self, field: &str, text: &str) {
        let fits = text.chars().count() <= DISPLAY_NAME_CHARS_MAX && !text.chars().any(char::is_control);
        self.require(field, fits, "must have at most 256 characters, none of them a control character");
    }

    fn budgets(&mut self, limits: &str, day: u64, month: u64) {
        for (field, budget) in [("budget_day", day), ("budget_month", month)] {
            let field = format!("{limits}.{field}");
            self.require(&field, budget <= BUDGET_MAX, format!("must be at most {BUDGET_MAX} micro-units"));
        }
    }

    /// `value` if nothing was wrong. A value can only be absent if something was.
    pub fn check<T>(mut self, value: Option<T>) -> Result<T, Fault> {
        if self.0.len() > VIOLATIONS_MAX {
            let (field, more) = (self.0[VIOLATIONS_MAX].0.clone(), self.0.len() - VIOLATIONS_MAX);
            self.0.truncate(VIOLATIONS_MAX);
            self.add(field, format!("{more} further violations are not listed"));
        }
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ if self.0.is_empty() => Err(Fault::internal()),
            _ => Err(Fault::invalid_all(self.0)),
        }
    }
}

/// One name, and nothing else that could be wrong.
pub fn name<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error| Fault::invalid(field, error))
}

/// A page as AIP-158 has it: 0 is the default, more than the most is the most, negative is wrong.
pub fn page(size: i32, token: String) -> Result<Page, Fault> {
    let size = match u16::try_from(size) {
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
        Err(_) if size > 0 => PAGE_SIZE_MAX,
        Err(_) => return Err(Fault::invalid("page_size", "must not be negative")),
    };
    Ok(Page { size, token })
}

/// 0 on the wire means what stands behind it: the plan, or the platform's default.
pub fn tenant_limits(violations: &mut Violations, field: &str, wire: &v1::TenantLimits) -> TenantLimits {
    violations.budgets(field, wire.budget_day, wire.budget_month);
    let own = |value: u32| (value > 0).then_some(value);
    TenantLimits {
        requests_per_minute: own(wire.requests_per_minute),
        input_tokens_per_minute: own(wire.input_tokens_per_minute),
        output_tokens_per_minute: own(wire.output_tokens_per_minute),
        concurrent_requests: own(wire.concurrent_requests),
        budget_day: (wire.budget_day > 0).then_some(wire.budget_day),
        budget_month: (wire.budget_month > 0).then_some(wire.budget_month),
        adapters_max: own(wire.adapters_max),
        adapter_bytes_max: (wire.adapter_bytes_max > 0).then_some(wire.adapter_bytes_max),
        adapter_rank_max: own(wire.adapter_rank_max),
    }
}

pub fn wire_limits(limits: TenantLimits) -> v1::TenantLimits {
    v1::TenantLimits {
        requests_per_minute: limits.requests_per_minute.unwrap_or_default(),
        input_tokens_per_minute: limits.input_tokens_per_minute.unwrap_or_default(),
        output_tokens_per_minute: limits.output_tokens_per_minute.unwrap_or_default(),
        concurrent_requests: limits.concurrent_requests.unwrap_or_default(),
        budget_day: limits.budget_day.unwrap_or_default(),
        budget_month: limits.budget_month.unwrap_or_default(),
        adapters_max: limits.adapters_max.unwrap_or_default(),
        adapter_bytes_max: limits.adapter_bytes_max.unwrap_or_default(),
        adapter_rank_max: limits.adapter_rank_max.unwrap_or_default(),
    }
}

/// 0 on the wire means none of the key's own.
pub fn key_limits(violations: &mut Violations, field: &str, wire: &v1::KeyLimits) -> KeyLimits {
    violations.budgets(field, wire.budget_day, wire.budget_month);
    let own = |value: u32| (value > 0).then_some(value);
    KeyLimits {
        requests_per_minute: own(wire.requests_per_minute),
        input_tokens_per_minute: own(wire.input_tokens_per_minute),
        output_tokens_per_minute: own(wire.output_tokens_per_minute),
        concurrent_requests: own(wire.concurrent_requests),
        budget_day: (wire.budget_day > 0).then_some(wire.budget_day),
        budget_month: (wire.budget_month > 0).then_some(wire.budget_month),
    }
}

pub fn wire_key_limits(limits: KeyLimits) -> v1::KeyLimits {
    v1::KeyLimits {
        requests_per_minute: limits.requests_per_minute.unwrap_or_default(),
        input_tokens_per_minute: limits.input_tokens_per_minute.unwrap_or_default(),
        output_tokens_per_minute: limits.output_tokens_per_minute.unwrap_or_default(),
        concurrent_requests: limits.concurrent_requests.unwrap_or_default(),
        budget_day: limits.budget_day.unwrap_or_default(),
        budget_month: limits.budget_month.unwrap_or_default(),
    }
}

pub fn timestamp(violations: &mut Violations, field: &str, wire: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(wire.seconds) * 1_000_000_000 + i128::from(wire.nanos);
    let read = OffsetDateTime::from_unix_timestamp_nanos(nanos);
    read.map_err(|_| violations.add(field, "is not a time between the years -9999 and 9999")).ok()
}

pub fn duration(violations: &mut Violations, field: &str, wire: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*wire).map_err(|_| violations.add(field, "must not be negative")).ok()
}

/// A time as it goes over the wire.
pub fn wire_time(time: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: time.unix_timestamp(), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_clamped_and_negative_ones_refused() {
        let size = |size| page(size, String::new()).map(|page| page.size);
        assert_eq!((size(0), size(7), size(1_001), size(i32::MAX)), (Ok(100), Ok(7), Ok(1_000), Ok(1_000)));
        assert!(size(-1).is_err());
    }

    #[test]
    fn times_read_back() {
        let wire = prost_types::Timestamp { seconds: 1_795_000_000, nanos: 123_000_000 };
        let mut violations = Violations::default();
        assert_eq!(timestamp(&mut violations, "t", &wire).map(wire_time), Some(wire));
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(timestamp(&mut violations, "t", &far), None);
        assert!(violations.check(Some(())).is_err());
    }
}

//! `x-ratelimit-*`: what is left after this request, of the limit that is nearest among the tenant's and the key's.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::{Left, Rate};

/// OpenAI knows one limit of tokens where we have two: the one with less left is told.
pub fn tell(headers: &mut HeaderMap, left: &[Left]) {
    let nearest = |rates: &[Rate]| left.iter().filter(|one| rates.contains(&one.limit.rate)).min_by_key(|one| one.left);
    let kinds = [
        ("requests", nearest(&[Rate::RequestsPerMinute])),
        ("tokens", nearest(&[Rate::InputTokensPerMinute, Rate::OutputTokensPerMinute])),
    ];
    for (kind, one) in kinds {
        let Some(one) = one else { continue };
        let told =
            [("limit", one.most.to_string()), ("remaining", one.left.to_string()), ("reset", time(one.full_after))];
        for (what, value) in told {
            let name = HeaderName::try_from(format!("x-ratelimit-{what}-{kind}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
}

/// As OpenAI writes it: `6m0s`, `1s`, `120ms`.
fn time(after: Duration) -> String {
    match (after.as_millis(), after.as_secs()) {
        (ms, 0) => format!("{ms}ms"),
        (_, s) if s < 60 => format!("{s}s"),
        (_, s) => format!("{}m{}s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limit, Scope};

    #[test]
    fn the_nearest_limit_is_told_in_openais_words() {
        let left = |rate, scope, left| Left {
            limit: Limit { scope, rate },
            most: 100,
            left,
            full_after: Duration::from_millis(60_500),
        };
        let mut headers = HeaderMap::new();
        tell(
            &mut headers,
            &[
                left(Rate::RequestsPerMinute, Scope::Tenant, 7),
                left(Rate::RequestsPerMinute, Scope::Key, 3),
                left(Rate::InputTokensPerMinute, Scope::Tenant, 90),
                left(Rate::OutputTokensPerMinute, Scope::Tenant, 80),
            ],
        );
        let told = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert_eq!(
            (told("x-ratelimit-remaining-requests"), told("x-ratelimit-remaining-tokens")),
            ("3".into(), "80".into())
        );
        assert_eq!(
            (told("x-ratelimit-limit-requests"), told("x-ratelimit-reset-tokens")),
            ("100".into(), "1m0s".into())
        );
        assert_eq!((time(Duration::from_millis(120)), time(Duration::from_secs(59))), ("120ms".into(), "59s".into()));
    }
}

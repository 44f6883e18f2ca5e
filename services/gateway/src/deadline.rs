//! When the client stops waiting. tonic holds a stream to its deadline only until the headers are out, so we do it.

use std::{future::Future, time::Duration};

use domain::{Fault, Reason};
use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;

/// The moment at which a call must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The client's `grpc-timeout` less `margin`, or `default`; never more than `most`.
    pub fn of(headers: &HeaderMap, margin: Duration, default: Duration, most: Duration) -> Result<Self, Fault> {
        let timeout = match headers.get("grpc-timeout") {
            None => default,
            Some(value) => {
                let timeout = value.to_str().ok().and_then(read_timeout);
                let fault = || Fault::invalid("grpc-timeout", "must be 1 to 8 digits and one of H, M, S, m, u, n");
                timeout.ok_or_else(fault)?.saturating_sub(margin)
            }
        };
        Ok(Self(Instant::now() + timeout.min(most)))
    }

    pub fn in_time(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    pub const fn instant(self) -> Instant {
        self.0
    }

    pub fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of this one and `timeout` from now.
    pub fn at_most(self, timeout: Duration) -> Self {
        Self(self.0.min(Instant::now() + timeout))
    }

    /// Gives up on `work` when the time is over.
    pub async fn bound<T>(self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match tokio::time::timeout_at(self.0, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Self::fault()),
        }
    }

    pub fn fault() -> Fault {
        Fault::new(Reason::DeadlineExceeded, "the deadline was reached before the end of the answer")
    }
}

/// `grpc-timeout` as in the gRPC over HTTP/2 specification.
fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        assert_eq!(read_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read_timeout("99999999m"), Some(Duration::from_millis(99_999_999)));
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1é"] {
            assert_eq!(read_timeout(wrong), None, "{wrong}");
        }
    }
}

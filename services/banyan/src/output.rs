//! Printing: JSON objects, aligned tables, bytes and times for people. Standard output carries data only.

pub mod json;
mod progress;
mod table;

pub use progress::progress;
pub use table::Table;

use std::io::{self, Write as _};

use prost_types::Timestamp;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Prints `value` over several lines.
///
/// # Errors
/// When standard output is closed.
pub fn print_json(value: &Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// Prints `text` and a line end.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints a piece of a streamed answer at once.
///
/// # Errors
/// When standard output is closed.
pub fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// RFC 3339 in UTC with whole seconds; empty for none.
pub fn time_text(timestamp: Option<&Timestamp>) -> String {
    timestamp
        .and_then(|stamp| OffsetDateTime::from_unix_timestamp(stamp.seconds).ok())
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Such as `12.3 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `sha256:` and the first 12 digits: enough for a person to tell versions apart.
pub fn short_digest(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

/// The last segment of a resource name.
pub fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_digests_are_short() {
        assert_eq!(bytes_text(12), "12 B");
        assert_eq!(bytes_text(3 << 19), "1.5 MiB");
        assert_eq!(short_digest("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short_digest(""), "");
        assert_eq!(last_segment("tenants/a/adapters/b"), "b");
        assert_eq!(time_text(Some(&Timestamp { seconds: 0, nanos: 5 })), "1970-01-01T00:00:00Z");
    }
}

//! What comes with a call besides its message: the request id and the deadline.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

/// Metadata key under which the gateway sends the request id.
pub const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The gateway's id, or a new one.
pub fn request_id(metadata: &MetadataMap) -> String {
    metadata
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// When the caller stops waiting; tonic does not hold streams to it, so whoever streams must.
pub fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = metadata.get("grpc-timeout")?.to_str().ok().and_then(timeout)?;
    Instant::now().checked_add(timeout)
}

/// `grpc-timeout` as in the gRPC over HTTP/2 specification: at most 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(timeout("99999999u"), Some(Duration::from_micros(99_999_999)));
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1é"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_id_that_was_sent_is_kept() {
        let mut metadata = MetadataMap::new();
        metadata.insert(REQUEST_ID, "r-1".parse().expect("ascii"));
        assert_eq!(request_id(&metadata), "r-1");
        assert_ne!(request_id(&MetadataMap::new()), request_id(&MetadataMap::new()));
    }
}

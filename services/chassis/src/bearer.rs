//! Credentials in call metadata.

use tonic::{
    codegen::http::HeaderMap,
    metadata::{Ascii, MetadataValue},
};

/// The token of `authorization: Bearer <token>`, if there is exactly such an entry.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The metadata value that carries `token`; `None` when it has characters that a header cannot hold.
/// Marked sensitive, so that it is neither indexed by HPACK nor printed.
pub fn value(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

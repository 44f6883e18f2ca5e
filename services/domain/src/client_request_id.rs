//! The name that a client gives to a request, under which it may be repeated.

use std::{fmt, str::FromStr};

/// 1 to 255 visible ASCII characters, as a header can hold them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientRequestId(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be 1 to 255 visible ASCII characters")]
pub struct ClientRequestIdError;

impl ClientRequestId {
    pub const LENGTH_MAX: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientRequestId {
    type Err = ClientRequestIdError;

    fn from_str(text: &str) -> Result<Self, ClientRequestIdError> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(ClientRequestIdError) }
    }
}

impl fmt::Display for ClientRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_cannot_hold_is_no_id() {
        assert_eq!("order-17/3".parse::<ClientRequestId>().map(|id| id.to_string()), Ok("order-17/3".to_owned()));
        for wrong in ["", "a b", "é", "a\n", &"x".repeat(256)] {
            assert_eq!(wrong.parse::<ClientRequestId>(), Err(ClientRequestIdError), "{wrong}");
        }
    }
}

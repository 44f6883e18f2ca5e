//! The text form of an API key: `bn_<public>_<secret><checksum>`. Hashing and looking up happen in the gateway.

use std::fmt;

const PREFIX: &str = "bn_";
const PUBLIC_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key. The checksum catches typing errors and truncation before any look-up; it proves nothing.
/// `Debug` hides the secret, and there is no `Display`: writing a key out is a decision ([`ApiKeyText::reveal`]).
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyText {
    text: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a Banyan API key: expected `bn_…` as it was shown when the key was created")]
pub struct ApiKeyTextError;

impl ApiKeyText {
    /// Makes a key from 52 random bytes: 12 for the public id (60 bits), 40 for the secret (over 230 bits).
    pub fn from_random(random: &[u8; 52]) -> Self {
        let (public, secret) = random.split_at(PUBLIC_LENGTH);
        let public: String = public.iter().map(|b| char::from(BASE32[usize::from(b % 32)])).collect();
        Self::assemble(&public, secret)
    }

    /// Another secret for the key with this public id, from 40 random bytes.
    pub fn rotated(public_id: &str, random: &[u8; 40]) -> Result<Self, ApiKeyTextError> {
        let fits = public_id.len() == PUBLIC_LENGTH && public_id.bytes().all(|b| BASE32.contains(&b));
        if fits { Ok(Self::assemble(public_id, random)) } else { Err(ApiKeyTextError) }
    }

    fn assemble(public: &str, secret: &[u8]) -> Self {
        let body = format!("{PREFIX}{public}_{}", base62(secret, SECRET_LENGTH));
        let checksum = checksum(&body);
        Self { text: body + &checksum }
    }

    /// Checks the form and the checksum.
    pub fn parse(text: &str) -> Result<Self, ApiKeyTextError> {
        let length = PREFIX.len() + PUBLIC_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;
        if text.len() != length || !text.is_ascii() || !text.starts_with(PREFIX) {
            return Err(ApiKeyTextError);
        }
        let (body, check) = text.split_at(length - CHECKSUM_LENGTH);
        let (public, secret) = body[PREFIX.len()..].split_once('_').ok_or(ApiKeyTextError)?;
        let fits = public.len() == PUBLIC_LENGTH
            && public.bytes().all(|b| BASE32.contains(&b))
            && secret.bytes().all(|b| BASE62.contains(&b))
            && checksum(body) == check;
        if fits { Ok(Self { text: text.to_owned() }) } else { Err(ApiKeyTextError) }
    }

    /// The part that may be stored, logged and shown.
    pub fn public_id(&self) -> &str {
        &self.text[PREFIX.len()..PREFIX.len() + PUBLIC_LENGTH]
    }

    /// The part that is only ever hashed.
    pub fn secret(&self) -> &str {
        let start = PREFIX.len() + PUBLIC_LENGTH + 1;
        &self.text[start..start + SECRET_LENGTH]
    }

    /// The whole key, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bn_{}_…", self.public_id())
    }
}

/// `length` base-62 digits of the big-endian number that the bytes are, most significant digits dropped.
fn base62(bytes: &[u8], length: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::with_capacity(length);
    for _ in 0..length {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("remainder < 62, so the quotient fits a byte");
            remainder = value % 62;
        }
        digits.push(char::from(BASE62[remainder as usize]));
    }
    digits.into_iter().rev().collect()
}

fn checksum(body: &str) -> String {
    base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKeyText {
        ApiKeyText::from_random(&std::array::from_fn(|i| (i * 37 + 11) as u8))
    }

    #[test]
    fn a_key_reads_back_and_hides_its_secret() {
        let key = key();
        assert_eq!(ApiKeyText::parse(key.reveal()), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(key.secret()));
    }

    #[test]
    fn a_rotated_key_has_the_same_public_id_and_another_secret() {
        let rotated = ApiKeyText::rotated(key().public_id(), &[9; 40]).expect("a public id");
        assert_eq!(ApiKeyText::parse(rotated.reveal()), Ok(rotated.clone()));
        assert_eq!(rotated.public_id(), key().public_id());
        assert_ne!(rotated.secret(), key().secret());
        assert_eq!(ApiKeyText::rotated("short", &[9; 40]), Err(ApiKeyTextError));
    }

    #[test]
    fn a_single_wrong_character_is_seen() {
        let text = key().reveal().to_owned();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(ApiKeyText::parse(&String::from_utf8(bytes).unwrap()), Err(ApiKeyTextError), "at {at}");
        }
        assert!(ApiKeyText::parse(&text[..text.len() - 1]).is_err());
        assert!(ApiKeyText::parse("").is_err());
    }
}

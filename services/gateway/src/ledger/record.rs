//! What the log holds: one record for a request that was let through, one for its end. Encoded by hand, little-endian, so
//! that a record is small and its layout is written down here; every record stands for itself.

use std::time::Duration;

use domain::{ApiKeyId, Digest, Price, RequestId, TenantId};
use store::{End, FinishReason, Hold, LedgerEntry, Outcome, UsageRecord};
use time::OffsetDateTime;
use uuid::Uuid;

/// No record is longer.
pub const RECORD_BYTES_MAX: usize = 1024;
/// Of a worker's name, and of a model's: longer than any that the gateway admits.
const TEXT_BYTES_MAX: usize = 255;
/// Version 1 does not say which process a request is of.
const VERSION: u8 = 2;

const RESERVED: u8 = 1;
const POSTED: u8 = 2;
const VOIDED: u8 = 3;
const EXPIRED: u8 = 4;

/// Bytes that are no record of ours, though their checksum is right: another version wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of another version")]
pub struct Unreadable;

pub fn encode(entry: &LedgerEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    let (kind, hold) = match entry {
        LedgerEntry::Reserved(hold) => (RESERVED, hold),
        LedgerEntry::Ended(hold, End::Posted(_)) => (POSTED, hold),
        LedgerEntry::Ended(hold, End::Voided) => (VOIDED, hold),
        LedgerEntry::Ended(hold, End::Expired) => (EXPIRED, hold),
    };
    out.extend([VERSION, kind]);
    put_hold(&mut out, hold);
    if let LedgerEntry::Ended(_, End::Posted(record)) = entry {
        put_record(&mut out, record);
    }
    out
}

pub fn decode(bytes: &[u8]) -> Result<LedgerEntry, Unreadable> {
    let mut input = Input(bytes);
    let version = input.u8()?;
    if !(1..=VERSION).contains(&version) {
        return Err(Unreadable);
    }
    let kind = input.u8()?;
    let hold = input.hold(version)?;
    let entry = match kind {
        RESERVED => LedgerEntry::Reserved(hold),
        POSTED => {
            let record = input.record(&hold)?;
            LedgerEntry::Ended(hold, End::Posted(Box::new(record)))
        }
        VOIDED => LedgerEntry::Ended(hold, End::Voided),
        EXPIRED => LedgerEntry::Ended(hold, End::Expired),
        _ => return Err(Unreadable),
    };
    if input.0.is_empty() { Ok(entry) } else { Err(Unreadable) }
}

fn put_hold(out: &mut Vec<u8>, hold: &Hold) {
    for id in [hold.tenant.uuid(), hold.request.uuid(), hold.api_key.uuid()] {
        out.extend(id.as_bytes());
    }
    for time in [hold.at, hold.deadline] {
        let micros = i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        out.extend(micros.to_le_bytes());
    }
    let Price { input, cached_input, output } = hold.price;
    for number in [input, cached_input, output, hold.prompt_tokens, hold.answer_tokens_max, hold.held] {
        out.extend(number.to_le_bytes());
    }
    out.extend(hold.base_digest.as_bytes());
    out.push(u8::from(hold.adapter_digest.is_some()));
    if let Some(digest) = &hold.adapter_digest {
        out.extend(digest.as_bytes());
    }
    put_text(out, &hold.model);
    out.extend(hold.process.as_bytes());
}

fn put_record(out: &mut Vec<u8>, record: &UsageRecord) {
    for number in [record.prompt_tokens, record.cached_prompt_tokens, record.completion_tokens] {
        out.extend(number.to_le_bytes());
    }
    let outcome = OUTCOMES.iter().position(|known| *known == record.outcome).unwrap_or(OUTCOMES.len());
    out.push(u8::try_from(outcome).unwrap_or(u8::MAX));
    let first = record.first_token.map_or(u64::MAX, millis);
    out.extend(first.to_le_bytes());
    out.extend(millis(record.duration).to_le_bytes());
    put_text(out, &record.worker);
}

/// By their place here, which never changes.
const OUTCOMES: [Outcome; 7] = [
    Outcome::Finished(FinishReason::Eos),
    Outcome::Finished(FinishReason::Stop),
    Outcome::Finished(FinishReason::Length),
    Outcome::Finished(FinishReason::Budget),
    Outcome::Cancelled,
    Outcome::DeadlineExceeded,
    Outcome::Failed,
];

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push(u8::try_from(end).unwrap_or(u8::MAX));
    out.extend(&text.as_bytes()[..end]);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Unreadable> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn uuid(&mut self) -> Result<Uuid, Unreadable> {
        self.bytes().map(Uuid::from_bytes)
    }

    fn time(&mut self) -> Result<OffsetDateTime, Unreadable> {
        let micros = self.bytes().map(i64::from_le_bytes)?;
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).map_err(|_| Unreadable)
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Unreadable)
    }

    fn hold(&mut self, version: u8) -> Result<Hold, Unreadable> {
        Ok(Hold {
            tenant: TenantId::new(self.uuid()?),
            request: RequestId::new(self.uuid()?),
            api_key: ApiKeyId::new(self.uuid()?),
            at: self.time()?,
            deadline: self.time()?,
            price: Price { input: self.u64()?, cached_input: self.u64()?, output: self.u64()? },
            prompt_tokens: self.u64()?,
            answer_tokens_max: self.u64()?,
            held: self.u64()?,
            base_digest: Digest::new(self.bytes()?),
            adapter_digest: if self.u8()? == 0 { None } else { Some(Digest::new(self.bytes()?)) },
            model: self.text()?,
            process: if version == 1 { Uuid::nil() } else { self.uuid()? },
        })
    }

    fn record(&mut self, hold: &Hold) -> Result<UsageRecord, Unreadable> {
        let [prompt_tokens, cached_prompt_tokens, completion_tokens] = [self.u64()?, self.u64()?, self.u64()?];
        let outcome = *OUTCOMES.get(usize::from(self.u8()?)).ok_or(Unreadable)?;
        let first = self.u64()?;
        let duration = Duration::from_millis(self.u64()?);
        Ok(UsageRecord {
            prompt_tokens,
            cached_prompt_tokens,
            completion_tokens,
            outcome,
            first_token: (first != u64::MAX).then(|| Duration::from_millis(first)),
            duration,
            worker: self.text()?,
            ..hold.record()
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn hold() -> Hold {
        Hold {
            tenant: TenantId::new(Uuid::now_v7()),
            request: RequestId::new(Uuid::now_v7()),
            api_key: ApiKeyId::new(Uuid::now_v7()),
            model: "acme/claims@canary".to_owned(),
            adapter_digest: Some(Digest::new([1; 32])),
            base_digest: Digest::new([2; 32]),
            at: OffsetDateTime::from_unix_timestamp(1_795_000_000).expect("a time"),
            deadline: OffsetDateTime::from_unix_timestamp(1_795_000_300).expect("a time"),
            price: Price { input: 1, cached_input: 2, output: 3 },
            prompt_tokens: 10,
            answer_tokens_max: 20,
            held: 71,
            process: Uuid::now_v7(),
        }
    }

    #[test]
    fn every_record_reads_back_and_is_not_longer_than_said() {
        let longest = Hold { model: "m".repeat(TEXT_BYTES_MAX), ..hold() };
        let base = Hold { adapter_digest: None, model: "base".to_owned(), ..hold() };
        let mut entries = Vec::new();
        for hold in [longest, base] {
            entries.push(LedgerEntry::Reserved(hold.clone()));
            entries.push(LedgerEntry::Ended(hold.clone(), End::Voided));
            entries.push(LedgerEntry::Ended(hold.clone(), End::Expired));
            for outcome in OUTCOMES {
                let first_token = (outcome != Outcome::Failed).then_some(Duration::from_millis(7));
                let worker = "w".repeat(TEXT_BYTES_MAX);
                let record = UsageRecord { outcome, first_token, worker, completion_tokens: 5, ..hold.record() };
                entries.push(LedgerEntry::Ended(hold.clone(), End::Posted(Box::new(record))));
            }
        }
        for entry in entries {
            let bytes = encode(&entry);
            assert!(bytes.len() <= RECORD_BYTES_MAX, "{}", bytes.len());
            assert_eq!(decode(&bytes), Ok(entry));
            assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_err()), "a part is no record");
        }
    }
}

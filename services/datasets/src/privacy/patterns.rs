//! The forms of secrets and personal data. What has a checksum is believed only when that is right.

use std::{ops::Range, sync::LazyLock};

use regex::{Regex, RegexSet};

use super::{
    Kind,
    checksum::{card_is_right, iban_is_right},
};

/// In the order in which they win where two fit one place.
const PATTERNS: [(Kind, &str); 13] = [
    (
        Kind::PrivateKey,
        r"-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]{0,20}PRIVATE KEY-----|\z)",
    ),
    (Kind::ApiKey, r"(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)"),
    (Kind::ApiKey, r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    (Kind::ApiKey, r"(?-u:\b)sk-[A-Za-z0-9_-]{20,255}"),
    (Kind::ApiKey, r"(?-u:\b)xox[abeoprs]-[A-Za-z0-9-]{10,255}"),
    (Kind::ApiKey, r"(?-u:\b)AIza[A-Za-z0-9_-]{35}"),
    (Kind::ApiKey, r"(?-u:\b)(?:[rs]k_live_[A-Za-z0-9]{16,255}|hf_[A-Za-z0-9]{30,255}|glpat-[A-Za-z0-9_-]{20,255})"),
    (Kind::ApiKey, r"(?-u:\b)eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    (Kind::Iban, r"(?-u:\b)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?-u:\b)"),
    (Kind::Card, r"(?-u:\b)[2-6](?:[ -]?[0-9]){12,18}(?-u:\b)"),
    (Kind::Email, r"(?-u:\b)[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?-u:\b)"),
    (Kind::Phone, r"(?:\+|(?-u:\b)00)[1-9][0-9]{0,2}(?:[ ./-]?\(?[0-9]{1,5}\)?){2,6}(?-u:\b)"),
    (
        Kind::Phone,
        r"(?:\([0-9]{2,5}\) ?|(?-u:\b)[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}(?-u:\b)|(?-u:\b)1[3-9][0-9]{9}(?-u:\b)",
    ),
];

/// Digits of a phone number with its country (ITU-T E.164 allows 15), and without.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

struct Compiled {
    /// Whether any fits: almost no text has one.
    any: RegexSet,
    each: Vec<(Kind, Regex)>,
}

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| Compiled {
    any: constant(RegexSet::new(PATTERNS.map(|(_, pattern)| pattern))),
    each: PATTERNS.iter().map(|(kind, pattern)| (*kind, constant(Regex::new(pattern)))).collect(),
});

/// The patterns are constants that every test of this file compiles.
fn constant<T>(compiled: Result<T, regex::Error>) -> T {
    compiled.unwrap_or_else(|error| unreachable!("{error}"))
}

pub(super) fn find(text: &str) -> Vec<(Kind, Range<usize>)> {
    let Compiled { any, each } = &*COMPILED;
    let mut found: Vec<(Kind, Range<usize>)> = Vec::new();
    for at in any.matches(text) {
        let (kind, regex) = &each[at];
        for place in regex.find_iter(text) {
            let Some(range) = believed(*kind, text, place.range()) else { continue };
            if found.iter().all(|(_, other)| range.end <= other.start || other.end <= range.start) {
                found.push((*kind, range));
            }
        }
    }
    found.sort_by_key(|(_, range)| range.start);
    found
}

/// The part of a match that really is one.
fn believed(kind: Kind, text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let digits = || text[range.clone()].bytes().filter(u8::is_ascii_digit).count();
    match kind {
        Kind::Iban => iban(text, range),
        Kind::Card => card_is_right(&text[range.clone()]).then_some(range),
        Kind::Phone => (PHONE_DIGITS.contains(&digits()) && !goes_on(text, &range)).then_some(range),
        Kind::PrivateKey | Kind::ApiKey | Kind::Email => Some(range),
    }
}

/// Whether it is only the later part of a longer number.
fn goes_on(text: &str, range: &Range<usize>) -> bool {
    let before = text[..range.start].trim_end_matches([' ', '.', '-', '/']);
    before.ends_with(|c: char| c.is_ascii_digit()) && !text[range.clone()].starts_with('+')
}

/// The match may have taken words in capitals that follow: they are given back, group by group.
fn iban(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let whole = &text[range.clone()];
    let ends = std::iter::once(whole.len()).chain(whole.rmatch_indices(' ').map(|(at, _)| at));
    ends.map(|end| range.start..range.start + end).find(|part| iban_is_right(&text[part.clone()]))
}

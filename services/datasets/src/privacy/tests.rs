use super::*;

fn kinds(text: &str) -> Vec<Kind> {
    scan(text).into_iter().map(|(kind, _)| kind).collect()
}

/// No key of anybody's: the parts are put together here so that nobody's scanner takes the source for a leak.
fn key(prefix: &str, letters: usize) -> String {
    format!("{prefix}{}", "Ab3dEf6hIj".repeat(letters.div_ceil(10)).get(..letters).expect("long enough"))
}

#[test]
fn every_kind_is_found_where_it_stands_and_masked_by_its_placeholder() {
    let pem = format!("-----BEGIN {0}-----\nMIIB\n-----END {0}-----", "RSA PRIVATE KEY");
    let cases = [
        (Kind::Email, "ada.lovelace+x@mail.example.org".to_owned()),
        (Kind::Phone, "+49 (30) 1234-5678".to_owned()),
        (Kind::Phone, "(555) 123-4567".to_owned()),
        (Kind::Phone, "13812345678".to_owned()),
        (Kind::Iban, "DE89 3704 0044 0532 0130 00".to_owned()),
        (Kind::Iban, "GB82WEST12345698765432".to_owned()),
        (Kind::Card, "4111-1111-1111-1111".to_owned()),
        (Kind::PrivateKey, pem),
        (Kind::ApiKey, format!("AKIA{}", "ABCDEFGHIJKLMNOP")),
        (Kind::ApiKey, key("ghp_", 36)),
        (Kind::ApiKey, key("sk-", 40)),
        (Kind::ApiKey, key("xoxb-", 20)),
        (Kind::ApiKey, key("AIza", 35)),
        (Kind::ApiKey, key("hf_", 34)),
    ];
    for (kind, secret) in cases {
        let text = format!("Für uns: {secret}, danke.");
        let start = text.find(&secret).expect("there");
        let found = scan(&text);
        assert_eq!(found, [(kind, start..start + secret.len())], "{text}");
        assert_eq!(masked(&text, &found), format!("Für uns: {}, danke.", kind.placeholder()));
    }
}

#[test]
fn numbers_with_a_wrong_check_digit_and_ordinary_numbers_are_nobodys() {
    for text in [
        "order 4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 01",
        "on 2026-11-28 at 10:15, invoice 2026-000123, 1 234 567 parts",
        "E-17 means late fee; 3.14159265358979",
        "a@b and @name",
        "version 1.2.3-4567",
        "sk-short",
    ] {
        assert_eq!(kinds(text), [], "{text}");
    }
}

#[test]
fn capitals_after_an_iban_are_not_taken_with_it() {
    let text = "DE89 3704 0044 0532 0130 00 BITTE";
    assert_eq!(scan(text), [(Kind::Iban, 0..27)]);
}

#[test]
fn a_key_without_its_end_is_masked_to_the_end() {
    let text = format!("x -----BEGIN {}-----\nMII", "PRIVATE KEY");
    assert_eq!(masked(&text, &scan(&text)), "x [PRIVATE_KEY]");
}

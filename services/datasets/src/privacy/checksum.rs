//! Check digits: IBAN (ISO 13616, mod 97) and card numbers (ISO/IEC 7812, Luhn).

/// Whether `text`, blanks aside, is an IBAN with the right check digits.
pub(super) fn iban_is_right(text: &str) -> bool {
    let letters: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    if !(15..=34).contains(&letters.len()) {
        return false;
    }
    let moved = letters[4..].iter().chain(&letters[..4]);
    let rest = moved.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.to_ascii_uppercase().saturating_sub(b'A')) + 10) % 97,
    });
    rest == 1
}

/// Whether the digits of `text` are a card number: length as its issuer has it, the right check digit.
pub(super) fn card_is_right(text: &str) -> bool {
    let digits: Vec<u32> = text.bytes().filter(u8::is_ascii_digit).map(|byte| u32::from(byte - b'0')).collect();
    let is_length = match (digits.first(), digits.get(1)) {
        (Some(4), _) => matches!(digits.len(), 13 | 16 | 19),
        (Some(5), Some(1..=5)) | (Some(2), Some(2..=7)) => digits.len() == 16,
        (Some(3), Some(4 | 7)) => digits.len() == 15,
        (Some(3), Some(0 | 6 | 8)) => digits.len() == 14,
        (Some(3), Some(5)) | (Some(6), _) => (16..=19).contains(&digits.len()),
        _ => false,
    };
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let weighed = |(at, digit): (usize, &u32)| if at % 2 == 1 { doubled(*digit) } else { *digit };
    is_length && digits.iter().rev().enumerate().map(weighed).sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_digit_makes_a_number_wrong() {
        assert!(iban_is_right("DE89 3704 0044 0532 0130 00") && iban_is_right("GB82WEST12345698765432"));
        assert!(!iban_is_right("DE89 3704 0044 0532 0130 01") && !iban_is_right("DE89"));
        assert!(card_is_right("4111 1111 1111 1111") && !card_is_right("4111 1111 1111 1112"));
        assert!(card_is_right("378282246310005") && !card_is_right("3704 0044 0532 0130 01"));
    }
}

//! Everything that may be found about a row or a file: a closed set of codes, what each does to the row, and the fix.
//! This table is the one place that says which findings refuse and which only warn.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a finding does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The row is not in the version.
    Refuse,
    /// The row is in the version; a person should look at it.
    Warn,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $severity:ident $fix:literal;)+) => {
        /// The closed list of findings. The text form (`E_…` refuses, `W_…` warns) is part of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant),+
        }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),+];

            /// The stable text form, such as `E_JSON`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),+ }
            }

            pub fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity),+ }
            }

            /// What to do about it.
            pub fn fix(self) -> &'static str {
                match self { $(Code::$variant => $fix),+ }
            }
        }
    };
}

codes! {
    /// The row is not UTF-8, begins with a byte-order mark or holds a NUL.
    Encoding = "E_ENCODING" Refuse "save the file as UTF-8 without a byte-order mark and without NUL characters";
    /// The line is no JSON object.
    Json = "E_JSON" Refuse "write one JSON object a line";
    /// The record has not as many fields as the header.
    Csv = "E_CSV" Refuse "give every record the columns of the header; put fields with commas, quotes or line ends in quotes";
    /// The row is longer than [`crate::Limits::row_bytes_max`].
    RowBytes = "E_ROW_BYTES" Refuse "split the row";
    /// The row comes after [`crate::Limits::rows_max`] others.
    Rows = "E_ROWS" Refuse "split the file, or give fewer and better rows";
    /// A field that the shape needs is missing or of another type.
    Field = "E_FIELD" Refuse "give the field, or name its column by a mapping such as prompt=question";
    /// Something that would be lost: tools, images, sounds.
    Unsupported = "E_UNSUPPORTED" Refuse "leave the row out, or write what it holds as text";
    /// A role that is none of system, user and assistant.
    Role = "E_ROLE" Refuse "use the roles system, user and assistant";
    /// Roles in another order than [system] user assistant [user assistant …].
    RoleOrder = "E_ROLE_ORDER" Refuse "begin with the user, after at most one system message, and let user and assistant take turns";
    /// The last turn is not the assistant's.
    EndsElsewhere = "E_ENDS_ELSEWHERE" Refuse "end the row with the answer that is to be learned";
    /// A text or turn without a word.
    Empty = "E_EMPTY" Refuse "fill it in or leave the row out";
    /// A label that is not in the label set.
    Label = "E_LABEL" Refuse "use a label of the set, or add this one to it";
    /// A text holds what the tokenizer takes for a special token.
    SpecialToken = "E_SPECIAL_TOKEN" Refuse "write turns as messages, without the base model's own marks";
    /// The chat template, or the tokenizer, refuses the row.
    Template = "E_TEMPLATE" Refuse "bring the row into a form that the base model's chat template takes";
    /// The chat template renders a turn otherwise when another follows, so no part of the text is surely the answer's.
    TemplateUnstable = "E_TEMPLATE_UNSTABLE" Refuse "give one row for each answer, with a single trained turn at its end";
    /// More tokens than the base model, or the caller, allows.
    TooLong = "E_TOO_LONG" Refuse "shorten or split the row";
    /// Nothing in it would be learned.
    NothingTrained = "E_NOTHING_TRAINED" Refuse "leave weight 1 on at least one answer";
    /// The same as an earlier row, letter by letter.
    Duplicate = "E_DUPLICATE" Refuse "keep one of the two";
    /// Its question stands in the held-out set, which then measures memory.
    Leak = "E_LEAK" Refuse "take the row out of one of the two sets";
    /// A private key or an API key.
    Secret = "E_SECRET" Refuse "take it out and revoke it, or let it be masked";
    /// An e-mail address, phone number, IBAN or card number.
    Personal = "W_PERSONAL" Warn "take it out, or let it be masked";
    /// A secret or personal datum gave way to a placeholder.
    Masked = "W_MASKED" Warn "nothing, if a placeholder is what the model should learn";
    /// Nearly the same as an earlier row.
    NearDuplicate = "W_NEAR_DUPLICATE" Warn "keep one of the two, unless both wordings are wanted";
    /// The same question as an earlier row, with another answer.
    Conflict = "W_CONFLICT" Warn "keep the right answer, or say in the question what makes the difference";
    /// Nearly the same as a row on another side of the split.
    NearLeak = "W_NEAR_LEAK" Warn "give both rows the same group, so that they stay on one side";
    /// Some labels have far more rows than others, or one has none.
    LabelImbalance = "W_LABEL_IMBALANCE" Warn "add rows of the rare labels";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codes_first_letter_says_what_it_does() {
        for code in Code::ALL {
            assert_eq!(code.as_str().starts_with("E_"), code.severity() == Severity::Refuse, "{code}");
            assert!(code.as_str().starts_with("E_") || code.as_str().starts_with("W_"));
        }
    }
}

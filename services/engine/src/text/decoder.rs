//! Streaming detokenizer: what each new token adds to the text. A character whose bytes are spread over several tokens
//! appears when its last byte has come. It knows no stop strings.
//!
//! The work for a token does not depend on how many came before: bytes are decoded as they come, and where the
//! tokenizer's decoder looks at neighbours, one neighbour is enough for the decoders of the supported families
//! (byte-level; metaspace and byte-fallback as SentencePiece checkpoints have them).

use tokenizers::{DecoderWrapper, Tokenizer};

use super::TextModel;

/// Decodes one answer. The concatenation of all [`Decoder::push`] and of [`Decoder::finish`] is [`TextModel::decode`] of
/// all its tokens. (Where a byte-fallback tokenizer is fed bytes that are not UTF-8, each maximal invalid part becomes one
/// U+FFFD; the reference turns the whole run of byte tokens into U+FFFD, which a stream cannot know in time.)
#[derive(Clone)]
pub struct Decoder {
    text: TextModel,
    /// Bytes at the end that are no whole character yet; at most 3.
    pending: Vec<u8>,
    /// The neighbour to the left, for decoders that look at it.
    last: Option<u32>,
}

/// How the tokenizer spells text as tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each character of a token stands for one byte (GPT-2's table).
    ByteLevel,
    /// Tokens are text, joined by the tokenizer's decoder; `<0xXX>` is a byte where `byte_fallback` is set.
    Joined { byte_fallback: bool },
}

impl Spelling {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let steps = match tokenizer.get_decoder() {
            None => &[],
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(one) => std::slice::from_ref(one),
        };
        if let [DecoderWrapper::ByteLevel(_)] = steps {
            return Self::ByteLevel;
        }
        Self::Joined { byte_fallback: steps.iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_))) }
    }
}

impl TextModel {
    /// The bytes that a token adds in the middle of a text; `None` for special and unknown tokens, which add nothing.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.tokenizer.id_to_token(id).filter(|_| !self.inner.special.contains(&id))?;
        match self.inner.spelling {
            Spelling::ByteLevel => Some(byte_level_bytes(&token)),
            Spelling::Joined { byte_fallback } => match fallback_byte(&token).filter(|_| byte_fallback) {
                Some(byte) => Some(vec![byte]),
                None => {
                    let neighbour = Decoder { text: self.clone(), pending: Vec::new(), last: Some(id) };
                    Some(neighbour.joined(id).into_bytes())
                }
            },
        }
    }
}

impl Decoder {
    /// A special token at the end of the prompt is a border; anything else is the neighbour of the first token, so that
    /// a completion keeps the space that divides it from its prompt.
    pub(super) fn new(text: TextModel, prompt: &[u32]) -> Self {
        let last = prompt.last().copied().filter(|id| !text.inner.special.contains(id));
        Self { text, pending: Vec::new(), last }
    }

    /// Takes the next token; returns the whole characters that it completes. Special and unknown tokens add nothing.
    pub fn push(&mut self, id: u32) -> String {
        if self.text.inner.special.contains(&id) {
            return String::new();
        }
        let Some(token) = self.text.inner.tokenizer.id_to_token(id) else { return String::new() };
        match self.text.inner.spelling {
            Spelling::ByteLevel => {
                self.pending.extend(byte_level_bytes(&token));
                self.whole_characters()
            }
            Spelling::Joined { byte_fallback } => {
                let out = match fallback_byte(&token).filter(|_| byte_fallback) {
                    Some(byte) => {
                        self.pending.push(byte);
                        self.whole_characters()
                    }
                    None => self.finish() + &self.joined(id),
                };
                self.last = Some(id);
                out
            }
        }
    }

    /// The end of the answer: what is left of an incomplete character, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// What `id` adds behind its neighbour.
    fn joined(&self, id: u32) -> String {
        let decode = |ids: &[u32]| self.text.inner.tokenizer.decode(ids, true).unwrap_or_default();
        let Some(last) = self.last else { return decode(&[id]) };
        let (before, both) = (decode(&[last]), decode(&[last, id]));
        both.strip_prefix(&before).map_or_else(|| decode(&[id]), str::to_owned)
    }

    /// Takes all that is decided out of `pending`, invalid parts as U+FFFD, as [`String::from_utf8_lossy`] would.
    fn whole_characters(&mut self) -> String {
        let mut out = String::new();
        let mut taken = 0;
        for chunk in self.pending.utf8_chunks() {
            out.push_str(chunk.valid());
            taken += chunk.valid().len();
            let rest = &self.pending[taken..];
            let incomplete = std::str::from_utf8(rest).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
            if incomplete {
                break;
            }
            if !chunk.invalid().is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
                taken += chunk.invalid().len();
            }
        }
        self.pending.drain(..taken);
        out
    }
}

/// The bytes that a byte-level token stands for. An added token that is not written in the table's characters is taken
/// as plain text, as the reference does.
fn byte_level_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's table: printable bytes stand for themselves, the others are counted up from U+0100 in byte order.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// `<0xE4>` → `0xE4`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Every byte is a token, then a few longer ones; id = byte for the first 256.
    fn byte_level() -> TextModel {
        let table: Vec<(char, u8)> =
            (0..0x180).filter_map(char::from_u32).filter_map(|c| byte_of(c).map(|b| (c, b))).collect();
        assert_eq!(table.len(), 256);
        let mut vocab = serde_json::Map::new();
        for (character, byte) in &table {
            vocab.insert(character.to_string(), json!(byte));
        }
        let spell = |text: &[u8]| -> String {
            text.iter().map(|b| table.iter().find(|(_, byte)| byte == b).expect("whole table").0).collect()
        };
        let pieces: [&[u8]; 6] =
            [b" the", "你好".as_bytes(), &"你".as_bytes()[..2], &"😀".as_bytes()[1..], "é".as_bytes(), b"</"];
        for (i, piece) in pieces.iter().enumerate() {
            vocab.insert(spell(piece), json!(256 + i));
        }
        text_model(json!({
            "version": "1.0", "pre_tokenizer": null, "normalizer": null, "post_processor": null,
            "added_tokens": [
                {"id": 262, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 263, "content": "<tool call>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
            ],
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }))
    }

    /// As a SentencePiece checkpoint: 0..256 are byte tokens, then pieces.
    fn byte_fallback() -> TextModel {
        let mut vocab = serde_json::Map::new();
        for byte in 0..256 {
            vocab.insert(format!("<0x{byte:02X}>"), json!(byte));
        }
        for (i, piece) in ["▁", "▁Hello", "▁world", "ab", "▁▁", "好", "."].iter().enumerate() {
            vocab.insert((*piece).to_owned(), json!(256 + i));
        }
        text_model(json!({
            "version": "1.0", "pre_tokenizer": null, "normalizer": null, "post_processor": null,
            "added_tokens": [
                {"id": 263, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            ],
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true},
        }))
    }

    fn text_model(tokenizer: serde_json::Value) -> TextModel {
        TextModel::new(Tokenizer::from_bytes(tokenizer.to_string()).expect("a tokenizer"), None)
    }

    fn stream(text: &TextModel, ids: &[u32]) -> Vec<String> {
        let mut decoder = text.decoder(&[]);
        let mut out: Vec<_> = ids.iter().map(|id| decoder.push(*id)).collect();
        out.push(decoder.finish());
        out
    }

    fn ids_of(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn a_character_appears_with_its_last_byte() {
        for text in [byte_level(), byte_fallback()] {
            assert_eq!(
                stream(&text, &ids_of("你a😀")),
                ["", "", "你", "a", "", "", "", "😀", ""],
                "{:?}",
                text.inner.spelling
            );
        }
    }

    #[test]
    fn invalid_bytes_do_not_hold_back_what_follows() {
        let text = byte_level();
        assert_eq!(stream(&text, &[0xff, 0x61, 0xe4, 0xbd, 0x62]), ["\u{fffd}", "a", "", "", "\u{fffd}b", ""]);
        assert_eq!(stream(&text, &[0xe4, 0xbd]), ["", "", "\u{fffd}"]);
    }

    #[test]
    fn special_tokens_add_nothing_and_plain_added_tokens_their_text() {
        assert_eq!(stream(&byte_level(), &[262, 0x61, 263, 99_999, 0x62]), ["", "a", "<tool call>", "", "b", ""]);
    }

    #[test]
    fn the_bytes_of_a_token_are_those_that_it_has_in_the_middle_of_a_text() {
        let bytes =
            |text: &TextModel, id| text.token_bytes(id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let level = byte_level();
        assert_eq!(level.token_bytes(0xe4), Some(vec![0xe4]));
        assert_eq!(bytes(&level, 256).as_deref(), Some(" the"));
        assert_eq!((bytes(&level, 262), bytes(&level, 999)), (None, None));
        assert_eq!(bytes(&level, 263).as_deref(), Some("<tool call>"));
        let fallback = byte_fallback();
        assert_eq!(fallback.token_bytes(0xe4), Some(vec![0xe4]));
        let pieces: Vec<_> = (256..264).map(|id| bytes(&fallback, id)).collect();
        let expected = [" ", " Hello", " world", "ab", "  ", "好", "."].map(|text| Some(text.to_owned()));
        assert_eq!(pieces[..7], expected);
        assert_eq!(pieces[7], None);
        assert_eq!(fallback.special_token(263).as_deref(), Some("</s>"));
    }

    #[test]
    fn a_completion_keeps_the_space_behind_its_prompt_and_a_chat_answer_has_none() {
        let text = byte_fallback();
        assert_eq!(text.decoder(&[257]).push(258), " world");
        assert_eq!(text.decoder(&[257, 263]).push(258), "world");
        assert_eq!(text.decoder(&[]).push(258), "world");
    }

    proptest! {
        #[test]
        fn the_stream_is_the_full_text_for_any_byte_level_tokens(ids in prop::collection::vec(0u32..266, 0..60)) {
            let text = byte_level();
            prop_assert_eq!(stream(&text, &ids).concat(), text.decode(&ids).unwrap());
        }

        #[test]
        fn the_stream_is_the_full_text_for_valid_byte_fallback_tokens(
            parts in prop::collection::vec(prop_oneof![
                (256u32..264).prop_map(|id| vec![id]),
                // These tokenizers spell a space as U+2581; as a byte token at the very start the reference strips it.
                any::<char>().prop_filter("a space has its own token", |c| *c != ' ').prop_map(|c| ids_of(&c.to_string())),
                Just(ids_of("好😀")),
            ], 0..30)
        ) {
            let text = byte_fallback();
            let ids = parts.concat();
            prop_assert_eq!(stream(&text, &ids).concat(), text.decode(&ids).unwrap());
        }
    }
}

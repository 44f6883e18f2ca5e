//! Three accepted rows as training sees them: those whose content hashes to the least, so that they are the same for the
//! same rows and are spread over the file.

use crate::{
    encode::{Rendered, encode},
    finding::FileName,
    report::{Accepted, Part, Sample},
    row::Content,
    text::Text,
};

const SAMPLES: usize = 3;

#[derive(Default)]
pub(crate) struct Samples(Vec<Kept>);

struct Kept {
    key: u128,
    file: FileName,
    line: u64,
    accepted: Accepted,
    content: Content,
}

impl Samples {
    pub(crate) fn offer(&mut self, key: u128, file: FileName, line: u64, accepted: Accepted, content: Content) {
        let at = self.0.partition_point(|kept| kept.key < key);
        if at < SAMPLES {
            self.0.insert(at, Kept { key, file, line, accepted, content });
            self.0.truncate(SAMPLES);
        }
    }

    pub(crate) fn render(self, text: &impl Text) -> Vec<Sample> {
        let rendered = |kept: Kept| {
            let (_, rendered) = encode(&kept.content, text).ok()?;
            let Kept { file, line, accepted: Accepted { side, tokens, trained_tokens }, .. } = kept;
            Some(Sample { file, line, side, tokens, trained_tokens, parts: parts(&rendered) })
        };
        self.0.into_iter().filter_map(rendered).collect()
    }
}

fn parts(rendered: &Rendered) -> Vec<Part> {
    let Rendered { text, trained } = rendered;
    let mut parts = Vec::new();
    let mut at = 0;
    let mut push = |range: std::ops::Range<usize>, trained| {
        // A token may end within a character; the character then goes with the token that ends it.
        let piece = text.get(range).unwrap_or_default();
        if !piece.is_empty() {
            parts.push(Part { text: piece.to_owned(), trained });
        }
    };
    for range in trained {
        push(at..range.start, false);
        push(range.clone(), true);
        at = range.end;
    }
    push(at..text.len(), false);
    parts
}

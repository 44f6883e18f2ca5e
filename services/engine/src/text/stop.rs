//! Stop strings over a stream of text: nothing of a stop string, and nothing behind it, gets out, however the text is cut
//! into pieces.

/// Passes text on up to the first stop string. First is the one that is complete first; of several that are complete at
/// once, the longest. What the text is cut into does not matter.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The end of the text, as far as it may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next text; returns what may go out now.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped || text.is_empty() {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(start) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.split_off(self.held.len() - self.undecided());
        std::mem::replace(&mut self.held, kept)
    }

    /// A stop string was found; the text before it is all out.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The end of the text: gives back what was held.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the first stop string in `held` begins.
    fn first_stop(&self) -> Option<usize> {
        let ends = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        ends.min().map(|(_, start)| start)
    }

    /// Bytes at the end of `held` that may be the beginning of a stop string.
    fn undecided(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let most = held.len().min(stop.len() - 1);
            (1..=most).rev().find(|n| held.ends_with(&stop.as_bytes()[..*n])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<_> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out: Vec<_> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        out.push(matcher.finish());
        (out, matcher.stopped())
    }

    fn owned(pieces: &[&str]) -> Vec<String> {
        pieces.iter().map(|piece| (*piece).to_owned()).collect()
    }

    #[test]
    fn a_stop_string_over_several_pieces_never_gets_out() {
        assert_eq!(run(&["\nUser:"], &["Hi\n", "Us", "er: x", "y"]), (owned(&["Hi", "", "", "", ""]), true));
        assert_eq!(run(&["停止"], &["你好停", "止吧"]), (owned(&["你好", "", ""]), true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_gets_out() {
        assert_eq!(run(&["\nUser:"], &["a\nUs", "ed"]), (owned(&["a", "\nUsed", ""]), false));
        assert_eq!(run(&["</s>"], &["a<", "/"]), (owned(&["a", "", "</"]), false));
    }

    #[test]
    fn of_several_the_first_complete_one_counts() {
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]), (owned(&["xa", ""]), true));
        assert_eq!(run(&["abcd", "bc"], &["xab", "c", "d"]), (owned(&["x", "a", "", ""]), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), (owned(&["x", ""]), true));
    }

    /// The definition, on the whole text: the first stop string to be complete, the longest where several are.
    fn truncated(text: &str, stops: &[String]) -> String {
        for end in 0..=text.len() {
            let starts = stops.iter().filter(|s| !s.is_empty() && text.as_bytes()[..end].ends_with(s.as_bytes()));
            if let Some(start) = starts.map(|s| end - s.len()).min() {
                return text[..start].to_owned();
            }
        }
        text.to_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_stream_is_the_text_up_to_the_first_stop(
            pieces in prop::collection::vec("[ab好😀]{0,4}", 0..12),
            stops in prop::collection::vec("[ab好😀]{0,4}", 0..4),
        ) {
            let mut matcher = StopMatcher::new(&stops);
            let mut out = String::new();
            for piece in &pieces {
                out += &matcher.push(piece);
                prop_assert!(truncated(&pieces.concat(), &stops).starts_with(&out));
            }
            out += &matcher.finish();
            prop_assert_eq!(out, truncated(&pieces.concat(), &stops));
        }
    }
}

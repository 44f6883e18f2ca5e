//! What is compiled, what is refused, and the way of a guide, on the shipped tokenizer.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::config::GrammarConfig;
use crate::text::TextModel;

const VOCAB: usize = 4096;
const EOS: u32 = 2;

struct World {
    grammars: Grammars,
    text: TextModel,
    done: mpsc::Receiver<()>,
}

impl World {
    fn new(config: GrammarConfig) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
        let text = TextModel::load(&dir).expect("the shipped tokenizer loads");
        let (sender, done) = mpsc::sync_channel(1);
        // One call that is waiting says all that a second one would.
        let done_now = move || sender.try_send(()).unwrap_or_default();
        let grammars = Grammars::start(&config, text.clone(), VOCAB, vec![EOS], done_now).expect("threads");
        Self { grammars, text, done }
    }

    fn guide(&self, format: ResponseFormat) -> Guide {
        let (guide, job) = Guide::new(self.grammars.desk(), format, Vec::new());
        assert!(!guide.is_ready() && guide.fault().is_none());
        self.grammars.desk().begin(job);
        self.wait(&guide);
        guide
    }

    fn wait(&self, guide: &Guide) {
        while !guide.is_ready() && guide.fault().is_none() {
            self.done.recv_timeout(Duration::from_secs(60)).expect("an end");
        }
    }

    /// Feeds the tokens of `text`; the guide afterwards, or the text up to which it was allowed.
    fn feed(&self, format: ResponseFormat, text: &str) -> Result<Guide, String> {
        let mut guide = self.guide(format);
        let mut done = String::new();
        for id in self.text.encode(text).expect("tokens") {
            if !guide.mask().expect("ready").allows(id) {
                return Err(done);
            }
            done += &self.text.token_text(id);
            guide.advance(id);
            self.wait(&guide);
        }
        Ok(guide)
    }
}

fn ends(guide: &Guide) -> bool {
    guide.mask().expect("ready").allows(EOS)
}

fn schema(text: &str) -> ResponseFormat {
    ResponseFormat::JsonSchema(text.to_owned())
}

const CODE: &str = r#"{"type": "object", "properties": {"code": {"type": "integer", "maximum": 99}, "known": {"type": "boolean"}},
    "required": ["code", "known"], "additionalProperties": false}"#;

#[test]
fn every_kind_of_format_lets_through_what_fits_and_nothing_else() {
    let world = World::new(GrammarConfig::default());
    let whole = world.feed(schema(CODE), r#"{"code": 17, "known": true}"#).expect("it fits");
    assert!(ends(&whole));
    assert!(!ends(&world.feed(schema(CODE), r#"{"code": 17"#).expect("it fits so far")));
    assert!(world.feed(schema(CODE), r#"{"code": 117}"#).is_err());
    assert!(world.feed(schema(CODE), r#"{"kode"#).is_err());
    assert!(ends(&world.feed(ResponseFormat::JsonObject, r#"{"a": [1, {"b": null}]}"#).expect("an object")));
    assert!(world.feed(ResponseFormat::JsonObject, "[1]").is_err());
    let code = || ResponseFormat::Regex("[A-Z]-[0-9]{2}( or [A-Z]-[0-9]{2})*".to_owned());
    assert!(ends(&world.feed(code(), "E-17 or F-20").expect("it matches")));
    assert!(world.feed(code(), "E-17 and").is_err());
    let sum = || ResponseFormat::Lark("start: N (\"+\" N)*\nN: /[0-9]+|\\(x\\)/".to_owned());
    assert!(ends(&world.feed(sum(), "1+22+(x)").expect("a sum")));
    assert!(world.feed(sum(), "1-").is_err());
}

#[test]
fn a_finished_text_allows_the_end_and_nothing_else() {
    let world = World::new(GrammarConfig::default());
    let guide = world.feed(ResponseFormat::Regex("yes|no".to_owned()), "yes").expect("it matches");
    let mask = guide.mask().expect("ready");
    assert_eq!((0..VOCAB as u32).filter(|id| mask.allows(*id)).collect::<Vec<_>>(), [EOS]);
}

#[test]
fn what_cannot_be_served_is_refused_in_words_and_under_its_field() {
    let world = World::new(GrammarConfig::default());
    let refusal = |format| {
        let fault = world.guide(format).fault().expect("refused");
        assert_eq!(fault.reason, domain::Reason::InvalidRequest);
        assert!(matches!(&fault.details[..], [domain::Detail::Violation { field, .. }] if field == FIELD));
        assert!(fault.message.len() < 1200 && !fault.message.contains("backtrace"), "{}", fault.message);
        fault.message
    };
    assert!(refusal(schema("{")).contains("not JSON"));
    assert!(refusal(schema("7")).contains("object"));
    assert!(refusal(schema(r#"{"type": "no such type"}"#)).contains("no such type"));
    assert!(refusal(schema(r##"{"$ref": "#"}"##)).contains("no further text"));
    let long = refusal(ResponseFormat::Regex(format!("{}(", "ab".repeat(500))));
    assert!(long.contains(" … ") && long.contains("unclosed group"), "{long}");
    assert!(refusal(schema(r#"{"$ref": "https://example.com/schema.json"}"#)).contains("$ref"));
    assert!(refusal(schema(r#"{"type": "integer", "minimum": 3, "maximum": 2}"#)).contains("nsatisfiable"));
    refusal(ResponseFormat::Regex("(".to_owned()));
    refusal(ResponseFormat::Regex("(a)\\1".to_owned()));
    refusal(ResponseFormat::Lark("start: nothing_such".to_owned()));
    // The next one is served all the same.
    assert!(world.guide(ResponseFormat::JsonObject).is_ready());
}

#[test]
fn costs_have_limits() {
    let few_symbols = World::new(GrammarConfig { symbols_max: 5, ..GrammarConfig::default() });
    assert!(few_symbols.guide(schema(CODE)).fault().is_some());
    let little_fuel = World::new(GrammarConfig { compile_fuel: 100, ..GrammarConfig::default() });
    let many = (0..500).map(|n| format!("{n}[a-z]{{2,9}}{n}")).collect::<Vec<_>>().join("|");
    assert!(little_fuel.guide(ResponseFormat::Regex(many)).fault().is_some());
    // Refused on the way: the answer ends with the reason.
    let few_states = World::new(GrammarConfig { lexer_states_max: 30, ..GrammarConfig::default() });
    let text = "abcdefghijabcdefghijabcdefghijabcdefghij";
    let mut refused = few_states.guide(ResponseFormat::Regex("[a-j]{300}".to_owned()));
    for id in few_states.text.encode(text).expect("tokens") {
        if refused.fault().is_some() {
            break;
        }
        refused.advance(id);
        few_states.wait(&refused);
    }
    assert!(refused.fault().is_some());
}

#[test]
fn a_guide_that_is_gone_costs_nothing_and_the_threads_end() {
    let world = World::new(GrammarConfig { threads: 1, ..GrammarConfig::default() });
    let (guide, job) = Guide::new(world.grammars.desk(), ResponseFormat::JsonObject, Vec::new());
    drop(guide);
    assert!(job.place.upgrade().is_none());
    world.grammars.desk().begin(job);
    assert!(world.guide(ResponseFormat::JsonObject).is_ready());
    let World { grammars, done, .. } = world;
    drop(grammars);
    assert!(done.try_iter().count() <= 1 && done.recv().is_err());
}

/// Of formats that try to take all time, memory or stack.
fn hostile() -> Vec<(&'static str, ResponseFormat)> {
    let size = GrammarConfig::default().source_bytes_max;
    let nested = |open: &str, middle: &str, close: &str| {
        let depth = (size - 200) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    let chain: Vec<_> = (0..3000).map(|n| format!("r{n}: r{}", n + 1)).collect();
    let refs: Vec<_> =
        (0..900).map(|n| format!(r##""d{n}": {{"items": {{"$ref": "#/$defs/d{}"}}}}"##, n + 1)).collect();
    let all_of = |n: usize| -> String {
        let parts: Vec<_> =
            (0..n).map(|i| format!(r#"{{"anyOf": [{{"pattern": "a{i}.*b"}}, {{"pattern": "c.*{i}d"}}]}}"#)).collect();
        format!(r#"{{"type": "string", "allOf": [{}]}}"#, parts.join(","))
    };
    let properties: Vec<_> = (0..1500).map(|n| format!(r#""p{n}": {{"type": "string", "maxLength": 9999}}"#)).collect();
    let regex = ResponseFormat::Regex;
    let lark = ResponseFormat::Lark;
    vec![
        ("nested groups", regex(nested("(", "a", ")"))),
        ("nested repetitions", regex(nested("(", "a", "b)*"))),
        ("repetitions of repetitions", regex("((((a{1,999}b?){1,999}c?){1,999}d?){1,999}e?){1,999}".into())),
        ("a long count", regex("(.{1,9}x){60000}".into())),
        ("many states", regex(".*a.{200}b.{200}c".into())),
        ("nested classes", regex(nested("[a", "b", "]"))),
        ("nested lark groups", lark(format!("start: {}", nested("(", "\"a\"", ")")))),
        ("nested lark options", lark(format!("start: {}", nested("[", "\"a\"", "]")))),
        ("a chain of rules", lark(format!("start: r0\n{}\nr3000: \"a\"", chain.join("\n")))),
        ("left recursion that is ambiguous", lark("start: s\ns: s s s | s s | \"a\" | \"\"".into())),
        ("a rule that is itself", lark("start: start".into())),
        ("a lexeme of all", lark("start: A A A\nA: /(.|\\n)*/".into())),
        ("nested schema", schema(&nested(r#"{"items":"#, "{}", "}"))),
        (
            "a chain of references",
            schema(&format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d900": {{}}}}}}"##, refs.join(","))),
        ),
        ("a reference to itself", schema(r##"{"$ref": "#"}"##)),
        ("all of any of", schema(&all_of(40))),
        (
            "many optional properties",
            schema(&format!(r#"{{"type": "object", "properties": {{{}}}}}"#, properties.join(","))),
        ),
        ("a huge length", schema(r#"{"type": "string", "minLength": 1000000000, "maxLength": 2000000000}"#)),
        (
            "huge arrays",
            schema(r#"{"type": "array", "minItems": 100000000, "items": {"type": "array", "minItems": 100000000}}"#),
        ),
        ("a huge number", schema(r#"{"type": "number", "multipleOf": 0.000000000000000001, "minimum": 1e300}"#)),
    ]
}

#[test]
fn hostile_formats_are_served_or_refused_and_take_neither_the_process_nor_the_next_one_with_them() {
    // A quarter of the stack that there is by default.
    let stack_bytes = GrammarConfig::default().stack_bytes / 4;
    let world = World::new(GrammarConfig { stack_bytes, ..GrammarConfig::default() });
    for (name, format) in hostile() {
        let mut guide = world.guide(format);
        // As far as it goes, always with the first token that is allowed.
        for _ in 0..40 {
            let Some(mask) = guide.mask() else { break };
            let Some(id) = (0..VOCAB as u32).find(|id| *id != EOS && mask.allows(*id)) else { break };
            guide.advance(id);
            world.wait(&guide);
        }
        assert_ne!(guide.is_ready(), guide.fault().is_some(), "{name}");
    }
    assert!(world.guide(ResponseFormat::JsonObject).is_ready());
}

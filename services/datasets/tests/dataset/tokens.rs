//! Which tokens are learned.

use datasets::{Code, Content, Role, Text, Turn, encode};

use crate::support::{END, Template, WORDS, Words};

fn turn(role: Role, content: &str) -> Turn {
    Turn::new(role, content)
}

/// The trained parts of the rendered text.
fn learned(content: &Content, text: &Words) -> Vec<String> {
    let (encoded, rendered) = encode(content, text).expect("encoded");
    let parts: Vec<_> = rendered.trained.iter().map(|range| rendered.text[range.clone()].to_owned()).collect();
    let tokens: usize = parts.iter().map(|part| text.encode_rendered(part).expect("tokens").len()).sum();
    assert_eq!(encoded.trained.trained(), tokens as u64, "the mask marks the tokens of these parts and no others");
    assert_eq!(encoded.trained.len(), encoded.ids.len());
    parts
}

#[test]
fn what_is_learned_is_each_answer_with_the_token_that_ends_it() {
    let turns = vec![
        turn(Role::System, "Be brief."),
        turn(Role::User, "What is it?"),
        turn(Role::Assistant, "A late fee."),
        turn(Role::User, "And now?"),
        turn(Role::Assistant, "Pay."),
    ];
    let parts = learned(&Content::Chat(turns), &WORDS());
    assert_eq!(parts, [format!("A late fee.{END}"), format!("Pay.{END}")]);
}

#[test]
fn an_answer_of_weight_0_is_context_only() {
    let quiet = Turn { weight: Some(0), ..turn(Role::Assistant, "Wrong.") };
    let turns =
        vec![turn(Role::User, "One?"), quiet.clone(), turn(Role::User, "Two?"), turn(Role::Assistant, "Right.")];
    assert_eq!(learned(&Content::Chat(turns), &WORDS()), [format!("Right.{END}")]);
    let none = encode(&Content::Chat(vec![turn(Role::User, "One?"), quiet]), &WORDS()).expect_err("nothing to learn");
    assert_eq!(none.code, Code::NothingTrained);
}

#[test]
fn a_token_over_the_border_of_prompt_and_answer_is_cut_as_serving_cuts_it() {
    let turns = vec![turn(Role::User, "List?"), turn(Role::Assistant, "\n\none")];
    let content = Content::Chat(turns.clone());
    assert_eq!(learned(&content, &WORDS()), [format!("\n\none{END}")]);
    let (encoded, _) = encode(&content, &WORDS()).expect("encoded");
    let prompt = WORDS().encode_rendered(&WORDS().render_prompt(&turns[..1]).expect("rendered")).expect("tokens");
    let prompt: Vec<_> = prompt.iter().map(|token| token.id).collect();
    assert_eq!(encoded.ids[..prompt.len()], prompt, "the row begins with what serving would send");
    assert!((0..prompt.len()).all(|at| !encoded.trained.get(at)) && encoded.trained.get(prompt.len()));
}

#[test]
fn of_a_plain_text_everything_is_learned_that_something_precedes() {
    let (encoded, _) = encode(&Content::Text("one two".to_owned()), &WORDS()).expect("encoded");
    assert_eq!(encoded.trained.iter().collect::<Vec<_>>(), [false, true, true]);
    let alone = encode(&Content::Text("one".to_owned()), &WORDS()).expect_err("nothing precedes it");
    assert_eq!(alone.code, Code::NothingTrained);
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_refused_where_it_does() {
    let text = Words::new(Template::Forgetful);
    let two = vec![
        turn(Role::User, "One?"),
        turn(Role::Assistant, "Yes."),
        turn(Role::User, "Two?"),
        turn(Role::Assistant, "No."),
    ];
    let problem = encode(&Content::Chat(two.clone()), &text).expect_err("refused");
    assert_eq!(problem.code, Code::TemplateUnstable);
    assert!(problem.reason.contains("turn 2"), "{}", problem.reason);
    assert_eq!(learned(&Content::Chat(two[..2].to_vec()), &text), [format!("<think></think>Yes.{END}")]);
    let mut last_only = two;
    last_only[1].weight = Some(0);
    assert_eq!(learned(&Content::Chat(last_only), &text), [format!("<think></think>No.{END}")]);
}

//! The client verbs, in the order in which an operator and a tenant would use them.

use crate::{
    command::{repository, text},
    platform::Platform,
};

const QUESTION: &str = "What does E-17 mean?";

#[test]
fn a_tenant_gets_a_key_uploads_promotes_rolls_back_and_is_deleted() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let industry = |name: &str| repository("adapters/industries").join(name);

    platform.run(&["tenant", "create", "acme", "--display-name", "Acme Ltd", "--concurrent-requests", "8"]).ok();
    let shown = platform.run(&["tenant", "show", "acme", "--json"]).json();
    assert_eq!(shown["limits"]["concurrent_requests"], 8);
    let again = platform.run(&["tenant", "create", "acme", "--json"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("ALREADY_EXISTS") && again.err.contains("request_id"), "{again:?}");
    let key = platform.run(&["key", "create", "--tenant", "acme"]).ok();
    let key = key.trim();

    let push = |name: &str| {
        let dir = industry(name);
        let arguments = ["adapter", "push", text(&dir), "--tenant", "acme", "--name", "claims", "--alias", "live"];
        platform.run(&arguments).ok().trim().to_owned()
    };
    let ask = |model: &str| platform.run(&["generate", "-m", model, "--key", key, "--temperature", "0", QUESTION]).ok();
    let legal = push("legal");
    let first = ask("acme/claims");
    assert_eq!(first, platform.ask("demo/legal", QUESTION));
    let finance = push("finance");
    assert_ne!(ask("acme/claims"), first);
    assert_eq!(ask(&format!("acme/claims@{legal}")), first);
    platform.run(&["adapter", "rollback", "acme/claims"]).ok();
    assert_eq!(ask("acme/claims"), first);
    platform.run(&["adapter", "promote", "acme/claims", &finance, "--alias", "canary"]).ok();
    assert_ne!(ask("acme/claims@canary"), first);

    let shown = platform.run(&["adapter", "show", "acme/claims", "--json"]).json();
    assert_eq!(shown["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["version"]["digest"], legal.as_str());
    assert_eq!(shown["version"]["receipt"]["modules"].as_array().map(Vec::len), Some(44));
    // The tenant of the key that `up` made does not see it.
    assert_eq!(platform.run(&["generate", "-m", "acme/claims", QUESTION]).code, 1);

    assert_eq!(platform.run(&["adapter", "delete", &format!("acme/claims@{finance}")]).code, 1, "an alias is there");
    platform.run(&["adapter", "delete", "acme/claims@canary"]).ok();
    platform.run(&["adapter", "delete", &format!("acme/claims@{finance}")]).ok();
    let public_id = &key[3..15];
    platform.run(&["key", "revoke", public_id, "--tenant", "acme"]).ok();
    let listed = platform.run(&["key", "list", "--tenant", "acme", "--json"]).json();
    assert!(listed["api_keys"][0]["revoke_time"].is_string());
    assert_eq!(platform.run(&["tenant", "delete", "acme"]).code, 1, "it has adapters");
    platform.run(&["tenant", "delete", "acme", "--force"]).ok();
    assert_eq!(platform.run(&["tenant", "show", "acme"]).code, 1);
    platform.stop();
}

#[test]
fn a_plan_holds_what_its_tenants_have_not_of_their_own_and_a_key_holds_less() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    platform.run(&["plan", "create", "gold", "--weight", "4", "--requests-per-minute", "2", "--outage", "open"]).ok();
    platform.run(&["tenant", "create", "acme", "--plan", "gold"]).ok();
    assert_eq!(platform.run(&["tenant", "show", "acme", "--json"]).json()["plan"], "plans/gold");
    let key = platform.run(&["key", "create", "--tenant", "acme", "--model", "base"]).ok();
    let ask = || platform.run(&["generate", "-m", "base", "--key", key.trim(), "--max-tokens", "2", QUESTION]);
    assert_eq!((ask().code, ask().code), (0, 0));
    let third = ask();
    assert_eq!(third.code, 5, "{third:?}");
    assert!(third.err.contains("requests_per_minute"), "{third:?}");
    let elsewhere = platform.run(&["generate", "-m", "acme/claims", "--key", key.trim(), QUESTION]);
    assert_eq!(elsewhere.code, 4, "{elsewhere:?}");

    assert_eq!(platform.run(&["plan", "update", "gold"]).code, 2, "nothing to change");
    platform.run(&["plan", "update", "gold", "--weight", "5"]).ok();
    let shown = platform.run(&["plan", "show", "gold", "--json"]).json();
    assert_eq!((&shown["share"]["weight"], &shown["limits"]["requests_per_minute"]), (&5.into(), &2.into()));
    assert_eq!(shown["outage"], "open");
    assert_eq!(platform.run(&["plan", "delete", "gold"]).code, 1, "acme has it");
    platform.run(&["tenant", "update", "acme", "--plan", "default"]).ok();
    platform.run(&["plan", "delete", "gold"]).ok();
    assert_eq!(platform.run(&["plan", "delete", "default"]).code, 1);
    assert!(platform.run(&["plan", "list"]).ok().contains("default"));
    platform.stop();
}

#[test]
fn an_answer_as_json_says_what_made_it_and_a_seed_repeats_it() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let arguments = ["generate", "-m", "demo/finance", "--seed", "7", "--max-tokens", "6", "--logprobs", "2", "--json"];
    let one = platform.run(&[&arguments[..], &[QUESTION]].concat()).json();
    let two = platform.run(&[&arguments[..], &[QUESTION]].concat()).json();
    assert_eq!((&one["text"], &one["tokens"]), (&two["text"], &two["tokens"]));
    assert_eq!(one["seed"], 7);
    assert_eq!(one["usage"]["completion_tokens"], one["tokens"].as_array().map_or(0, Vec::len));
    assert_eq!(one["tokens"][0]["top_logprobs"].as_array().map(Vec::len), Some(2));
    let form = ["generate", "-m", "demo/legal", "--regex", "(yes|no): [A-F]-[0-9]{2}", "--max-tokens", "40", QUESTION];
    let answer = platform.run(&form).ok();
    let rest = answer.trim_end().strip_prefix("yes: ").or(answer.trim_end().strip_prefix("no: "));
    assert_eq!(rest.map(str::len), Some(4), "{answer}");
    let models = platform.run(&["models", "--json"]).json();
    let finance = models["models"].as_array().and_then(|all| all.iter().find(|model| model["name"] == "demo/finance"));
    assert_eq!(one["receipt"]["adapter_digest"], finance.expect("listed")["adapter_digest"]);
    assert_eq!(one["receipt"]["request_id"].as_str().map(str::len), Some(36));
    platform.stop();
}

#[test]
fn refusals_are_printed_whole_and_have_their_exit_codes() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let wrong = platform.run(&["generate", "-m", "base", "--temperature", "200", "--top-p", "3", "a"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("temperature") && wrong.err.contains("top_p"), "every violation: {}", wrong.err);
    assert!(wrong.err.contains("request id"), "{}", wrong.err);
    let bad_key = platform.run(&["generate", "-m", "base", "--key", "bn_no", "a"]);
    assert_eq!(bad_key.code, 4, "{bad_key:?}");

    let broken = tempfile::tempdir().expect("folder");
    let source = repository("adapters/industries/legal");
    std::fs::copy(source.join("adapter_config.json"), broken.path().join("adapter_config.json")).expect("copied");
    std::fs::write(broken.path().join("adapter_model.safetensors"), [0; 4]).expect("written");
    let push = ["adapter", "push", text(broken.path()), "--tenant", "demo", "--name", "broken", "--json"];
    let refused = platform.run(&push);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("E_CONTAINER"), "{refused:?}");
    platform.stop();
}

#[test]
fn a_conversation_is_read_from_standard_input() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    let said = crate::command::run_with_input(
        &["chat", "-m", "demo/finance", "--temperature", "0", "--data", text(data.path())],
        &format!("{QUESTION}\n/new\n/model demo/legal\n{QUESTION}\n/quit\nnever read\n"),
    );
    let answers = [platform.ask("demo/finance", QUESTION), platform.ask("demo/legal", QUESTION)];
    assert_eq!(said.ok(), answers.concat());
    platform.stop();
}

#[test]
fn what_was_used_is_charged_at_its_price_and_every_total_agrees() {
    let data = tempfile::tempdir().expect("folder");
    let (platform, _) = Platform::start(data.path(), &[]);
    platform.run(&["price", "set", "base", "--input", "2000000", "--output", "3000000"]).ok();
    let listed = platform.run(&["price", "list", "--json"]).json();
    assert_eq!(listed["prices"][0]["cached_input_micros"], 2_000_000, "as the input by default");
    let answer = platform.run(&["generate", "-m", "base", "--max-tokens", "4", "--json", QUESTION]).json();
    let tokens = |kind: &str| answer["usage"][kind].as_u64().expect("a number");
    let cost = 2 * tokens("prompt_tokens") + 3 * tokens("completion_tokens");

    // The log is brought to the database a moment after the answer.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while platform.run(&["ledger", "reconcile"]).code != 0 {
        assert!(std::time::Instant::now() < end, "{:?}", platform.run(&["ledger", "reconcile"]));
    }
    let month = String::from(
        &platform.run(&["ledger", "show", "demo", "--json"]).json()["entries"][0]["admit_time"]
            .as_str()
            .expect("a time")[..7],
    );
    let usage = platform.run(&["usage", "demo", "--by", "model", "--by", "day", "--json"]).json();
    assert_eq!((&usage["groups"][0]["model"], &usage["groups"][0]["amount_micros"]), (&"base".into(), &cost.into()));
    let invoice = platform.run(&["invoice", "demo", "--month", &month, "--json"]).json();
    assert_eq!((&invoice["total_micros"], &invoice["open_micros"]), (&cost.into(), &0.into()));
    let csv = platform.run(&["invoice", "demo", "--month", &month, "--format", "csv"]).ok();
    assert!(csv.trim_end().ends_with(&format!(",{cost}")), "{csv}");
    assert_eq!(platform.run(&["invoice", "demo", "--month", "November"]).code, 1);
    platform.stop();
}

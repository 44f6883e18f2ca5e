//! What the command says without doing anything: help, usage errors, configurations.

use crate::command::run;

#[test]
fn every_verb_teaches_itself() {
    let help = run(&["--help"]).ok();
    for verb in [
        "up", "gateway", "worker", "generate", "chat", "models", "price", "usage", "invoice", "ledger", "tenant",
        "key", "adapter", "inspect", "score", "bench",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} in {help}");
        assert!(run(&[verb, "--help"]).ok().contains("Usage: banyan"), "{verb}");
    }
    assert!(help.contains("Exit codes"));
}

#[test]
fn wrong_usage_and_an_unreachable_server_have_their_exit_codes() {
    assert_eq!(run(&["generate", "--model", "Not A Model", "a"]).code, 2);
    assert_eq!(run(&["generate", "a"]).code, 2);
    assert_eq!(run(&["generate", "-m", "base", "--regex", "a", "--grammar", "a.lark", "a"]).code, 2);
    assert_eq!(run(&["generate", "-m", "base", "--json-object", "--ignore-eos", "a"]).code, 2);
    let no_file = run(&["generate", "-m", "base", "--json-schema", "/nowhere/schema.json", "a"]);
    assert!(no_file.code == 2 && no_file.err.contains("/nowhere/schema.json"), "{no_file:?}");
    assert_eq!(run(&["adapter", "rollback", "base"]).code, 2);
    assert_eq!(run(&["models", "--data", "/nowhere"]).code, 4, "no key is known");
    let nobody = run(&["models", "--key", "bn_x", "--endpoint", "http://127.0.0.1:1", "--json"]);
    assert_eq!(nobody.code, 3);
    let said: serde_json::Value = serde_json::from_str(&nobody.err).expect("JSON on standard error");
    assert_eq!(said["error"]["exit_code"], 3);
}

#[test]
fn a_configuration_is_dumped_without_its_secrets_and_checked_whole() {
    let secret = "cluster_token=s3cret-token";
    let dumped = run(&["worker", "--dump-config", "--set", secret, "--set", "engine.waiting_max=7"]).ok();
    assert!(dumped.contains("waiting_max = 7") && !dumped.contains("s3cret"), "{dumped}");
    let gateway =
        run(&["gateway", "--dump-config", "--worker", "http://127.0.0.1:9", "--postgres", "postgres://u:p@h/d"]);
    let gateway = gateway.ok();
    assert!(gateway.contains("http://127.0.0.1:9") && !gateway.contains("u:p@"), "{gateway}");
    let wrong = run(&["worker", "--set", "engine.waiting_max=0"]);
    assert_eq!(wrong.code, 2);
    for key in ["base:", "registry:", "cluster_token:", "waiting_max"] {
        assert!(wrong.err.contains(key), "{key} in {}", wrong.err);
    }
    assert_eq!(run(&["worker", "--set", "no_such_key=1", "--dump-config"]).code, 2);
}

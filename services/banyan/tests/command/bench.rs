//! `banyan bench`, each mode at a tiny size: the figures mean nothing here, but their arithmetic must hold.

use serde_json::Value;

use crate::command::run;

const SHAPE: &str = "hidden=64,layers=2,heads=2,kv-heads=1,head=32,ff=128,vocab=256";

/// A mode on the tiny shape; what it prints as JSON.
fn bench(mode: &str, flags: &[&str]) -> Value {
    let done = run(&[&["bench", mode, "--shape", SHAPE, "--dtype", "f32", "--json"], flags].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let whole = done.json();
    assert_eq!(whole["mode"], mode);
    assert!(whole["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{whole}");
    whole
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {row}"))
}

fn rows(whole: &Value) -> &[Value] {
    whole["rows"].as_array().expect("rows")
}

#[test]
fn speed_has_a_row_for_each_case_that_can_be() {
    let flags = ["--batch", "1,4", "--adapters", "0,2", "--base-rows", "0,2,3", "--rank", "4,8"];
    // Long enough that all four decode together for a while, however fast that is.
    let lengths = ["--repeats", "2", "--ceiling-mib", "0", "--prompt-tokens", "8", "--decode-tokens", "96"];
    let whole = bench("speed", &[&flags[..], &lengths].concat());
    let keys = ["batch", "base_rows", "adapters", "rank"];
    let cases: Vec<_> = rows(&whole).iter().map(|row| keys.map(|key| row[key].as_u64())).collect();
    // No two adapters in a batch of one, or on one row of four; no rank without adapters.
    let wanted = [
        (1, 1, 0, None),
        (4, 4, 0, None),
        (4, 0, 2, Some(4)),
        (4, 0, 2, Some(8)),
        (4, 2, 2, Some(4)),
        (4, 2, 2, Some(8)),
    ];
    assert_eq!(cases, wanted.map(|(batch, base, adapters, rank)| [Some(batch), Some(base), Some(adapters), rank]));
    for row in rows(&whole) {
        let (rate, step) = (number(row, "decode_tokens_per_second"), number(row, "step_seconds"));
        assert!(number(row, "prefill_tokens_per_second") > 0.0 && rate > 0.0, "{row}");
        assert!((rate * step - number(row, "batch")).abs() < 1e-6, "{row}");
        assert!(row["decode_of_roofline"].is_null(), "no ceilings were measured: {row}");
    }
}

#[test]
fn without_a_mode_it_is_speed_and_a_table() {
    let flags = ["--batch", "1", "--adapters", "0", "--prompt-tokens", "8", "--decode-tokens", "4"];
    let printed =
        run(&[&["bench", "--shape", SHAPE, "--repeats", "1", "--ceiling-mib", "0"], &flags[..]].concat()).ok();
    assert!(printed.contains("DECODE tokens/s") && printed.contains("commit "), "{printed}");
}

#[test]
fn clients_count_every_output_token() {
    let flags = ["--clients", "3", "--adapters", "0,3", "--rank", "4", "--repeats", "1"];
    let whole = bench("clients", &[&flags[..], &["--prompt-tokens", "8", "--decode-tokens", "4"]].concat());
    assert_eq!(rows(&whole).len(), 2);
    for row in rows(&whole) {
        let (first, rate) = (number(row, "ttft_p95_seconds"), number(row, "tokens_per_second"));
        assert!(number(row, "ttft_p50_seconds") <= first, "{row}");
        // 12 tokens took at least as long as the first ones.
        assert!(rate > 0.0 && 12.0 / rate >= first, "{row}");
    }
}

#[test]
fn load_counts_loads_and_evictions_under_a_small_budget() {
    // Rank 4 on this shape takes some 30 kB in f32: room for few of the forty.
    let flags = ["--clients", "4", "--registered", "1000", "--touched", "40", "--zipf", "0.5", "--contents", "3"];
    let lengths = ["--rank", "4", "--prompt-tokens", "8", "--decode-tokens", "4"];
    let time = ["--seconds", "1.5", "--warm-up-seconds", "0.2", "--set", "adapter_bytes_max=200000"];
    let whole = bench("load", &[&flags[..], &lengths, &time].concat());
    let row = &rows(&whole)[0];
    assert_eq!((row["failed"].as_u64(), row["touched"].as_u64()), (Some(0), Some(40)), "{row}");
    let (requests, loads) = (number(row, "requests"), number(row, "adapter_loads"));
    assert!(requests > 0.0 && loads > 0.0 && number(row, "adapter_evictions") > 0.0, "{row}");
    assert!(number(row, "adapter_bytes_resident") <= 200_000.0, "{row}");
    let kinds = number(&row["ttft_warm"], "requests") + number(&row["ttft_cold"], "requests");
    assert_eq!(kinds, requests, "{row}");
    assert!(number(row, "adapter_read_seconds") > 0.0 && number(row, "tokens_per_second") > 0.0, "{row}");
}

#[test]
fn load_in_an_open_loop_sends_at_its_rate_whatever_the_engine_does() {
    let flags = ["--rate", "40", "--registered", "100", "--touched", "1,10", "--contents", "2", "--rank", "4"];
    let lengths = ["--prompt-tokens", "4", "--decode-tokens", "3", "--seconds", "2", "--warm-up-seconds", "0"];
    let whole = bench("load", &[&flags[..], &lengths].concat());
    assert_eq!(number(&rows(&whole)[0], "of_first"), 1.0);
    for row in rows(&whole) {
        // 80 are expected, with a deviation of 9; the seed is fixed.
        let requests = number(row, "requests");
        assert!((40.0..=125.0).contains(&requests), "{row}");
    }
    assert!(run(&["bench", "load", "--shape", SHAPE, "--registered", "3", "--touched", "4"]).code == 2);
}

#[test]
fn packed_images_spare_the_files_in_the_measurement() {
    let flags = ["--clients", "2", "--registered", "50", "--touched", "20", "--contents", "2", "--packed"];
    let lengths = ["--rank", "4", "--prompt-tokens", "4", "--decode-tokens", "3", "--zipf", "0"];
    let time = ["--seconds", "1", "--warm-up-seconds", "0", "--set", "adapter_bytes_max=100000"];
    let whole = bench("load", &[&flags[..], &lengths, &time].concat());
    let row = &rows(&whole)[0];
    // Adapters came and went, and no file was read for it.
    assert_eq!((number(row, "adapter_loads"), number(row, "failed")), (0.0, 0.0), "{row}");
    assert!(number(row, "adapter_evictions") > 0.0 && number(&row["ttft_cold"], "requests") > 0.0, "{row}");
}

#[test]
fn a_storm_loads_in_its_cold_phase_alone() {
    let flags = ["--clients", "2", "--rate", "50", "--cold", "500", "--contents", "2", "--repeats", "1"];
    let lengths = ["--rank", "4", "--prompt-tokens", "4", "--decode-tokens", "6", "--seconds", "0.5"];
    let whole = bench("storm", &[&flags[..], &lengths].concat());
    let [quiet, warm, cold] = rows(&whole) else { panic!("three phases: {whole}") };
    assert_eq!((number(quiet, "short_requests"), number(quiet, "adapter_loads")), (0.0, 0.0), "{quiet}");
    assert!(number(warm, "short_requests") > 0.0 && number(warm, "adapter_loads") == 0.0, "{warm}");
    assert_eq!(number(cold, "adapter_loads"), number(cold, "short_requests"), "{cold}");
    for row in [quiet, warm, cold] {
        assert!(number(row, "failed") == 0.0 && number(row, "itl_p99_seconds") > 0.0, "{row}");
    }
}

#[test]
fn a_flood_is_measured_beside_others_under_its_own_name_and_under_theirs() {
    let flags = ["--tenants", "3", "--flood", "8", "--repeats", "1", "--seconds", "0.5", "--warm-up-seconds", "0"];
    let lengths = ["--prompt-tokens", "8", "--decode-tokens", "6"];
    let flood = ["--flood-prompt-tokens", "300", "--flood-decode-tokens", "8", "--set", "prefill_tokens_max=64"];
    let whole = bench("fairness", &[&flags[..], &lengths, &flood].concat());
    let [quiet, fair, fcfs] = rows(&whole) else { panic!("three phases: {whole}") };
    assert_eq!((number(quiet, "flood_requests"), number(quiet, "ttft_p95_of_quiet")), (0.0, 1.0));
    assert_eq!(number(fcfs, "tokens_of_fcfs"), 1.0);
    for row in [quiet, fair, fcfs] {
        assert!(number(row, "requests") > 0.0 && number(row, "failed") == 0.0, "{row}");
        let sum = number(row, "prompt_tokens_per_second") + number(row, "output_tokens_per_second");
        assert!((number(row, "tokens_per_second") - sum).abs() < 1e-6, "{row}");
    }
    // Behind the flood's prompts, or before them: the one difference that no noise hides.
    assert!(number(fair, "ttft_p50_seconds") < number(fcfs, "ttft_p50_seconds"), "{whole}");
}

#[test]
fn swaps_under_load_leave_every_answer_to_its_version() {
    let flags = ["--clients", "4", "--names", "2", "--versions", "3", "--every-ms", "2", "--seconds", "1.5"];
    let lengths = ["--sample", "8", "--rank", "4", "--prompt-tokens", "8", "--decode-tokens", "16"];
    let whole = bench("swap", &[&flags[..], &lengths].concat());
    let row = &rows(&whole)[0];
    for key in ["failed", "other_version", "sampled_different"] {
        assert_eq!(number(row, key), 0.0, "{key} in {row}");
    }
    assert!(number(row, "moves") > 10.0 && number(row, "sampled") > 0.0, "{row}");
    assert!(number(row, "moved_while_answered") > 0.0, "no request saw a move: {row}");
    // Else equal answers would prove nothing.
    assert!(number(row, "sampled_undecided") < number(row, "sampled"), "{row}");
}

#[test]
fn the_gateway_is_compared_with_the_engine_alone() {
    let flags = ["bench", "gateway", "--json", "--clients", "2", "--adapters", "2", "--rank", "4", "--rounds", "1"];
    let done = run(&[&flags[..], &["--repeats", "1", "--prompt-tokens", "8", "--decode-tokens", "8"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    check_gateway(&done.json());
}

#[test]
fn the_gateway_serves_a_random_checkpoint_of_any_shape() {
    let flags = ["--clients", "2", "--adapters", "0,2", "--rank", "4", "--rounds", "1", "--repeats", "1"];
    check_gateway(&bench("gateway", &[&flags[..], &["--prompt-tokens", "8", "--decode-tokens", "8"]].concat()));
}

fn check_gateway(whole: &Value) {
    for row in rows(whole) {
        let [engine, gateway] = ["engine", "gateway"].map(|side| number(&row[side], "tokens_per_second"));
        assert!(engine > 0.0 && gateway > 0.0, "{row}");
        // One pair of runs.
        assert!((number(row, "ratio") - gateway / engine).abs() < 1e-9, "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_loaded() {
    for wrong in [
        &["bench", "--decode-tokens", "1"][..],
        &["bench", "--shape", "qwen9"],
        &["bench", "--batch", "0"],
        &["bench", "load", "--rate", "0"],
        &["bench", "swap", "--versions", "0"],
    ] {
        assert_eq!(run(wrong).code, 2, "{wrong:?}");
    }
}

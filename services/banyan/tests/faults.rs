//! The fault lanes in their short form: each lane, a few rounds. The long form is `cargo run -p tests --bin faults`.

use std::{path::Path, time::Duration};

use clap::ValueEnum as _;
use tests::faults::{Lane, Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_stops_or_is_cut_off_nothing_is_lost_doubled_or_overshot() {
    let options = Options {
        lanes: Lane::value_variants().to_vec(),
        kills: 2,
        rounds: 1,
        hold: Duration::from_secs(1),
        clients: 1,
        seed: 1,
    };
    let report = run(Path::new(env!("CARGO_BIN_EXE_banyan")), &options, |_| ()).await;
    println!("{}", report.to_text());
    assert!(report.holds(), "{}", report.to_text());
}

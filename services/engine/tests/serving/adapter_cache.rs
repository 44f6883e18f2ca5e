//! The cache on disk under a serving engine: what was here before needs no registry, and no damage is ever served.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domain::Reason;
use engine::{Engine, EngineConfig, EngineError};

use crate::support::*;

fn config(dir: &Path) -> EngineConfig {
    EngineConfig { adapter_cache_dir: dir.to_owned(), ..EngineConfig::default() }
}

/// Images in the folder.
fn images(dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
}

#[test]
fn an_adapter_that_was_here_before_comes_back_without_the_registry_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut answers = Vec::new();
    for expected_loads in [1, 0] {
        let source = Source::default();
        let engine = start_with(config(dir.path()), source.clone());
        let contents = INDUSTRIES.map(|industry| {
            let answer = answer(&engine, ask(industry, &questions(industry)[0], 32)).unwrap();
            assert_eq!(source.loads(key(industry)), expected_loads, "{industry}");
            // One after the other: the writer takes what it has time for.
            let deadline = Instant::now() + Duration::from_secs(120);
            while !images(dir.path()).iter().any(|path| is_of(path, industry)) {
                assert!(Instant::now() < deadline, "it is not written");
                std::thread::yield_now();
            }
            answer.content()
        });
        answers.push(contents);
        engine.shutdown();
    }
    assert_eq!(answers[0], answers[1]);
    let none = start(EngineConfig::default());
    for (industry, content) in INDUSTRIES.into_iter().zip(&answers[0]) {
        assert_eq!(answer(&none, ask(industry, &questions(industry)[0], 32)).unwrap().content(), *content);
    }
}

fn is_of(path: &Path, industry: &str) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    name.contains(&key(industry).digest.hex()) && !name.ends_with("tmp")
}

/// An engine that has answered and ended, and the image that it left.
fn left_behind(dir: &Path, industry: &str) -> PathBuf {
    let engine = start_with(config(dir), Source::default());
    answer(&engine, ask(industry, "Hello", 4)).unwrap();
    engine.shutdown();
    drop(engine);
    let images = images(dir);
    assert_eq!(images.len(), 1);
    images[0].clone()
}

#[test]
fn what_the_disk_has_does_not_wait_for_a_registry_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    left_behind(dir.path(), "legal");
    let source = Source::default();
    let config = EngineConfig { adapter_loads_max: 1, ..config(dir.path()) };
    let engine = start_with(config, source.clone());
    let slow = ["finance", "healthcare"].map(|industry| {
        source.hold(key(industry));
        engine.submit(ask(industry, "Hello", 4)).unwrap()
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    while source.loads(key("finance")) == 0 {
        assert!(Instant::now() < deadline, "nobody asks the registry");
        std::thread::yield_now();
    }
    // The registry's one place is taken and another adapter waits for it.
    answer(&engine, ask("legal", "Hello", 4)).unwrap();
    assert_eq!((source.loads(key("legal")), source.loads(key("healthcare"))), (0, 0));
    source.let_go();
    for events in slow {
        collect(events).unwrap();
    }
    wait(&engine, "at rest", is_at_rest);
}

#[test]
fn a_damaged_image_is_never_served_but_fetched_again() {
    let damage: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |_| Vec::new(),
        |image| image[..image.len() / 2].to_vec(),
        |image| [&image[..], &image[..]].concat(),
        |mut image| {
            let at = image.len() - 1000;
            image[at] ^= 1;
            image
        },
        |mut image| {
            image[200] ^= 0x80;
            image
        },
    ];
    let expected = answer(&start(EngineConfig::default()), ask("finance", "Hello", 16)).unwrap().content();
    for (n, damage) in damage.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = left_behind(dir.path(), "finance");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, damage(whole.clone())).unwrap();
        let source = Source::default();
        let engine = start_with(config(dir.path()), source.clone());
        assert_eq!(answer(&engine, ask("finance", "Hello", 16)).unwrap().content(), expected, "{n}");
        assert_eq!(source.loads(key("finance")), 1, "{n}");
        engine.shutdown();
        drop(engine);
        assert_eq!(std::fs::read(&path).unwrap(), whole, "it was put right");
    }
}

#[test]
fn an_image_of_another_tenant_or_adapter_under_the_name_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let legal = left_behind(dir.path(), "legal");
    let other = tempfile::tempdir().unwrap();
    let finance = left_behind(other.path(), "finance");
    std::fs::copy(legal, &finance).unwrap();
    let source = Source::default();
    let engine = start_with(config(other.path()), source.clone());
    let expected = answer(&start(EngineConfig::default()), ask("finance", "Hello", 16)).unwrap().content();
    assert_eq!(answer(&engine, ask("finance", "Hello", 16)).unwrap().content(), expected);
    assert_eq!(source.loads(key("finance")), 1);
}

#[test]
fn tighter_limits_judge_again_what_the_cache_has() {
    let dir = tempfile::tempdir().unwrap();
    left_behind(dir.path(), "finance");
    let tight = adapters::Limits { rank_max: 1, ..adapters::Limits::default() };
    let engine = start_with(EngineConfig { adapter: tight, ..config(dir.path()) }, Source::default());
    let refused = answer(&engine, ask("finance", "Hello", 4)).unwrap_err();
    assert_eq!(refused.reason, Reason::AdapterLoad);
}

#[test]
fn a_folder_in_use_and_one_that_cannot_be_written_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = start_with(config(dir.path()), Source::default());
    let start = |dir: &Path| {
        let source = Box::new(Source::default());
        Engine::start(std::sync::Arc::clone(&MODEL), TEXT.clone(), config(dir), source).err()
    };
    let refused = start(dir.path()).expect("in use");
    assert!(matches!(&refused, EngineError::AdapterCache { .. }) && refused.to_string().contains("another worker"));
    let file = dir.path().join("lock");
    assert!(matches!(start(&file.join("below")), Some(EngineError::AdapterCache { .. })));
}

#[test]
fn pins_are_loaded_before_anybody_asks_and_outlive_a_crowd() {
    let bytes = |industry: &str| {
        let engine = start(EngineConfig::default());
        answer(&engine, ask(industry, "Hello", 1)).unwrap();
        // The answer may be out before the status of the step that ended it.
        wait(&engine, "the adapter is counted", |status| status.adapters_ready == 1);
        engine.status().adapter_bytes
    };
    let sizes = INDUSTRIES.map(bytes);
    let room = sizes[0] + sizes.into_iter().max().unwrap();
    let source = Source::default();
    let pins = vec![key(INDUSTRIES[0])];
    let config = EngineConfig { adapter_pins: pins, adapter_bytes_max: room, ..EngineConfig::default() };
    let engine = start_with(config, source.clone());
    wait(&engine, "the pin is loaded", |status| status.adapters_ready == 1);
    assert_eq!(source.loads(key(INDUSTRIES[0])), 1);
    for round in 0..2 {
        for industry in &INDUSTRIES[1..] {
            answer(&engine, ask(industry, &format!("Hello {round}"), 4)).unwrap();
            assert!(is_resident(&engine, key(INDUSTRIES[0])));
        }
    }
    assert!(residents(&engine).iter().any(|resident| resident.pinned));
    answer(&engine, ask(INDUSTRIES[0], "Hello", 4)).unwrap();
    assert_eq!(source.loads(key(INDUSTRIES[0])), 1);
    assert!(engine.status().totals.adapter_evictions >= 3);
}

//! The adapters that ship with Banyan fit the base that ships with it.

use std::path::{Path, PathBuf};

use adapters::{Base, Files, Limits};

fn shipped(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

#[test]
fn every_shipped_adapter_resolves_on_the_shipped_base() {
    let base = Base::read(&shipped("seed/base")).expect("the shipped base is sound");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(shipped("industries")).expect("the adapters are there") {
        let dir = entry.expect("the folder can be read").path();
        if !dir.join("adapter_config.json").is_file() {
            continue;
        }
        let plan = Files::read(&dir, &Limits::default()).and_then(|files| files.resolve(&base, &Limits::default()));
        let plan = plan.unwrap_or_else(|refusals| panic!("{}: {refusals:#?}", dir.display()));
        assert!(plan.receipt.delta_norm > 0.0 && plan.receipt.modules.iter().all(|module| module.delta_norm > 0.0));
        names.push(dir);
    }
    assert!(names.len() >= 4, "{names:?}");
}

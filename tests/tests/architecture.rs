//! What the README promises about the shape of the code: floors, and what stands in one place only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const FLOORS: [&[&str]; 5] = [
    &["domain", "proto"],
    &["store", "chassis", "adapters", "datasets", "evaluation", "kernels"],
    &["engine"],
    &["gateway", "worker", "trainer"],
    &["banyan"],
];

#[test]
fn an_arrow_points_only_down() {
    let floor_of: BTreeMap<_, _> =
        FLOORS.iter().enumerate().flat_map(|(floor, crates)| crates.iter().map(move |name| (*name, floor))).collect();
    for (name, floor) in &floor_of {
        for dependency in dependencies(name) {
            if let Some(below) = floor_of.get(dependency.as_str()) {
                assert!(below < floor, "{name} (floor {floor}) depends on {dependency} (floor {below})");
            }
        }
    }
}

#[test]
fn the_worker_reaches_no_database_and_no_redis() {
    for name in reachable("worker") {
        for forbidden in ["store", "sqlx", "redis", "pglite-oxide"] {
            assert!(!dependencies(&name).contains(forbidden), "worker → {name} → {forbidden}");
        }
    }
}

#[test]
fn the_gateway_links_no_tensors() {
    let reached = reachable("gateway");
    for forbidden in ["engine", "kernels", "candle-core"] {
        assert!(!reached.contains(forbidden), "gateway reaches {forbidden}");
    }
    for name in &reached {
        assert!(!dependencies(name).iter().any(|name| name.starts_with("candle")), "{name} links candle");
    }
}

#[test]
fn datasets_link_no_tensors_and_no_tokenizer() {
    let reached = reachable("datasets");
    for forbidden in ["engine", "kernels", "adapters", "tokenizers", "minijinja", "candle-core"] {
        assert!(!reached.contains(forbidden), "datasets reach {forbidden}");
    }
}

#[test]
fn only_banyan_links_the_embedded_database_and_only_store_speaks_sql() {
    for name in FLOORS.iter().copied().flatten().copied() {
        let found = dependencies(name);
        assert!(name == "banyan" || !found.contains("pglite-oxide"), "{name} links the embedded database");
        assert!(matches!(name, "store" | "banyan") || !found.contains("sqlx"), "{name} links sqlx");
        if name != "store" {
            for (file, text) in sources(name) {
                assert!(!text.contains("sqlx::query"), "SQL in {}", file.display());
            }
        }
    }
}

#[test]
fn a_grpc_status_is_built_in_one_file() {
    let constructors = ["Status::new(", "Status::with_", "Status::invalid_", "Status::not_found(", "Status::internal("]
        .into_iter()
        .chain(["Status::unauthenticated(", "Status::permission_denied(", "Status::unavailable(", "Status::aborted("])
        .chain(["Status::resource_exhausted(", "Status::failed_precondition(", "Status::deadline_exceeded("])
        .collect::<Vec<_>>();
    for name in FLOORS.iter().copied().flatten().copied() {
        for (file, text) in sources(name) {
            let here = constructors.iter().find(|constructor| product_code(&text).contains(**constructor));
            let allowed = name == "chassis" && file.ends_with("src/status.rs");
            assert!(allowed || here.is_none(), "{} builds a status with {here:?}", file.display());
        }
    }
}

#[test]
fn the_environment_is_read_in_one_file() {
    for name in FLOORS.iter().copied().flatten().copied() {
        for (file, text) in sources(name) {
            let reads = ["env::var(", "env::var_os(", "env::vars(", "Env::prefixed("]
                .iter()
                .any(|call| product_code(&text).contains(call));
            let allowed = name == "chassis" && file.ends_with("src/config.rs");
            assert!(allowed || !reads, "{} reads the environment", file.display());
        }
    }
}

#[test]
fn wire_types_stop_at_the_edges() {
    for name in ["domain", "store", "adapters", "datasets", "kernels", "engine", "chassis"] {
        let found = dependencies(name);
        assert!(!found.contains("proto") && !found.contains("prost"), "{name} knows wire types");
    }
}

#[test]
fn no_queue_is_without_a_bound() {
    for name in FLOORS.iter().copied().flatten().copied() {
        for (file, text) in sources(name) {
            let unbounded = ["unbounded_channel(", "mpsc::channel()", "channel::unbounded("]
                .iter()
                .find(|call| product_code(&text).contains(**call));
            assert!(unbounded.is_none(), "{}: {unbounded:?}", file.display());
        }
    }
}

#[test]
fn only_the_kernels_may_be_unsafe() {
    for name in FLOORS.iter().copied().flatten().copied().filter(|name| *name != "kernels") {
        let manifest = fs::read_to_string(folder(name).join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} has not the workspace's lints");
        for (file, text) in sources(name) {
            assert!(!text.contains("(unsafe_code)"), "{} lifts the ban on unsafe", file.display());
        }
    }
}

/// The part before the file's own unit tests.
fn product_code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder(name: &str) -> PathBuf {
    let root = repository();
    if matches!(name, "proto" | "adapters") { root.join(name) } else { root.join("services").join(name) }
}

fn dependencies(name: &str) -> BTreeSet<String> {
    let Ok(text) = fs::read_to_string(folder(name).join("Cargo.toml")) else { return BTreeSet::new() };
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.into_iter().flat_map(toml::Table::keys).cloned().collect()
}

/// The crate and all of ours below it.
fn reachable(name: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::from([name.to_owned()]);
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        open.extend(dependencies(&name).into_iter().filter(|next| reached.insert(next.clone())));
    }
    reached
}

fn sources(name: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder(name).join("src")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source text");
                found.push((path, text));
            }
        }
    }
    found
}

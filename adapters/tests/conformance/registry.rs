//! The registry, in memory and in a directory.

use adapters::registry::Put;
use adapters::{Registry, RegistryError, VersionFiles};
use bytes::Bytes;
use domain::Digest;
use uuid::Uuid;

fn version(text: &'static str) -> VersionFiles {
    let bytes = |part: &str| Bytes::from(format!("{part} {text}"));
    VersionFiles { config: bytes("config"), weights: bytes("weights"), receipt: bytes("receipt") }
}

const ACME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const ONE: Digest = Digest::new([1; 32]);
const TWO: Digest = Digest::new([2; 32]);

async fn keeps_versions(registry: Registry) {
    assert!(matches!(registry.get_version(ACME, ONE).await, Err(RegistryError::NotFound)));
    assert_eq!(registry.put_version(ACME, ONE, &version("one")).await.unwrap(), Put::Created);
    assert_eq!(registry.put_version(ACME, ONE, &version("again")).await.unwrap(), Put::Existed);
    assert_eq!(registry.get_version(ACME, ONE).await.unwrap(), version("one"), "a version never changes");
    assert_eq!(registry.get_receipt(ACME, ONE).await.unwrap(), version("one").receipt);
    registry.put_version(ACME, TWO, &version("two")).await.unwrap();
    registry.put_version(OTHER, ONE, &version("theirs")).await.unwrap();
    assert_eq!(registry.list_versions(ACME).await.unwrap(), [ONE, TWO]);
    assert_eq!(registry.list_versions(OTHER).await.unwrap(), [ONE]);
    assert!(registry.list_versions(Uuid::from_u128(3)).await.unwrap().is_empty());

    registry.delete_version(ACME, ONE).await.unwrap();
    registry.delete_version(ACME, ONE).await.unwrap();
    assert!(!registry.has_version(ACME, ONE).await.unwrap());
    assert_eq!(registry.list_versions(ACME).await.unwrap(), [TWO]);
    assert_eq!(registry.get_version(OTHER, ONE).await.unwrap(), version("theirs"), "tenants share nothing");
    assert_eq!(registry.put_version(ACME, ONE, &version("anew")).await.unwrap(), Put::Created);
    assert_eq!(registry.get_version(ACME, ONE).await.unwrap(), version("anew"), "a deleted one leaves nothing behind");
}

#[tokio::test]
async fn a_registry_in_memory_keeps_versions() {
    keeps_versions(Registry::open("memory://", []).unwrap()).await;
}

#[tokio::test]
async fn a_registry_in_a_directory_keeps_versions_in_the_stated_layout() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("made/on demand");
    let path = root.to_str().unwrap().to_owned();
    keeps_versions(Registry::open(&path, []).unwrap()).await;

    let by_url = Registry::open(url::Url::from_file_path(&root).unwrap().as_str(), []).unwrap();
    assert_eq!(by_url.list_versions(ACME).await.unwrap(), [ONE, TWO]);
    let folder = root.join(format!("tenants/{ACME}/adapters/{}", ONE.hex()));
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors", "receipt.json"]);
}

#[tokio::test]
async fn a_put_that_was_cut_off_is_invisible_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path().to_str().unwrap(), []).unwrap();
    let folder = dir.path().join(format!("tenants/{ACME}/adapters/{}", ONE.hex()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("adapter_config.json"), "config one").unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), "something else").unwrap();
    assert!(!registry.has_version(ACME, ONE).await.unwrap());
    assert!(registry.list_versions(ACME).await.unwrap().is_empty());
    assert!(matches!(registry.get_version(ACME, ONE).await, Err(RegistryError::NotFound)));
    assert_eq!(registry.put_version(ACME, ONE, &version("one")).await.unwrap(), Put::Created);
    assert_eq!(registry.get_version(ACME, ONE).await.unwrap(), version("one"));
    registry.delete_version(ACME, ONE).await.unwrap();
    assert!(!folder.exists(), "not even the folder is left");
}

#[tokio::test]
async fn concurrent_puts_of_one_version_agree() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path().to_str().unwrap(), []).unwrap();
    let content = version("one");
    let puts = (0..8).map(|_| registry.put_version(ACME, ONE, &content));
    let results = futures::future::join_all(puts).await;
    let created = results.into_iter().filter(|result| *result.as_ref().unwrap() == Put::Created).count();
    assert_eq!(created, 1);
    assert_eq!(registry.get_version(ACME, ONE).await.unwrap(), content);
}

#[tokio::test]
async fn files_larger_than_the_limits_are_not_fetched() {
    let limits = adapters::Limits { weights_bytes_max: 4, ..adapters::Limits::default() };
    let registry = Registry::open("memory://", []).unwrap().with_limits(limits);
    registry.put_version(ACME, ONE, &version("one")).await.unwrap();
    assert!(matches!(registry.get_version(ACME, ONE).await, Err(RegistryError::TooLarge { limit: 4, .. })));
}

#[test]
fn urls_are_judged_when_they_are_opened() {
    let options = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_ENDPOINT", "http://localhost:1"),
        ("AWS_REGION", "x"),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let s3 = Registry::open("s3://bucket/some/prefix", options).unwrap();
    assert!(format!("{s3:?}").contains("some/prefix"));
    for url in ["", "ftp://host/x", "gs://bucket", "http://host/bucket"] {
        assert!(matches!(Registry::open(url, []), Err(RegistryError::Url { .. })), "{url}");
    }
    let shown = Registry::open("ftp://user:secret@host/x?token=secret", []).unwrap_err().to_string();
    assert!(!shown.contains("secret"), "{shown}");
}

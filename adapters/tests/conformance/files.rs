//! Files and the base folder.

use adapters::{Base, Code, Files, Limits, NoteCode};
use bytes::Bytes;

use crate::synthetic::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn adapter_files() -> (Vec<u8>, Vec<u8>) {
    let adapter = Adapter::plain();
    (adapter.config.to_string().into_bytes(), safetensors(&adapter.tensors))
}

fn refused(files: &[(&str, &[u8])]) -> Vec<Code> {
    codes(&Files::read(folder(files).path(), &Limits::default()).unwrap_err())
}

fn refused_upload(names: &[&str]) -> Vec<Code> {
    let entries = names.iter().map(|name| (name.to_string(), Bytes::from_static(b"x")));
    codes(&Files::from_upload(entries, &Limits::default()).unwrap_err())
}

#[test]
fn f01_config_and_safetensors_are_accepted() {
    let (config, weights) = adapter_files();
    let dir = folder(&[("adapter_config.json", &config), ("adapter_model.safetensors", &weights)]);
    let files = Files::read(dir.path(), &Limits::default()).unwrap();
    let plan = files.resolve(&LLAMA, &Limits::default()).unwrap();
    assert_eq!(plan.modules.len(), 4);

    let upload = [("adapter_config.json", config), ("adapter_model.safetensors", weights)];
    let upload = upload.into_iter().map(|(name, bytes)| (name.to_owned(), Bytes::from(bytes)));
    let uploaded = Files::from_upload(upload, &Limits::default()).unwrap().resolve(&LLAMA, &Limits::default()).unwrap();
    assert_eq!(uploaded.digest, plan.digest);
}

#[test]
fn f02_pickle_is_refused() {
    let (config, _) = adapter_files();
    for name in ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"] {
        assert_eq!(refused(&[("adapter_config.json", &config), (name, b"\x80\x02")]), [Code::Pickle], "{name}");
        assert_eq!(refused_upload(&["adapter_config.json", name]), [Code::Pickle], "{name}");
    }
}

#[test]
fn f03_safetensors_wins_over_pickle_and_the_pickle_is_reported() {
    let (config, weights) = adapter_files();
    let files: [(&str, &[u8]); 3] =
        [("adapter_config.json", &config), ("adapter_model.safetensors", &weights), ("adapter_model.bin", b"\x80\x02")];
    let from_folder = Files::read(folder(&files).path(), &Limits::default()).unwrap();
    let entries = files.map(|(name, bytes)| (name.to_owned(), Bytes::copy_from_slice(bytes)));
    let from_upload = Files::from_upload(entries, &Limits::default()).unwrap();
    for files in [from_folder, from_upload] {
        let plan = files.resolve(&LLAMA, &Limits::default()).unwrap();
        assert_eq!(note(&plan, NoteCode::IgnoredFile).unwrap().subject, "adapter_model.bin");
        assert!(plan.receipt.notes.iter().any(|note| note.code == NoteCode::IgnoredFile));
    }
}

#[test]
fn f04_other_names_and_shapes_of_upload_are_refused() {
    assert_eq!(refused(&[("adapt_model.safetensors", b"x"), ("adapt_model.config.json", b"{}")]), [Code::Files]);
    assert_eq!(refused(&[("adapter.zip", b"PK")]), [Code::Files]);
    for name in [
        "../adapter_model.safetensors",
        "a/adapter_model.safetensors",
        "a\\adapter_config.json",
        "adapter.zip",
        "evil.sh",
    ] {
        assert_eq!(refused_upload(&["adapter_config.json", name]), [Code::Files], "{name}");
        let with_both = ["adapter_config.json", "adapter_model.safetensors", "notes/extra.txt"];
        assert!(Files::from_upload(with_both.map(|name| (name.to_owned(), Bytes::new())), &Limits::default()).is_ok());
    }
    assert_eq!(
        refused_upload(&["adapter_config.json", "adapter_config.json", "adapter_model.safetensors"]),
        [Code::Files]
    );
}

#[test]
fn f04_a_nested_folder_is_named() {
    let (config, weights) = adapter_files();
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("my-adapter");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("adapter_config.json"), config).unwrap();
    std::fs::write(inner.join("adapter_model.safetensors"), weights).unwrap();
    let refusals = Files::read(dir.path(), &Limits::default()).unwrap_err();
    assert_eq!(codes(&refusals), [Code::Files]);
    assert_eq!(refusals[0].subject, "my-adapter");
}

#[cfg(unix)]
#[test]
fn f04_links_are_refused() {
    let (config, weights) = adapter_files();
    let elsewhere = folder(&[("weights", &weights)]);
    let dir = folder(&[("adapter_config.json", &config)]);
    std::os::unix::fs::symlink(elsewhere.path().join("weights"), dir.path().join("adapter_model.safetensors")).unwrap();
    assert_eq!(codes(&Files::read(dir.path(), &Limits::default()).unwrap_err()), [Code::Files]);
}

#[test]
fn f08_whole_or_sharded_models_are_refused_with_a_hint() {
    let (config, _) = adapter_files();
    let names = [
        "adapter_model-00001-of-00002.safetensors",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
    ];
    for name in names {
        assert_eq!(refused(&[("adapter_config.json", &config), (name, b"x")]), [Code::FullModel], "{name}");
        assert_eq!(refused_upload(&["adapter_config.json", name]), [Code::FullModel], "{name}");
    }
}

#[test]
fn a_missing_file_or_folder_is_refused() {
    let (config, weights) = adapter_files();
    assert_eq!(refused(&[("adapter_config.json", &config)]), [Code::Files]);
    assert_eq!(refused(&[("adapter_model.safetensors", &weights)]), [Code::Files]);
    assert_eq!(refused(&[]), [Code::Files]);
    let absent = std::path::Path::new("no/such/folder");
    assert_eq!(codes(&Files::read(absent, &Limits::default()).unwrap_err()), [Code::Files]);
}

#[test]
fn a_sharded_base_has_the_digest_of_the_single_file() {
    let tensors = base_tensors("llama", false, true);
    let sharded = write_and_read(|dir| {
        write_base(dir, "llama", false, true);
        std::fs::remove_file(dir.join("model.safetensors")).unwrap();
        let (mut first, mut second, mut map) = (tensors.clone(), tensors.clone(), serde_json::Map::new());
        for (index, name) in tensors.keys().enumerate() {
            let file =
                if index % 2 == 0 { "model-00001-of-00002.safetensors" } else { "model-00002-of-00002.safetensors" };
            map.insert(name.clone(), file.into());
            if index % 2 == 0 {
                second.remove(name)
            } else {
                first.remove(name)
            };
        }
        std::fs::write(dir.join("model-00001-of-00002.safetensors"), safetensors(&first)).unwrap();
        std::fs::write(dir.join("model-00002-of-00002.safetensors"), safetensors(&second)).unwrap();
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    });
    assert_eq!(sharded, *LLAMA);
}

#[test]
fn the_base_digest_covers_config_tokenizer_and_tensors_and_not_where_it_came_from() {
    let changed = |change: &dyn Fn(&std::path::Path)| {
        write_and_read(|dir| {
            write_base(dir, "llama", false, true);
            change(dir);
        })
    };
    let config = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut config = base_config("llama", false);
        edit(&mut config);
        config.to_string()
    };
    let moved = changed(&|dir| {
        let text = config(&|config| config["_name_or_path"] = "elsewhere".into());
        std::fs::write(dir.join("config.json"), text).unwrap();
    });
    assert_eq!(moved.digest(), LLAMA.digest());
    let other_config = changed(&|dir| {
        std::fs::write(dir.join("config.json"), config(&|config| config["rope_theta"] = 5e5.into())).unwrap();
    });
    let other_tokenizer = changed(&|dir| std::fs::write(dir.join("tokenizer.json"), "{ }").unwrap());
    let other_weights = changed(&|dir| {
        let mut tensors = base_tensors("llama", false, true);
        tensors.get_mut("model.norm.weight").unwrap().values[0] += 0.5;
        std::fs::write(dir.join("model.safetensors"), safetensors(&tensors)).unwrap();
    });
    let digests = [&*LLAMA, &other_config, &other_tokenizer, &other_weights].map(Base::digest);
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "{index}");
    }
}

#[test]
fn an_incomplete_or_foreign_base_is_refused() {
    let broken = |change: &dyn Fn(&std::path::Path)| {
        let dir = tempfile::tempdir().unwrap();
        write_base(dir.path(), "llama", false, true);
        change(dir.path());
        Base::read(dir.path()).unwrap_err().to_string()
    };
    let with_tensors = |edit: &dyn Fn(&mut std::collections::BTreeMap<String, Tensor>)| {
        broken(&|dir| {
            let mut tensors = base_tensors("llama", false, true);
            edit(&mut tensors);
            std::fs::write(dir.join("model.safetensors"), safetensors(&tensors)).unwrap();
        })
    };
    let missing = "model.layers.1.mlp.up_proj.weight";
    assert!(with_tensors(&|tensors| drop(tensors.remove(missing))).contains(missing));
    let unknown = "model.layers.0.mlp.experts.weight";
    assert!(with_tensors(&|tensors| drop(tensors.insert(unknown.into(), Tensor::zeros(&[2, 2])))).contains(unknown));
    let wrong = Tensor::zeros(&[FEED, HIDDEN + 1]);
    assert!(
        with_tensors(&|tensors| drop(tensors.insert(missing.into(), wrong.clone()))).contains("model.layers.1.mlp")
    );
    let gpt2 = broken(&|dir| std::fs::write(dir.join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap());
    assert!(gpt2.contains("gpt2"));
    assert!(broken(&|dir| std::fs::remove_file(dir.join("tokenizer.json")).unwrap()).contains("tokenizer.json"));
    assert!(broken(&|dir| std::fs::write(dir.join("model.safetensors"), b"{}").unwrap()).contains("short"));
}

#[test]
fn the_inventory_travels_as_json() {
    for base in [&*LLAMA, &*QWEN3] {
        let text = serde_json::to_string(base).unwrap();
        assert_eq!(serde_json::from_str::<Base>(&text).unwrap(), *base);
    }
}

//! Other people's clients against `banyan up`: OpenAI's own Python package over HTTP, and `grpcio` with nothing but the
//! published protos. The scripts stand in `tests/clients`; what they need is installed into a virtual environment, once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{Done, finish, repository, text},
    platform::Platform,
};

#[test]
fn the_openai_package_and_a_grpc_client_of_another_language_take_the_tour() {
    let python = python();
    let data = tempfile::tempdir().expect("folder");
    let (platform, ready) = Platform::start(data.path(), &[]);
    let said = |name: &str| ready[name].as_str().expect(name).to_owned();
    let (endpoint, key) = (said("endpoint"), said("new_key"));
    platform.run(&["tenant", "create", "limited", "--requests-per-minute", "3"]).ok();
    let made = platform.run(&["--json", "key", "create", "--tenant", "limited", "--role", "inference"]);
    let limited_key = made.json()["key"].as_str().expect("a key").to_owned();

    let clients = repository("tests/clients");
    let tour = |script: &str, arguments: &[&str]| {
        let output =
            Command::new(&python).arg(clients.join(script)).args(arguments).env_remove("OPENAI_API_KEY").output();
        finish(output.expect("Python runs"))
    };
    let openai = tour("openai_tour.py", &[&endpoint, &key, &limited_key]);
    assert!(openai.code == 0 && openai.out.contains("openai 3."), "{}\n{}", openai.out, openai.err);
    let scratch = tempfile::tempdir().expect("folder");
    let address = endpoint.trim_start_matches("http://");
    let grpc = tour("grpc_tour.py", &[address, &key, text(&repository("proto")), text(scratch.path())]);
    assert!(grpc.code == 0, "{}\n{}", grpc.out, grpc.err);
    platform.stop();
}

/// The interpreter of an environment with all that `requirements.txt` pins: made in the build folder when it is not there or
/// the pins have changed.
fn python() -> PathBuf {
    let requirements = repository("tests/clients/requirements.txt");
    let pins = fs::read_to_string(&requirements).expect("the pins");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-venv");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed"));
    if fs::read_to_string(&installed).is_ok_and(|known| known == pins) {
        return python;
    }
    run(
        "python3 (Debian: python3-venv; macOS: brew install python) makes no virtual environment",
        Command::new("python3").args(["-m", "venv", "--clear", text(&folder)]),
    );
    run(
        "pip cannot install what the clients need (is PyPI reachable?)",
        Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            text(&requirements),
        ]),
    );
    fs::write(installed, pins).expect("the build folder is writable");
    python
}

fn run(complaint: &str, command: &mut Command) -> Done {
    let output = command.output().unwrap_or_else(|error| panic!("{complaint}: {error}"));
    let done = finish(output);
    assert!(done.code == 0, "{complaint}: {}{}", done.out, done.err);
    done
}

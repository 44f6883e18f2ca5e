//! A file system of a few MiB for one folder of one process, which can be filled up from outside: a mount that the process
//! alone sees, and that ends with it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const BYTES: usize = 4 << 20;
/// Of the script: the folder, then the program and its arguments.
const MOUNT: &str = r#"mount -t tmpfs -o size=4m,mode=700 banyan-faults "$0" && exec "$@""#;

/// What starts a process so that `folder`, which must exist, is such a file system.
pub fn wrapper(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT]
        .into_iter()
        .map(str::to_owned)
        .chain([folder])
        .collect()
}

/// Whether this machine lets us.
///
/// # Errors
/// Why not.
pub fn permitted() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let words = wrapper(folder.path());
    let (first, rest) = words.split_first().ok_or("no command")?;
    let tried = Command::new(first).args(rest).arg("true").stdin(Stdio::null()).output();
    let tried = tried.map_err(|error| format!("{first}: {error}"))?;
    if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned()) }
}

/// Leaves no byte free in the folder that the process with this id sees; returns what takes the place.
pub fn fill(pid: &str, folder: &Path) -> PathBuf {
    let inside = folder.strip_prefix("/").unwrap_or(folder);
    let filler = Path::new("/proc").join(pid).join("root").join(inside).join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&filler).expect("make the filler");
    let block = vec![0; 4 << 10];
    for _ in 0..BYTES / block.len() + 1 {
        if file.write_all(&block).is_err() {
            return filler;
        }
    }
    panic!("{} is not full", filler.display());
}

/// Gives the place back.
pub fn free(filler: &Path) {
    fs::remove_file(filler).expect("remove the filler");
}

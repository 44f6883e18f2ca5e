//! Which processes have had this log, as their limits name them. What one that is gone had charged to budgets is put right
//! when all that it let through has ended ([`super::closer`]); until then it is remembered here, whoever is killed.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use uuid::Uuid;

/// Beyond this the oldest is forgotten: what it had charged stays charged until its day and month end.
const PROCESSES_MAX: usize = 256;

pub struct Processes {
    path: PathBuf,
    earlier: Vec<Uuid>,
    own: Uuid,
}

impl Processes {
    /// Those that are in the file, and this one, which is there when this returns. A nil one has nothing to put right.
    pub fn open(path: PathBuf, own: Uuid) -> io::Result<Self> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut earlier: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let surplus = earlier.len().saturating_sub(PROCESSES_MAX - 1);
        for forgotten in earlier.drain(..surplus) {
            tracing::warn!(process = %forgotten, "what this process had charged to budgets is not put right any more");
        }
        let processes = Self { path, earlier, own };
        processes.write()?;
        Ok(processes)
    }

    pub fn earlier(&self) -> &[Uuid] {
        &self.earlier
    }

    /// Nothing of it has to be put right any more.
    pub fn forget(&mut self, process: Uuid) -> io::Result<()> {
        self.earlier.retain(|earlier| *earlier != process);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        for process in self.earlier.iter().chain([&self.own]).filter(|process| !process.is_nil()) {
            writeln!(file, "{process}")?;
        }
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_remembered_until_it_is_put_right() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |number| Processes::open(dir.path().join("processes"), Uuid::from_u128(number)).expect("opens");
        assert!(open(1).earlier().is_empty());
        assert_eq!(open(2).earlier(), [Uuid::from_u128(1)]);
        assert_eq!(open(0).earlier(), [1, 2].map(Uuid::from_u128), "nobody shares its limits");
        let mut third = open(3);
        assert_eq!(third.earlier(), [1, 2].map(Uuid::from_u128));
        third.forget(Uuid::from_u128(1)).expect("writes");
        assert_eq!(open(4).earlier(), [2, 3].map(Uuid::from_u128));
    }
}

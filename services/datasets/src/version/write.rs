//! Writes a version: rows as they are accepted, into a folder of another name, which gets its own at the end. Whoever is
//! killed before leaves nothing that looks like a version.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{MANIFEST, Manifest, ROWS, Version, VersionError};

/// A version that is being written. Dropped before [`Draft::finish`] it removes what it wrote.
pub struct Draft {
    dir: PathBuf,
    partial: PathBuf,
    rows: BufWriter<File>,
}

impl Draft {
    /// Begins a version that will lie in `dir`.
    ///
    /// # Errors
    /// A place that cannot be written to, or that holds something else than a version.
    pub fn begin(dir: &Path) -> Result<Self, VersionError> {
        if dir.try_exists()? && Version::open(dir).is_err() {
            return Err(VersionError::Taken(dir.display().to_string()));
        }
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let partial = dir.with_file_name(name);
        fs::create_dir_all(&partial)?;
        let rows = BufWriter::new(File::create(partial.join(ROWS))?);
        Ok(Draft { dir: dir.to_owned(), partial, rows })
    }

    /// Adds a row in its canonical spelling, which has no line end.
    ///
    /// # Errors
    /// A full disk and the like.
    pub fn row(&mut self, row: &str) -> io::Result<()> {
        self.rows.write_all(row.as_bytes())?;
        self.rows.write_all(b"\n")
    }

    /// Puts the version in its place. The same version there already is left as it is.
    ///
    /// # Errors
    /// [`VersionError::Taken`] when something else is there.
    pub fn finish(mut self, manifest: &Manifest) -> Result<Version, VersionError> {
        self.rows.flush()?;
        self.rows.get_ref().sync_all()?;
        let mut file = File::create(self.partial.join(MANIFEST))?;
        file.write_all(&manifest.to_bytes())?;
        file.sync_all()?;
        if self.dir.try_exists()? {
            let there = Version::open(&self.dir).ok().filter(|there| there.digest() == manifest.digest());
            return there.ok_or_else(|| VersionError::Taken(self.dir.display().to_string()));
        }
        fs::rename(&self.partial, &self.dir)?;
        Version::open(&self.dir)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

//! Where the rows of a check go: into a version, into the account, onto the progress bar.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
};

use datasets::{Draft, FileName, Input, Manifest, Outcome, Sink, Source, Version, VersionError};
use indicatif::ProgressBar;

use crate::{cli::DatasetCheckArgs, failure::Failure, output};

const TEMPLATE: &str = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

pub struct Outputs {
    version: Option<Draft>,
    account: Option<BufWriter<File>>,
    /// Of the two files.
    bytes: [u64; 2],
    bar: ProgressBar,
}

impl Outputs {
    /// # Errors
    /// A place that cannot be written to.
    pub fn open(args: &DatasetCheckArgs, input: &Input) -> Result<Self, Failure> {
        let version = args.out.as_deref().map(Draft::begin).transpose().map_err(super::not_written)?;
        let account = match &args.account {
            Some(path) => {
                let file =
                    File::create(path).map_err(|e| Failure::Failed(format!("--account {}: {e}", path.display())))?;
                Some(BufWriter::new(file))
            }
            None => None,
        };
        let bytes = [Some(&input.rows), input.held_out.as_ref()].map(|file| file.and_then(Source::bytes).unwrap_or(0));
        Ok(Outputs { version, account, bytes, bar: output::progress(0, TEMPLATE) })
    }

    /// Writes the rest of the account, also when the check itself has failed.
    ///
    /// # Errors
    /// A full disk and the like.
    pub fn end_account(&mut self) -> io::Result<()> {
        self.account.take().map_or(Ok(()), |mut account| account.flush())
    }

    /// Puts the version in its place.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(&mut self, manifest: &Manifest) -> Result<Option<Version>, VersionError> {
        self.version.take().map(|draft| draft.finish(manifest)).transpose()
    }
}

impl Sink for Outputs {
    fn outcome(&mut self, outcome: &Outcome) -> io::Result<()> {
        let Some(account) = &mut self.account else { return Ok(()) };
        serde_json::to_writer(&mut *account, outcome)?;
        account.write_all(b"\n")
    }

    fn accepted(&mut self, row: &str) -> io::Result<()> {
        self.version.as_mut().map_or(Ok(()), |draft| draft.row(row))
    }

    fn progress(&mut self, file: FileName, bytes: u64) {
        let (title, at) = match file {
            FileName::Rows => ("rows", 0),
            FileName::HeldOut => ("held-out", 1),
        };
        self.bar.set_message(title);
        self.bar.set_length(self.bytes[at]);
        self.bar.set_position(bytes);
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

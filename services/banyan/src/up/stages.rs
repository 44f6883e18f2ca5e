//! What is going on during the start, on standard error: a moving line on a terminal, plain lines elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// The stage line.
pub struct Stages {
    bar: Option<ProgressBar>,
}

impl Stages {
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar: Some(bar) }
    }

    /// The next stage begins.
    pub fn begin(&self, stage: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(stage.to_owned()),
            None => eprintln!("{stage}"),
        }
    }

    /// Something that should stay readable.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// A bar for `bytes`, in place of the stage line until it is dropped; hidden when nobody watches.
    pub fn bytes(&self, message: &str, bytes: u64) -> ProgressBar {
        self.begin(message);
        if self.bar.is_none() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(bytes);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}") {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        bar
    }

    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

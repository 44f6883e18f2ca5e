//! What `banyan up` says when it is ready: addresses, the key, and two commands to try.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::demo::Demo;
use crate::{cli::UpArgs, client_file::ClientFile, failure::Outcome, output};

const QUESTION: &str = "What does E-17 mean?";

pub struct Banner {
    demo: Demo,
    data: PathBuf,
    /// How to generate, so that it can be pasted: the command as it was typed, and where the client file is.
    generate: String,
}

impl Banner {
    pub fn new(args: &UpArgs, demo: Demo) -> Self {
        let typed = std::env::args().next().unwrap_or_else(|| "banyan".to_owned());
        let in_place = args.data.data == Path::new(".banyan");
        let data = if in_place { String::new() } else { format!(" --data {}", args.data.data.display()) };
        Self { demo, data: args.data.data.clone(), generate: format!("{typed} generate{data}") }
    }

    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, as_json: bool) -> Outcome {
        let Demo { endpoint, admin_endpoint, base, new_key, models } = &self.demo;
        let file = ClientFile::path(&self.data);
        if as_json {
            let ready = json!({
                "endpoint": endpoint,
                "admin_endpoint": admin_endpoint,
                "base": base,
                "models": models,
                "new_key": new_key,
                "client_file": file,
            });
            return Ok(output::line(&ready.to_string())?);
        }
        let key = match new_key {
            Some(key) => format!("{key}  (kept in {})", file.display()),
            None => format!("in {}", file.display()),
        };
        output::line(&format!(
            "\nBanyan is up.\n\n  public  {endpoint}\n  openai  {endpoint}/v1\n  admin   {admin_endpoint}\n  base    {base}\n  \
             models  {}\n  key     {key}\n\n{}\nCtrl-C stops it; running answers may finish first.",
            models.join(", "),
            self.commands(),
        ))?;
        Ok(())
    }

    fn commands(&self) -> String {
        let mut adapters = self.demo.models.iter().filter(|model| *model != "base");
        let (first, second) = match (adapters.next(), adapters.next()) {
            (Some(first), Some(second)) => (first.as_str(), second.as_str()),
            (Some(only), None) => ("base", only.as_str()),
            _ => return format!("Try, in another terminal:\n\n  {} --model base 'Hello'\n", self.generate),
        };
        let generate = &self.generate;
        format!(
            "Try, in another terminal, in this directory:\n\n  {generate} --model {first} '{QUESTION}'\n  \
             {generate} --model {second} '{QUESTION}'\n"
        )
    }
}

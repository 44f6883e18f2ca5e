//! Flags as configuration: the table that is laid over defaults, file and environment.

use chassis::telemetry::LogFormat;
use toml::{Table, Value};

use crate::{
    cli::{ConfigArgs, DtypeArg, LogArgs, LogFormatArg},
    failure::Failure,
};

/// Dotted keys and their values.
#[derive(Default)]
pub struct Settings {
    table: Table,
}

impl Settings {
    /// The pairs and telemetry flags that every process has.
    ///
    /// # Errors
    /// A `--set` that is not KEY=VALUE.
    pub fn of(args: &ConfigArgs) -> Result<Self, Failure> {
        let mut settings = Self::from_pairs(&args.set)?;
        settings.put_log(&args.log);
        Ok(settings)
    }

    /// # Errors
    /// A `--set` that is not KEY=VALUE.
    pub fn from_pairs(pairs: &[String]) -> Result<Self, Failure> {
        let mut settings = Self::default();
        settings.put_pairs(pairs)?;
        Ok(settings)
    }

    /// Lays `--set` pairs over what is there.
    ///
    /// # Errors
    /// One that is not KEY=VALUE.
    pub fn put_pairs(&mut self, pairs: &[String]) -> Result<(), Failure> {
        for pair in pairs {
            let (key, text) = pair
                .split_once('=')
                .filter(|(key, _)| !key.is_empty() && key.split('.').all(|part| !part.is_empty()))
                .ok_or_else(|| Failure::Usage(format!("`{pair}` is not KEY=VALUE")))?;
            self.put(key, value(text));
        }
        Ok(())
    }

    pub fn put(&mut self, key: &str, value: impl Into<Value>) {
        put(&mut self.table, key, value.into());
    }

    /// Nothing for `None`.
    pub fn put_some(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(key, value.to_string());
        }
    }

    /// The telemetry flags, under `telemetry`.
    pub fn put_log(&mut self, log: &LogArgs) {
        self.put_some("telemetry.log_filter", log.log.as_ref());
        self.put_some("telemetry.log_format", log.log_format.map(format_name));
        self.put_some("telemetry.otlp_endpoint", log.otlp.as_ref());
    }

    pub const fn table(&self) -> &Table {
        &self.table
    }
}

/// As telemetry knows it.
pub const fn format_of(format: LogFormatArg) -> LogFormat {
    match format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    }
}

const fn format_name(format: LogFormatArg) -> &'static str {
    match format {
        LogFormatArg::Text => "text",
        LogFormatArg::Json => "json",
    }
}

pub const fn dtype_name(dtype: DtypeArg) -> &'static str {
    match dtype {
        DtypeArg::F32 => "f32",
        DtypeArg::Bf16 => "bf16",
        DtypeArg::Int8 => "int8",
    }
}

/// A TOML value where it reads as one (`8`, `true`, `["a"]`, `"text"`), else the text itself.
fn value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn put(table: &mut Table, key: &str, value: Value) {
    let Some((head, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
    if !inner.is_table() {
        *inner = Value::Table(Table::new());
    }
    if let Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_nest_and_values_keep_their_type() {
        let pairs = ["engine.waiting_max=8", "engine.on=true", "listen.address=127.0.0.1:0", "names=[\"a\"]"];
        let settings = Settings::from_pairs(&pairs.map(String::from)).expect("pairs");
        let wanted: Table = "names = ['a']\n[engine]\nwaiting_max = 8\non = true\n[listen]\naddress = '127.0.0.1:0'"
            .parse()
            .expect("toml");
        assert_eq!(settings.table(), &wanted);
        for wrong in ["engine", "=1", "a..b=1"] {
            assert!(Settings::from_pairs(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}

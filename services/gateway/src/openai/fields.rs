//! Reads the fields of a JSON object one by one, and collects whatever is wrong with them under OpenAI's own names.
//! `null` is an absent field, as OpenAI has it.

use domain::{Detail, Fault, Reason};
use serde_json::{Map, Value};

/// As many as a person reads.
const VIOLATIONS_MAX: usize = 32;

/// The fields that nobody has read yet, and what was wrong so far.
pub struct Fields {
    object: Map<String, Value>,
    violations: Vec<(String, &'static str, String)>,
}

impl Fields {
    pub const fn new(object: Map<String, Value>) -> Self {
        Self { object, violations: Vec::new() }
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    pub fn wrong(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.violations.push((field.into(), Reason::InvalidRequest.as_str(), why.into()));
    }

    pub fn missing(&mut self, field: &str) {
        self.violations.push((field.to_owned(), "missing_required_parameter", "is required".to_owned()));
    }

    pub fn unsupported(&mut self, field: impl Into<String>, why: &str) {
        self.violations.push((field.into(), "unsupported_parameter", why.to_owned()));
    }

    pub fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => self.type_wrong(name, "a string"),
        }
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => self.type_wrong(name, "a boolean"),
        }
    }

    /// Ranges are the request's parser's.
    pub fn number(&mut self, name: &str) -> Option<f32> {
        match self.take(name)?.as_f64() {
            Some(number) => Some(number as f32),
            None => self.type_wrong(name, "a number"),
        }
    }

    pub fn count(&mut self, name: &str) -> Option<u32> {
        match self.take(name)?.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) => Some(count),
            None => self.type_wrong(name, "a whole number, 0 or more"),
        }
    }

    /// Any whole number of 64 bits; a negative one stands for its bits.
    pub fn seed(&mut self, name: &str) -> Option<u64> {
        let value = self.take(name)?;
        match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => Some(seed),
            None => self.type_wrong(name, "a whole number of 64 bits"),
        }
    }

    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(object) => Some(object),
            _ => self.type_wrong(name, "an object"),
        }
    }

    /// One string or a list of them.
    pub fn strings(&mut self, name: &str) -> Vec<String> {
        match self.take(name) {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => {
                let read: Option<Vec<_>> = many.into_iter().map(|one| Some(one.as_str()?.to_owned())).collect();
                read.or_else(|| self.type_wrong(name, "a string or an array of strings")).unwrap_or_default()
            }
            Some(_) => self.type_wrong(name, "a string or an array of strings").unwrap_or_default(),
        }
    }

    /// Known to OpenAI and without effect here.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.object.remove(*name);
        }
    }

    /// Refuses each of these unless it says what is so anyway.
    pub fn refuse_unless(&mut self, plain: &[(&str, &[Value])], why: &str) {
        for (name, values) in plain {
            if let Some(value) = self.take(name)
                && !values.contains(&value)
            {
                self.unsupported(*name, why);
            }
        }
    }

    pub fn type_wrong<T>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.violations.push((name.to_owned(), "invalid_type", format!("must be {expected}")));
        None
    }

    /// What was read, if nothing was wrong with it and nothing is left: as OpenAI does, fields that do not exist are refused.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Fault> {
        let unknown: Vec<_> = self.object.keys().cloned().collect();
        let unknown = unknown.into_iter().map(|name| (name, "unknown_parameter", "is not known".to_owned()));
        self.violations.extend(unknown);
        self.violations.truncate(VIOLATIONS_MAX);
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ if self.violations.is_empty() => Err(Fault::internal()),
            _ => Err(fault(self.violations)),
        }
    }
}

fn fault(violations: Vec<(String, &'static str, String)>) -> Fault {
    let sentences: Vec<_> = violations.iter().map(|(field, _, why)| format!("{field}: {why}")).collect();
    let details = violations.into_iter().map(|(field, reason, description)| Detail::Violation {
        field,
        reason: reason.to_owned(),
        description,
    });
    Fault { reason: Reason::InvalidRequest, message: sentences.join("; "), details: details.collect() }
}

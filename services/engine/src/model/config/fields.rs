//! Typed access to the fields of a JSON object, with messages that name the field. It gives them no meaning.

use serde_json::{Map, Value};

/// The fields of `config.json` or of an object in it.
pub(crate) struct Fields<'a> {
    map: std::borrow::Cow<'a, Map<String, Value>>,
}

impl<'a> Fields<'a> {
    pub fn parse(text: &[u8]) -> Result<Fields<'static>, String> {
        let map = serde_json::from_slice(text).map_err(|fault| format!("not a JSON object: {fault}"))?;
        Ok(Fields { map: std::borrow::Cow::Owned(map) })
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Present and not null, not false, not empty.
    pub fn has_value(&self, key: &str) -> bool {
        match self.value(key) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Object(map)) => !map.is_empty(),
            Some(_) => true,
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    pub fn size(&self, key: &str) -> Result<usize, String> {
        match self.optional_size(key)? {
            None => Err(format!("{key} is missing")),
            Some(0) => Err(format!("{key} is 0")),
            Some(size) => Ok(size),
        }
    }

    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let size = value.as_u64().filter(|size| *size <= u64::from(u32::MAX));
        size.map(|size| Some(size as usize)).ok_or_else(|| format!("{key} is {value}, not a size"))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, not a number"))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| format!("{key} is {value}, not true or false"))
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| format!("{key} is {value}, not a text"))
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts =
            value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
        texts.map(Some).ok_or_else(|| format!("{key} is {value}, not a list of texts"))
    }

    /// One id or a list of them; null and absent are none.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, String> {
        let Some(value) = self.value(key) else { return Ok(vec![]) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| format!("{key} is {value}, not token ids"))
    }

    pub fn object(&'a self, key: &str) -> Result<Option<Fields<'a>>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| format!("{key} is {value}, not an object"))?;
        Ok(Some(Fields { map: std::borrow::Cow::Borrowed(map) }))
    }

    /// Null is as good as absent.
    fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }
}

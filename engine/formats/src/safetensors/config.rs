//! Typed reading of `config.json`, with errors that name the key.

use crate::{Error, Result};
use serde_json::{Map, Value};

/// A JSON object of hyperparameters. A key that is `null` counts as absent.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What errors call it: `config.json`, or a path inside it.
    name: String,
    keys: Map<String, Value>,
}

impl Config {
    pub(crate) fn parse(text: &[u8]) -> Result<Config> {
        let name = "config.json".to_owned();
        match serde_json::from_slice(text) {
            Ok(Value::Object(keys)) => Ok(Config { name, keys }),
            Ok(_) => Err(Error::malformed(name, "expected a JSON object")),
            Err(e) => Err(Error::malformed(name, e.to_string())),
        }
    }

    /// The value of `key`, unless it is absent or `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// The object at `key`.
    pub(crate) fn opt_object(&self, key: &str) -> Result<Option<Config>> {
        self.opt(key, "an object", |value| {
            let name = format!("{} '{key}'", self.name);
            value.as_object().map(|keys| Config { name, keys: keys.clone() })
        })
    }

    pub(crate) fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        self.opt(key, "a non-negative integer", |v| v.as_u64()?.try_into().ok())
    }

    pub(crate) fn usize(&self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| self.missing(key, "a non-negative integer"))
    }

    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.opt(key, "a number", Value::as_f64)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<f64> {
        self.opt_f64(key)?.ok_or_else(|| self.missing(key, "a number"))
    }

    /// The bool at `key`, or `default`.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt(key, "a bool", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.opt(key, "a string", Value::as_str)
    }

    /// The strings at `key`.
    pub(crate) fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.opt(key, "an array of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// What errors call `key`.
    pub(crate) fn field(&self, key: &str) -> String {
        format!("{} '{key}'", self.name)
    }

    fn opt<'a, T>(&'a self, key: &str, what: &str, from: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        from(value).map(Some).ok_or_else(|| {
            let mut found = value.to_string();
            if found.len() > 60 {
                let cut = (0..=60).rev().find(|&i| found.is_char_boundary(i)).unwrap_or(0);
                found.truncate(cut);
                found.push('…');
            }
            Error::malformed(self.field(key), format!("found {found}, expected {what}"))
        })
    }

    fn missing(&self, key: &str, what: &str) -> Error {
        Error::malformed(self.field(key), format!("missing; expected {what}"))
    }
}

//! The fields of one table of the configuration: each is taken once and by its kind; what is left over is unknown.

use super::parse::FileError;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A table while it is being read.
#[derive(Debug)]
pub struct Fields<'a, 'i> {
    /// What it is called in errors: "hive".
    table: &'static str,
    left: Vec<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)>,
    /// Every key that was asked for.
    known: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// All fields of a table.
    pub fn new(table: &'static str, all: &'a DeTable<'i>) -> Self {
        Self { table, left: all.iter().collect(), known: Vec::new() }
    }

    /// A field of any kind, and where its value stands.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        let at = self.left.iter().position(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// A text that is not empty.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, FileError> {
        self.take(key)
            .map(|value| text(value).ok_or_else(|| self.wrong(key, value, "use a text in quotes")))
            .transpose()
    }

    /// One text, or a list of them.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let several = match value.get_ref() {
            DeValue::Array(all) => all.iter().map(text).collect(),
            _ => text(value).map(|one| vec![one]),
        };
        several.map(Some).ok_or_else(|| self.wrong(key, value, "use a text in quotes, or a list of them in [ ]"))
    }

    /// A value that `read` understands; `accepted` is what it would.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl Fn(&DeValue<'i>) -> Option<T>,
    ) -> Result<Option<T>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        read(value.get_ref()).map(Some).ok_or_else(|| self.wrong(key, value, accepted))
    }

    /// A port.
    pub fn port(&mut self, key: &'static str) -> Result<Option<u16>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match value.get_ref() {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let port = number.filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| self.wrong(key, value, "use a port, 1 to 65535"))
    }

    /// A table of texts.
    pub fn pairs(&mut self, key: &'static str) -> Result<BTreeMap<String, String>, FileError> {
        let Some(value) = self.take(key) else { return Ok(BTreeMap::new()) };
        let wrong = || self.wrong(key, value, "use a table of texts, such as { team = \"a\" }");
        let DeValue::Table(all) = value.get_ref() else { return Err(wrong()) };
        all.iter()
            .map(|(key, value)| Some((key.get_ref().to_string(), any_text(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(wrong)
    }

    /// An error about the value of a key.
    pub fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, message: &str) -> FileError {
        FileError::at(value.span(), format!("{}.{key}: {message}", self.table))
    }

    /// Refuses whatever nobody asked for, and names the key that may have been meant.
    pub fn end(self) -> Result<(), FileError> {
        let first = self.left.iter().min_by_key(|(key, _)| key.span().start);
        first.map_or(Ok(()), |(key, _)| Err(unknown(self.table, key.get_ref(), key.span(), &self.known)))
    }
}

/// An error about a key that does not exist.
pub fn unknown(table: &str, key: &str, place: Range<usize>, known: &[&'static str]) -> FileError {
    let shown: String = key.chars().take(80).collect();
    let name = if table.is_empty() { format!("{shown:?}") } else { format!("{shown:?} in {table}") };
    let nearest = known.iter().min_by_key(|other| strsim::damerau_levenshtein(&shown, other));
    let hint = match nearest {
        Some(nearest) if strsim::damerau_levenshtein(&shown, nearest) <= nearest.len() / 2 + 1 => {
            format!("did you mean {nearest}?")
        }
        _ => format!("known are {}", known.join(", ")),
    };
    FileError::at(place, format!("there is no key {name}: {hint}"))
}

fn any_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    }
}

fn text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    any_text(value).filter(|text| !text.is_empty())
}

//! The fields of one table of a TOML file that people write: each is taken once and by its kind; what is left over is
//! unknown. Every mistake is told with its line, its key and what is accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// What is wrong with a file. Shown as "4: sentence", to stand behind the file's name and a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// Bytes of the text that it is about.
    place: Range<usize>,
    /// Counted from 1, once the text is known.
    line: usize,
    message: String,
}

impl FileError {
    /// About a place of the text.
    pub fn at(place: Range<usize>, message: impl Into<String>) -> Self {
        Self { place, line: 1, message: message.into() }
    }

    /// The line that it is about, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Finds its line.
    #[must_use]
    pub fn in_text(mut self, text: &str) -> Self {
        let before = text.as_bytes().get(..self.place.start).unwrap_or_default();
        self.line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl std::error::Error for FileError {}

/// The text of a file.
///
/// # Errors
/// When it is not UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, FileError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let valid = String::from_utf8_lossy(&bytes[..at]).into_owned();
        FileError::at(at..at, "this is not UTF-8 text").in_text(&valid)
    })
}

/// The tables of a text.
///
/// # Errors
/// When it is not TOML.
pub fn document(text: &str) -> Result<Spanned<DeTable<'_>>, FileError> {
    DeTable::parse(text)
        .map_err(|error| FileError::at(error.span().unwrap_or(0..0), error.message().trim().replace('\n', ", ")))
}

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

    /// A list of texts, which may be empty ones.
    pub fn list(&mut self, key: &'static str) -> Result<Option<Vec<String>>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let all = match value.get_ref() {
            DeValue::Array(all) => all.iter().map(any_text).collect(),
            _ => None,
        };
        all.map(Some).ok_or_else(|| self.wrong(key, value, "use a list of texts in [ ]"))
    }

    /// A whole number.
    pub fn integer(&mut self, key: &'static str) -> Result<Option<i64>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        number(value).map(Some).ok_or_else(|| self.wrong(key, value, "use a whole number, without quotes"))
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            _ => Err(self.wrong(key, value, "use true or false, without quotes")),
        }
    }

    /// A text, or a whole number as a text.
    pub fn word(&mut self, key: &'static str) -> Result<Option<String>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let word = text(value).or_else(|| number(value).map(|number| number.to_string()));
        word.map(Some).ok_or_else(|| self.wrong(key, value, "use a text in quotes, or a whole number"))
    }

    /// A table, to be read in its turn.
    pub fn table(&mut self, key: &'static str) -> Result<Option<&'a DeTable<'i>>, FileError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(all) => Ok(Some(all)),
            _ => Err(self.wrong(key, value, "use a table")),
        }
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

fn number(value: &Spanned<DeValue<'_>>) -> Option<i64> {
    match value.get_ref() {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
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

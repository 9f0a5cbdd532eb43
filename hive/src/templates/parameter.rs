//! What a caller may fill in, and what of it is accepted. Strict on purpose: a value comes from the network and becomes a
//! part of a command line. Pure.

use crate::worker::limits::parse_vram;
use common::fields::{Fields, FileError};
use proto::ParameterType;

/// The longest NAME, in bytes.
const NAME_MAX: usize = 256;
/// No CHOICE has more choices.
const CHOICES_MAX: usize = 256;

/// What a NAME is, in words.
const NAME_RULE: &str = "use letters, digits and . _ - / : (256 at most), beginning with a letter, a digit or _, \
                         without \"..\" and \"//\"";

/// One parameter of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub kind: Kind,
    pub default: Option<String>,
    pub description: String,
}

/// What values it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Integer { minimum: Option<i64>, maximum: Option<i64> },
    Choice(Vec<String>),
    Name,
    Size,
}

impl Parameter {
    /// Reads one `[parameters.NAME]`.
    pub fn read(mut fields: Fields<'_, '_>) -> Result<Self, FileError> {
        let (kind, default) = (fields.take("type"), fields.word("default")?);
        let description = fields.text("description")?.unwrap_or_default();
        let (minimum, maximum) = (fields.integer("min")?, fields.integer("max")?);
        let choices = fields.list("choices")?;
        let Some(at) = kind else {
            // A key that does not exist may be the misspelt one.
            return match fields.end() {
                Ok(()) => Err(FileError::at(0..0, "a parameter needs its type: integer, choice, name or size")),
                Err(error) => Err(error),
            };
        };
        let word = at.get_ref().as_str().unwrap_or_default();
        let wrong = |message: &str| Err(fields.wrong("type", at, message));
        let kind = match (word, choices) {
            ("integer", None) if minimum.zip(maximum).is_some_and(|(min, max)| min > max) => {
                return wrong("min is above max");
            }
            ("integer", None) => Kind::Integer { minimum, maximum },
            ("choice", Some(choices)) if (1..=CHOICES_MAX).contains(&choices.len()) => Kind::Choice(choices),
            ("choice", _) => return wrong("a choice needs its choices, 1 to 256 texts"),
            ("name", None) => Kind::Name,
            ("size", None) => Kind::Size,
            ("integer" | "name" | "size", Some(_)) => return wrong("only a choice has choices"),
            _ => return wrong("use integer, choice, name or size"),
        };
        if !matches!(kind, Kind::Integer { .. }) && (minimum.is_some() || maximum.is_some()) {
            return wrong("only an integer has min and max");
        }
        let parameter = Self { kind, default: None, description };
        if let Some(why) = default.as_ref().and_then(|text| parameter.check(text).err()) {
            return wrong(&format!("the default does not fit: {why}"));
        }
        fields.end()?;
        Ok(Self { default, ..parameter })
    }

    /// The value as it is filled in. The error says what is accepted.
    pub fn check(&self, text: &str) -> Result<String, String> {
        match &self.kind {
            Kind::Integer { minimum, maximum } => {
                let number = integer(text).filter(|number| {
                    minimum.is_none_or(|min| *number >= min) && maximum.is_none_or(|max| *number <= max)
                });
                number.map(|number| number.to_string()).ok_or_else(|| self.rule())
            }
            Kind::Choice(choices) if choices.iter().any(|choice| choice == text) => Ok(text.to_owned()),
            Kind::Name if is_name(text) => Ok(text.to_owned()),
            Kind::Size if is_size(text) => Ok(text.to_owned()),
            _ => Err(self.rule()),
        }
    }

    /// What is accepted, in words.
    pub fn rule(&self) -> String {
        match &self.kind {
            Kind::Integer { minimum: Some(min), maximum: Some(max) } => {
                format!("use a whole number from {min} to {max}")
            }
            Kind::Integer { minimum: Some(min), maximum: None } => format!("use a whole number from {min} on"),
            Kind::Integer { minimum: None, maximum: Some(max) } => format!("use a whole number up to {max}"),
            Kind::Integer { .. } => "use a whole number".to_owned(),
            Kind::Choice(choices) => format!("use one of {}", choices.join(", ")),
            Kind::Name => NAME_RULE.to_owned(),
            Kind::Size => "use a size such as 8G: K, M, G and T are powers of 1024".to_owned(),
        }
    }

    /// A value that fits, to try a template with.
    pub fn example(&self) -> String {
        let or = |text: &str| self.default.clone().unwrap_or_else(|| text.to_owned());
        match &self.kind {
            Kind::Integer { minimum, maximum } => or(&minimum.or(*maximum).unwrap_or(1).to_string()),
            Kind::Choice(choices) => or(choices.first().map_or("", String::as_str)),
            Kind::Name => or("name"),
            Kind::Size => or("1G"),
        }
    }

    /// As the wire tells of it.
    pub fn to_wire(&self, name: &str) -> proto::TemplateParameter {
        let (kind, choices, minimum, maximum) = match &self.kind {
            Kind::Integer { minimum, maximum } => (ParameterType::Integer, Vec::new(), *minimum, *maximum),
            Kind::Choice(choices) => (ParameterType::Choice, choices.clone(), None, None),
            Kind::Name => (ParameterType::Name, Vec::new(), None, None),
            Kind::Size => (ParameterType::Size, Vec::new(), None, None),
        };
        proto::TemplateParameter {
            name: name.to_owned(),
            r#type: kind.into(),
            default: self.default.clone(),
            description: self.description.clone(),
            choices,
            minimum,
            maximum,
        }
    }
}

/// Plain decimal digits, with a minus before them or none.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn is_name(text: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    text.len() <= NAME_MAX
        && text.bytes().next().is_some_and(first)
        && text.bytes().all(inner)
        && !text.contains("..")
        && !text.contains("//")
}

fn is_size(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') && parse_vram(text).is_ok()
}

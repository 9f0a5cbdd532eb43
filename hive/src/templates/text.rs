//! A text with `{parameter}` in it. `{{` and `}}` are single braces. Pure.

/// What is wrong with a text of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A brace that belongs to none.
    #[error("a lone {0:?}: a placeholder is {{name}}, and a brace itself is written twice")]
    Brace(char),
    /// A placeholder for a parameter that is not declared.
    #[error("there is no parameter {0:?}: declare it in [parameters.{0}]")]
    Unknown(String),
}

/// Puts values in the place of placeholders. `value` knows them by name. A value is never looked into: braces in it are
/// braces.
pub fn fill<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, TextError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = if rest[at..].starts_with('{') { '{' } else { '}' };
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push(brace);
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('}').filter(|_| brace == '{').ok_or(TextError::Brace(brace))?;
        if name.is_empty() || name.contains('{') {
            return Err(TextError::Brace(brace));
        }
        out.push_str(value(name).ok_or_else(|| TextError::Unknown(name.to_owned()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, TextError> {
        fill(text, |name| match name {
            "model" => Some("qwen"),
            "brace" => Some("{model}"),
            _ => None,
        })
    }

    #[test]
    fn placeholders_are_filled_once_and_doubled_braces_are_braces() {
        assert_eq!(filled("/m/{model}.gguf").unwrap(), "/m/qwen.gguf");
        assert_eq!(filled("{{\"a\": {{}}}}").unwrap(), "{\"a\": {}}");
        assert_eq!(filled("{{model}}").unwrap(), "{model}");
        assert_eq!(filled("{brace}{model}").unwrap(), "{model}qwen", "what was filled in is not filled again");
        assert_eq!(filled("").unwrap(), "");
    }

    #[test]
    fn what_is_no_placeholder_is_an_error() {
        for text in ["{", "}", "a}b", "{model", "{}", "{mo{del}", "{{{"] {
            assert!(matches!(filled(text), Err(TextError::Brace(_))), "{text}");
        }
        assert_eq!(filled("{modle}"), Err(TextError::Unknown("modle".to_owned())));
    }
}

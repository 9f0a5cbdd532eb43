//! `FindWorkersWithModel`: whose model goes by a name, exactly, without regard to case, or by a pattern.

use super::objection::Objection;
use crate::fleet::Seen;
use crate::fleet::index::Index;

/// How model names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelRule {
    /// Letter by letter.
    Exact,
    /// Without regard to case.
    IgnoreCase,
    /// With `*` and `?`.
    Glob,
}

/// None of its names fits.
pub fn objections<'a>(seen: &Seen<'a>, wanted: &'a str, rule: ModelRule, say: &mut impl FnMut(Objection<'a>)) {
    let spec = seen.spec();
    if !spec.models().any(|name| rule.fits(wanted, name)) {
        say(Objection::OtherModel { model: spec.model.as_deref(), names: &spec.model_names, wanted });
    }
}

/// For each block of rows, those whose model the filter names, and goes by a name that is wanted; `None`: any.
pub fn rows_with_model(index: &Index, filter: &str, wanted: Option<(&str, ModelRule)>) -> Option<Vec<u64>> {
    let filtered = (!filter.is_empty()).then(|| index.model(filter));
    let named = wanted.map(|(name, rule)| match rule {
        ModelRule::Exact => index.model(name),
        ModelRule::IgnoreCase | ModelRule::Glob => index.models(|is| rule.fits(name, is)),
    });
    match (filtered, named) {
        (Some(mut both), Some(other)) => {
            both.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
            Some(both)
        }
        (one, other) => one.or(other),
    }
}

impl ModelRule {
    /// Whether a model's name fits.
    pub fn fits(self, wanted: &str, name: &str) -> bool {
        match self {
            Self::Exact => wanted == name,
            Self::IgnoreCase => wanted.to_lowercase() == name.to_lowercase(),
            Self::Glob => {
                let chars = |text: &str| text.chars().collect::<Vec<char>>();
                glob(&chars(wanted), &chars(name))
            }
        }
    }
}

/// `*` is any run of characters, `?` any one. Goes back to the last `*` only: at most the product of the lengths.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if *one == '?' || *one == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abcabc", true),
            ("a*c", "abcab", false),
            ("l?ama", "llama", true),
            ("?", "ä", true),
            ("**x*", "aax", true),
            ("", "a", false),
            ("llama", "llama2", false),
        ] {
            assert_eq!(ModelRule::Glob.fits(pattern, text), fits, "{pattern} {text}");
        }
    }
}

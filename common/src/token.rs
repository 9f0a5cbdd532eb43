//! Tokens: what a caller shows with each call. Never printed, logged or put into an error.

use crate::secret::{self, Readers, SecretError};
use http::HeaderValue;
use std::fmt;
use std::path::{Path, PathBuf};

/// Shorter ones could be guessed.
const LENGTH_MIN: usize = 16;
/// Longer ones do not fit beside the other headers of a call.
const LENGTH_MAX: usize = 1_024;
/// How a call carries one: `authorization: Bearer …`.
const SCHEME: &str = "Bearer ";

/// Why a text is no token. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too short or too long.
    #[error("a token has {LENGTH_MIN} to {LENGTH_MAX} characters, this one has {0}")]
    Length(usize),
    /// It could not travel in a header.
    #[error("a token is made of visible ASCII characters without blanks")]
    Character,
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot or must not be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It holds something else.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: TokenError,
    },
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads a token; blanks and line ends around it do not count.
    ///
    /// # Errors
    /// When it is too short, too long, or could not travel in a header.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&text.len()) {
            return Err(TokenError::Length(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a file that holds nothing but a token.
    ///
    /// # Errors
    /// Also when others on the machine can read the file.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let bytes = secret::read(path, Readers::Owner)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Character);
        text.and_then(Self::parse).map_err(|reason| TokenFileError::Content { path: path.to_owned(), reason })
    }

    /// The value of `authorization`.
    pub fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("{SCHEME}{}", self.0))
            // `parse` lets only visible ASCII through.
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// The bytes, to be compared by their digest.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The token in a value of `authorization`, if there is one.
pub fn bearer(value: &HeaderValue) -> Option<Token> {
    let text = value.to_str().ok()?;
    let scheme = text.get(..SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| Token::parse(text.get(SCHEME.len()..)?).ok())?
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_out_of_its_header_and_nowhere_else() {
        let token = Token::parse("  0123456789abcdef\n").unwrap();
        let header = token.header();
        assert_eq!(header.to_str().unwrap(), "Bearer 0123456789abcdef");
        assert!(header.is_sensitive());
        assert_eq!(bearer(&header).unwrap(), token);
        assert_eq!(bearer(&HeaderValue::from_static("bearer 0123456789abcdef")).unwrap(), token);
        assert_eq!(bearer(&HeaderValue::from_static("Basic 0123456789abcdef")), None);
        assert_eq!(bearer(&HeaderValue::from_static("Bearer")), None);
        assert!(!format!("{token:?} {header:?}").contains("0123"));
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_no_token() {
        assert_eq!(Token::parse("short"), Err(TokenError::Length(5)));
        assert_eq!(Token::parse(&"x".repeat(1_025)), Err(TokenError::Length(1_025)));
        for bad in ["0123456789abcdef with blanks", "0123456789abcdef\u{e4}", "0123456789\tabcdef"] {
            assert_eq!(Token::parse(bad), Err(TokenError::Character), "{bad}");
        }
        for error in [TokenError::Length(5), TokenError::Character] {
            assert!(!error.to_string().contains("0123"));
        }
    }
}

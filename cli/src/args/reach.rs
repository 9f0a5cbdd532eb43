//! Flags that say how queens are reached: whom to trust, and what to show them.

use super::EVERYWHERE;
use crate::failure::Failure;
use common::link::{Access, TokenSource};
use common::token::Token;
use std::path::PathBuf;

/// A token itself, for places that have no files. There is no flag for it: everybody can read a command line.
const TOKEN: &str = "RBEE_TOKEN";

/// How queens are reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Reach {
    /// Trust a queen whose certificate this authority signed (PEM) [default: whom the system trusts]
    #[arg(long, global = true, env = "RBEE_TLS_CA", value_name = "FILE", hide_env_values = true, help_heading = EVERYWHERE)]
    pub tls_ca: Option<PathBuf>,
    /// The name in the queen's certificate, where it is not the URL's host
    #[arg(long, global = true, env = "RBEE_TLS_NAME", value_name = "NAME", hide_env_values = true, help_heading = EVERYWHERE)]
    pub tls_name: Option<String>,
    /// Show the token in this file with each call [default: the token in $RBEE_TOKEN, if it is set]
    #[arg(long, global = true, env = "RBEE_TOKEN_FILE", value_name = "FILE", hide_env_values = true, help_heading = EVERYWHERE)]
    pub token_file: Option<PathBuf>,
}

impl Reach {
    /// The token that was given: the file, else what the environment holds.
    ///
    /// # Errors
    /// When the environment holds something that is no token; it is not shown.
    pub fn token(&self) -> Result<Option<TokenSource>, Failure> {
        if let Some(path) = &self.token_file {
            return Ok(Some(TokenSource::File(path.clone())));
        }
        let Some(text) = std::env::var_os(TOKEN).filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = |why: &str| Failure::Usage(format!("{TOKEN} cannot be used: {why}"));
        let text = text.to_str().ok_or_else(|| wrong("it is not text"))?;
        Token::parse(text).map(|token| Some(TokenSource::Given(token))).map_err(|error| wrong(&error.to_string()))
    }

    /// What client verbs need.
    ///
    /// # Errors
    /// As for [`Reach::token`].
    pub fn access(&self) -> Result<Access, Failure> {
        let token = self.token()?.unwrap_or_default();
        Ok(Access { tls_ca: self.tls_ca.clone(), tls_name: self.tls_name.clone(), token })
    }
}

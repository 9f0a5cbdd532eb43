//! How a queen is reached: by a URL, over TLS or on this machine, with a token on each call.

use crate::tls;
use crate::token::{Token, TokenFileError};
use http::HeaderValue;
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// A connection whose calls carry a token, where there is one.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Why a queen cannot even be dialled.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It is no URL of a queen.
    #[error("{0:?} is not the address of a queen: use http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// The authority's certificate cannot be read.
    #[error("cannot read the authority's certificate {path}: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS for {url}: {reason}")]
    Tls {
        /// The queen.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The token cannot be read.
    #[error("cannot use the token: {0}")]
    Token(String),
    /// Everybody on the way could read the token.
    #[error("a token is not sent in the clear to {0:?}: use https://, or a queen on this machine")]
    Clear(String),
    /// Nobody answers, or cannot be trusted.
    #[error("{0}")]
    Connect(String),
}

/// Where a token comes from. A file is read again for each connection, so that a renewed token needs no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// There is none.
    #[default]
    None,
    /// It is known.
    Given(Token),
    /// It is in a file that only its owner can read.
    File(PathBuf),
}

/// What is needed to reach queens besides their URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Certificates of the authorities that are trusted, in PEM, instead of the system's. Read for each connection.
    pub tls_ca: Option<PathBuf>,
    /// The name that the queen's certificate is for, where it is not the URL's host.
    pub tls_name: Option<String>,
    /// What is shown with each call.
    pub token: TokenSource,
}

impl Access {
    /// What dials `url`, and what goes with each call. The caller sets its own deadlines and windows on the endpoint.
    ///
    /// # Errors
    /// When the URL is none, a file cannot be used, or the token would travel in the clear.
    pub fn endpoint(&self, url: &str) -> Result<(Endpoint, Bearer), LinkError> {
        let address = || LinkError::Address(url.to_owned());
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(address());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| address())?;
        let host = endpoint.uri().host().filter(|host| !host.is_empty()).ok_or_else(address)?.to_owned();
        let bearer = self.bearer()?;
        if bearer.0.is_some() && !secure && !is_here(&host) {
            return Err(LinkError::Clear(url.to_owned()));
        }
        if !secure {
            return Ok((endpoint, bearer));
        }
        let failed =
            |error: tonic::transport::Error| LinkError::Tls { url: url.to_owned(), reason: tls::cause(&error) };
        Ok((endpoint.tls_config(self.tls(&host)?).map_err(failed)?, bearer))
    }

    /// Connects to `url` over an endpoint that [`Access::endpoint`] made and `set` finished.
    ///
    /// # Errors
    /// As for [`Access::endpoint`], and when nobody answers or cannot be trusted.
    pub async fn connect(&self, url: &str, set: impl FnOnce(Endpoint) -> Endpoint) -> Result<Channel, LinkError> {
        let (endpoint, bearer) = self.endpoint(url)?;
        let channel = set(endpoint).connect().await.map_err(|error| LinkError::Connect(tls::cause(&error)))?;
        Ok(InterceptedService::new(channel, bearer))
    }

    fn tls(&self, host: &str) -> Result<ClientTlsConfig, LinkError> {
        let name = self.tls_name.as_deref().unwrap_or(host);
        let config = ClientTlsConfig::new().domain_name(name.trim_start_matches('[').trim_end_matches(']'));
        let Some(path) = &self.tls_ca else { return Ok(config.with_native_roots()) };
        let pem = std::fs::read(path)
            .map_err(|error| LinkError::Authority { path: path.clone(), reason: error.to_string() })?;
        Ok(config.ca_certificate(Certificate::from_pem(pem)))
    }

    fn bearer(&self) -> Result<Bearer, LinkError> {
        let token = match &self.token {
            TokenSource::None => return Ok(Bearer::default()),
            TokenSource::Given(token) => token.clone(),
            TokenSource::File(path) => {
                let told = |error: TokenFileError| match error.source() {
                    Some(source) => LinkError::Token(format!("{error}: {source}")),
                    None => LinkError::Token(error.to_string()),
                };
                Token::read(path).map_err(told)?
            }
        };
        Ok(Bearer(Some(token.header())))
    }
}

/// Puts the token on each call. Nothing of it is ever printed.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<HeaderValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0
            && let Ok(mut value) = value.to_str().unwrap_or_default().parse::<tonic::metadata::AsciiMetadataValue>()
        {
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Whether a host of a URL is this machine, whatever the network says.
fn is_here(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token() -> Access {
        Access { token: TokenSource::Given(Token::parse("0123456789abcdef").unwrap()), ..Access::default() }
    }

    #[test]
    fn a_token_does_not_leave_the_machine_in_the_clear() {
        let access = with_token();
        for here in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(access.endpoint(here).is_ok(), "{here}");
        }
        let refused = access.endpoint("http://queen.lab:1").unwrap_err();
        assert!(matches!(refused, LinkError::Clear(_)) && !refused.to_string().contains("0123"), "{refused}");
        assert!(Access::default().endpoint("http://queen.lab:1").is_ok());
        assert!(!format!("{access:?}").contains("0123"));
    }

    #[test]
    fn what_is_no_address_is_told() {
        for bad in ["queen:1", "ftp://queen", "http://", "http:///x", "", "unix:/run/x"] {
            assert!(matches!(Access::default().endpoint(bad), Err(LinkError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let ca = Access { tls_ca: Some("/nowhere/ca.pem".into()), ..Access::default() };
        let told = ca.endpoint("https://queen:1").unwrap_err().to_string();
        assert!(told.contains("/nowhere/ca.pem") && told.contains("No such file"), "{told}");
        let token = Access { token: TokenSource::File("/nowhere/token".into()), ..Access::default() };
        let told = token.endpoint("http://127.0.0.1:1").unwrap_err().to_string();
        assert!(told.contains("/nowhere/token") && told.contains("No such file"), "{told}");
    }
}

//! Who may ask: a page from elsewhere must not reach a queen on localhost, neither by its own name for it (Host) nor
//! across origins (Origin). Checked before anything else looks at a request.

use crate::page;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tonic::Status;

/// Which values of Host are answered.
#[derive(Debug)]
pub struct Guard {
    bound: SocketAddr,
    insecure: bool,
    allowed: Vec<String>,
}

impl Guard {
    /// A queen that listens on `bound`. `insecure` answers every IP address; `allowed` are further names, with or
    /// without a port.
    pub fn new(bound: SocketAddr, insecure: bool, allowed: &[String]) -> Self {
        Self { bound, insecure, allowed: allowed.iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// Says why a request is refused, if it is.
    fn objection(&self, request: &Request) -> Option<String> {
        let headers = request.headers();
        let header = match header(headers, HOST) {
            Ok(header) => header.map(str::to_ascii_lowercase),
            Err(()) => return Some("the Host header cannot be read".to_owned()),
        };
        // HTTP/2 carries the host in :authority; where both are there, both must pass.
        let authority = request.uri().authority().map(|authority| authority.as_str().to_ascii_lowercase());
        let Some(host) = authority.as_ref().or(header.as_ref()) else {
            return Some("the request names no host".to_owned());
        };
        if let Some(named) = [&authority, &header].into_iter().flatten().find(|named| !self.answers(named)) {
            let named: String = named.chars().take(80).collect();
            return Some(format!(
                "host {named:?} is not answered here; start the queen with --allow-host to add a name"
            ));
        }
        match self::header(headers, ORIGIN) {
            Ok(None) => None,
            Ok(Some(origin)) if same_origin(&origin.to_ascii_lowercase(), host) => None,
            _ => Some("requests from pages of other origins are not answered".to_owned()),
        }
    }

    fn answers(&self, host: &str) -> bool {
        if self.allowed.iter().any(|allowed| allowed == host) {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip() || self.insecure,
            Err(_) => name == "localhost" || name.ends_with(".localhost") || self.allowed.iter().any(|a| a == name),
        }
    }
}

/// A header that may be there once.
fn header(headers: &HeaderMap, name: http::HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn same_origin(origin: &str, host: &str) -> bool {
    let (scheme, port) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, "80"),
        Some(("https", rest)) => (rest, "443"),
        _ => return false,
    };
    let full = |authority: &str| {
        let authority = authority.parse::<Authority>().ok()?;
        let port = authority.port().map_or(port.to_owned(), |port| port.as_str().to_owned());
        Some((authority.host().to_owned(), port))
    };
    full(scheme).is_some() && full(scheme) == full(host)
}

/// The layer.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.objection(&request) {
        None => next.run(request).await,
        Some(objection) => match page::grpc(request.headers()) {
            Some(kind) => page::refusal(kind, Status::permission_denied(objection)),
            None => (StatusCode::FORBIDDEN, format!("{objection}\n")).into_response(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn refused(guard: &Guard, host: &str, origin: Option<&str>) -> bool {
        let mut request = http::Request::builder().uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        guard.objection(&request.body(Body::empty()).unwrap()).is_some()
    }

    #[test]
    fn a_name_that_somebody_else_points_at_us_is_not_answered() {
        let guard = Guard::new("127.0.0.1:7833".parse().unwrap(), false, &["Queen.lab".to_owned()]);
        for good in ["127.0.0.1:7833", "localhost:7833", "localhost", "[::1]:7833", "queen.lab", "QUEEN.lab:9"] {
            assert!(!refused(&guard, good, None), "{good}");
        }
        for bad in ["evil.example", "evil.example:7833", "10.0.0.1:7833", "localhost.evil.example", "", "a b", "@"] {
            assert!(refused(&guard, bad, None), "{bad}");
        }
        let lab = Guard::new("0.0.0.0:7833".parse().unwrap(), true, &[]);
        assert!(!refused(&lab, "10.0.0.1:7833", None) && refused(&lab, "evil.example", None));
    }

    #[test]
    fn a_page_of_another_origin_is_not_answered() {
        let guard = Guard::new("127.0.0.1:7833".parse().unwrap(), false, &[]);
        assert!(!refused(&guard, "127.0.0.1:7833", Some("http://127.0.0.1:7833")));
        assert!(!refused(&guard, "localhost", Some("http://localhost:80")));
        for bad in
            ["http://localhost:7833", "http://127.0.0.1:7834", "http://127.0.0.1", "https://evil.example", "null"]
        {
            assert!(refused(&guard, "127.0.0.1:7833", Some(bad)), "{bad}");
        }
    }

    #[test]
    fn two_hosts_in_one_request_must_both_pass() {
        let guard = Guard::new("127.0.0.1:7833".parse().unwrap(), false, &[]);
        let request =
            |uri: &str, host: &str| http::Request::builder().uri(uri).header(HOST, host).body(Body::empty()).unwrap();
        assert!(guard.objection(&request("http://localhost/x", "localhost")).is_none());
        assert!(guard.objection(&request("http://localhost/x", "evil.example")).is_some());
        assert!(guard.objection(&request("http://evil.example/x", "localhost")).is_some());
    }
}

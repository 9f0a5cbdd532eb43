//! Under which name a queen is asked: a page from elsewhere must not reach a queen on localhost, neither by its own
//! name for it (Host) nor across origins (Origin). Checked before anything else looks at a request.

use super::Shown;
use axum::extract::Request;
use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use std::net::{IpAddr, SocketAddr};

/// Which values of Host are answered.
#[derive(Debug)]
pub struct Hosts {
    bound: SocketAddr,
    insecure: bool,
    allowed: Vec<String>,
    shown: Shown,
}

impl Hosts {
    /// A queen that listens on `bound`. `insecure` answers every IP address; `allowed` are further names, with or
    /// without a port. Names in the certificate that is `shown` are answered too.
    pub fn new(bound: SocketAddr, insecure: bool, allowed: &[String], shown: Shown) -> Self {
        Self { bound, insecure, allowed: allowed.iter().map(|name| name.to_ascii_lowercase()).collect(), shown }
    }

    /// Says why a request is refused, if it is.
    pub fn objection(&self, request: &Request) -> Option<String> {
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
        let known = match literal.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip() || self.insecure,
            Err(_) => name == "localhost" || name.ends_with(".localhost") || self.allowed.iter().any(|a| a == name),
        };
        known || self.is_certified(literal)
    }

    /// Whoever asks under such a name was shown that the name is ours.
    fn is_certified(&self, host: &str) -> bool {
        self.shown.as_ref().is_some_and(|shown| shown.borrow().names(host))
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn refused(hosts: &Hosts, host: &str, origin: Option<&str>) -> bool {
        let mut request = http::Request::builder().uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        hosts.objection(&request.body(Body::empty()).unwrap()).is_some()
    }

    #[test]
    fn a_name_that_somebody_else_points_at_us_is_not_answered() {
        let hosts = Hosts::new("127.0.0.1:7833".parse().unwrap(), false, &["Queen.lab".to_owned()], None);
        for good in ["127.0.0.1:7833", "localhost:7833", "localhost", "[::1]:7833", "queen.lab", "QUEEN.lab:9"] {
            assert!(!refused(&hosts, good, None), "{good}");
        }
        for bad in ["evil.example", "evil.example:7833", "10.0.0.1:7833", "localhost.evil.example", "", "a b", "@"] {
            assert!(refused(&hosts, bad, None), "{bad}");
        }
        let lab = Hosts::new("0.0.0.0:7833".parse().unwrap(), true, &[], None);
        assert!(!refused(&lab, "10.0.0.1:7833", None) && refused(&lab, "evil.example", None));
    }

    #[test]
    fn a_page_of_another_origin_is_not_answered() {
        let hosts = Hosts::new("127.0.0.1:7833".parse().unwrap(), false, &[], None);
        assert!(!refused(&hosts, "127.0.0.1:7833", Some("http://127.0.0.1:7833")));
        assert!(!refused(&hosts, "localhost", Some("http://localhost:80")));
        for bad in
            ["http://localhost:7833", "http://127.0.0.1:7834", "http://127.0.0.1", "https://evil.example", "null"]
        {
            assert!(refused(&hosts, "127.0.0.1:7833", Some(bad)), "{bad}");
        }
    }

    #[test]
    fn two_hosts_in_one_request_must_both_pass() {
        let hosts = Hosts::new("127.0.0.1:7833".parse().unwrap(), false, &[], None);
        let request =
            |uri: &str, host: &str| http::Request::builder().uri(uri).header(HOST, host).body(Body::empty()).unwrap();
        assert!(hosts.objection(&request("http://localhost/x", "localhost")).is_none());
        assert!(hosts.objection(&request("http://localhost/x", "evil.example")).is_some());
        assert!(hosts.objection(&request("http://evil.example/x", "localhost")).is_some());
    }
}

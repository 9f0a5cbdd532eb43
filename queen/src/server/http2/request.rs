//! The fields of a request, and the request that they make (RFC 9113, 8.2 and 8.3).

use super::hpack::ENTRY;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// Why fields make no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// They are not what HTTP/2 allows.
    Malformed,
    /// They are more than is read.
    TooLarge,
}

/// Fields as they come.
#[derive(Debug)]
pub struct Fields {
    /// So many bytes are left of what is read.
    room: usize,
    unfit: Option<Unfit>,
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    /// Those whose names do not begin with a colon. They come last.
    named: HeaderMap,
    /// One cookie may come as many fields (RFC 9113, 8.2.3).
    cookie: Vec<u8>,
}

impl Fields {
    /// None yet, and no more than `limit` bytes of them, each counted as HTTP/2 counts it (RFC 9113, 6.5.2).
    pub fn new(limit: usize) -> Self {
        let (room, named, cookie) = (limit, HeaderMap::new(), Vec::new());
        Self { room, unfit: None, method: None, scheme: None, authority: None, path: None, named, cookie }
    }

    /// Whether they are more than is read.
    pub fn is_too_large(&self) -> bool {
        self.unfit == Some(Unfit::TooLarge)
    }

    /// One more.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        if self.unfit.is_some() {
            return;
        }
        match self.room.checked_sub(name.len() + value.len() + ENTRY) {
            None => self.unfit = Some(Unfit::TooLarge),
            Some(room) => {
                self.room = room;
                let added = if name.first() == Some(&b':') { self.pseudo(name, value) } else { self.name(name, value) };
                if added.is_none() {
                    self.unfit = Some(Unfit::Malformed);
                }
            }
        }
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if !self.named.is_empty() || !self.cookie.is_empty() {
            return None;
        }
        let again = match name {
            b":method" => self.method.replace(Method::from_bytes(value).ok()?).is_some(),
            b":scheme" => self.scheme.replace(Scheme::try_from(value).ok()?).is_some(),
            b":authority" => self.authority.replace(Authority::try_from(value).ok()?).is_some(),
            b":path" => self.path.replace(PathAndQuery::try_from(value).ok()?).is_some(),
            _ => return None,
        };
        (!again).then_some(())
    }

    fn name(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let name = HeaderName::from_lowercase(name).ok()?;
        let of_connection = name == CONNECTION
            || name == TRANSFER_ENCODING
            || name == UPGRADE
            || ["keep-alive", "proxy-connection"].contains(&name.as_str());
        if of_connection || (name == TE && value != b"trailers") {
            return None;
        }
        let value = HeaderValue::from_bytes(value).ok()?;
        if name == COOKIE {
            let between: &[u8] = if self.cookie.is_empty() { b"" } else { b"; " };
            self.cookie.extend_from_slice(between);
            self.cookie.extend_from_slice(value.as_bytes());
        } else {
            self.named.try_append(name, value).ok()?;
        }
        Some(())
    }

    /// The request, and how long its body is where that was said.
    ///
    /// # Errors
    /// Where they make none.
    pub fn request(mut self) -> Result<(Parts, Option<u64>), Unfit> {
        if let Some(unfit) = self.unfit {
            return Err(unfit);
        }
        if !self.cookie.is_empty() {
            let cookie = HeaderValue::try_from(self.cookie).map_err(|_| Unfit::Malformed)?;
            self.named.insert(COOKIE, cookie);
        }
        let (Some(method), Some(scheme), Some(path)) = (self.method, self.scheme, self.path) else {
            return Err(Unfit::Malformed);
        };
        let announced = self.named.get(CONTENT_LENGTH).map(length).transpose()?;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path);
        if let Some(authority) = self.authority {
            (uri.scheme, uri.authority) = (Some(scheme), Some(authority));
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = Uri::from_parts(uri).map_err(|_| Unfit::Malformed)?;
        (parts.method, parts.version, parts.headers) = (method, Version::HTTP_2, self.named);
        Ok((parts, announced))
    }

    /// What ends a body.
    ///
    /// # Errors
    /// Where they are no trailers.
    pub fn trailers(self) -> Result<HeaderMap, Unfit> {
        let pseudo = self.method.is_some() || self.scheme.is_some() || self.authority.is_some() || self.path.is_some();
        match self.unfit {
            Some(unfit) => Err(unfit),
            None if pseudo => Err(Unfit::Malformed),
            None => Ok(self.named),
        }
    }
}

fn length(value: &HeaderValue) -> Result<u64, Unfit> {
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Unfit::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/a?b")];

    fn fields(all: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(1_000);
        all.iter().for_each(|(name, value)| fields.add(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn request(more: &[(&str, &str)]) -> Result<(Parts, Option<u64>), Unfit> {
        fields(&[&GET, more].concat()).request()
    }

    #[test]
    fn a_request_is_made_of_its_fields() {
        let more =
            [("te", "trailers"), ("cookie", "a=1"), ("x", "1"), ("x", "2"), ("cookie", "b=2"), ("content-length", "7")];
        let (parts, announced) = request(&more).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), parts.method, announced), ("/a?b", Method::GET, Some(7)));
        assert_eq!(parts.headers.get(COOKIE).unwrap(), "a=1; b=2");
        assert_eq!(parts.headers.get_all("x").iter().count(), 2);
        let (parts, announced) = fields(&[&[(":authority", "queen:1")][..], &GET].concat()).request().unwrap();
        assert_eq!((parts.uri.to_string().as_str(), announced), ("http://queen:1/a?b", None));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for more in [
            &[("connection", "close")][..],
            &[("transfer-encoding", "chunked")],
            &[("te", "gzip")],
            &[("Upper", "x")],
            &[("bad name", "x")],
            &[("x", "line\nbreak")],
            &[(":method", "GET")],
            &[(":status", "200")],
            &[("x", "1"), (":authority", "late")],
            &[("content-length", "many")],
            &[("content-length", "-1")],
        ] {
            assert_eq!(request(more).err(), Some(Unfit::Malformed), "{more:?}");
        }
        for missing in GET {
            let rest: Vec<_> = GET.into_iter().filter(|field| *field != missing).collect();
            assert_eq!(fields(&rest).request().err(), Some(Unfit::Malformed), "without {missing:?}");
        }
        assert_eq!(fields(&GET).trailers().err(), Some(Unfit::Malformed));
        assert_eq!(fields(&[("x", "1")]).trailers().unwrap().len(), 1);
    }

    #[test]
    fn each_counts_for_more_than_its_bytes() {
        let taken: usize = GET.iter().map(|(name, value)| name.len() + value.len() + ENTRY).sum();
        let value = "v".repeat(1_000 - taken - ENTRY - 1);
        assert!(request(&[("x", &value)]).is_ok());
        assert_eq!(request(&[("xx", &value)]).err(), Some(Unfit::TooLarge));
        assert_eq!(request(&[("xx", &value), ("connection", "close")]).err(), Some(Unfit::TooLarge));
    }
}

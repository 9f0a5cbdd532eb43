//! What a caller of Reserve asks for, checked field by field, and the digest by which two wishes are compared. Pure.

use super::Refused;
use crate::digest::Digest;
use crate::placement::ModelRule;
use common::{HiveId, WorkerId};
use proto::claim::What;
use proto::{Filter, Fit, ModelMatch, ReserveRequest};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The most claims of one reservation.
pub const CLAIMS: usize = 64;
/// How long a reservation lives when the caller says nothing.
pub const TTL: Duration = Duration::from_secs(60);
/// The longest that a caller may ask for.
const TTL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest key, in characters.
pub const KEY_CHARS: usize = 128;
/// The longest holder, in characters.
pub const HOLDER_CHARS: usize = 200;
/// The longest UUID of a GPU, in bytes.
const GPU_UUID: usize = 128;

/// One thing to hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// This worker.
    Worker(HiveId, WorkerId),
    /// Any worker that fits.
    AnyWorker(WorkerClaim),
    /// Memory on one GPU.
    Vram(VramClaim),
}

/// Which workers fit.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerClaim {
    /// Which workers are looked at.
    pub filter: Filter,
    /// Its model goes by this name; empty: any.
    pub model: String,
    /// How names of models are compared.
    pub rule: ModelRule,
    /// Only idle ones.
    pub idle: bool,
    /// Only those whose last good sample is not older; `None`: as the queen is set.
    pub max_age: Option<Duration>,
}

/// Which GPUs fit.
#[derive(Debug, Clone, PartialEq)]
pub struct VramClaim {
    /// How much, in bytes.
    pub bytes: u64,
    /// How much must stay free beside it, in bytes.
    pub headroom: u64,
    /// Only of this hive.
    pub hive: Option<HiveId>,
    /// Only of hives with these labels.
    pub labels: HashMap<String, String>,
    /// Only this GPU; empty: any.
    pub gpu_uuid: String,
    /// Which of those with room comes first.
    pub fit: Fit,
}

/// A whole wish.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// All or nothing.
    pub claims: Vec<Claim>,
    /// How long it shall live.
    pub ttl: Duration,
    /// Names the wish; empty: it has no name.
    pub key: String,
    /// Who asks.
    pub holder: String,
    /// Of claims and time to live: the same in every queen, now and later. Who asks is left out: a scheduler that was
    /// started again is another process with the same wish.
    pub digest: u64,
}

impl Wish {
    /// Checks a request.
    ///
    /// # Errors
    /// [`Refused::Invalid`] with the field.
    pub fn parse(request: ReserveRequest) -> Result<Self, Refused> {
        let count = request.claims.len();
        if count == 0 || count > CLAIMS {
            return Err(Refused::invalid("claims", format!("{count} claims: one to {CLAIMS} are accepted")));
        }
        check_words("key", &request.key, KEY_CHARS)?;
        check_words("holder", &request.holder, HOLDER_CHARS)?;
        let ttl = parse_ttl(request.ttl.as_ref())?;
        let parsed = request.claims.into_iter().enumerate().map(|(at, claim)| Claim::parse(at, claim));
        let claims: Vec<Claim> = parsed.collect::<Result<_, _>>()?;
        let mut named = HashSet::new();
        for (at, claim) in claims.iter().enumerate() {
            if let Claim::Worker(hive, id) = claim
                && !named.insert((hive, id))
            {
                return Err(Refused::invalid(format!("claims[{at}].worker"), format!("{hive}/{id} is claimed twice")));
            }
        }
        let digest = digest(&claims, ttl);
        Ok(Self { claims, ttl, key: request.key, holder: request.holder, digest })
    }
}

/// How long a reservation shall live from now on.
///
/// # Errors
/// [`Refused::Invalid`] for nothing, or for more than a day.
pub fn parse_ttl(asked: Option<&prost_types::Duration>) -> Result<Duration, Refused> {
    let Some(asked) = asked else { return Ok(TTL) };
    let ttl = common::from_duration(asked).filter(|ttl| !ttl.is_zero() && *ttl <= TTL_MAX);
    ttl.ok_or_else(|| Refused::invalid("ttl", "use more than 0 s and at most 24 h"))
}

fn check_words(field: &str, text: &str, most: usize) -> Result<(), Refused> {
    if text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(Refused::invalid(field, format!("use at most {most} characters, in one line")));
    }
    Ok(())
}

impl Claim {
    fn parse(at: usize, claim: proto::Claim) -> Result<Self, Refused> {
        let field = |name: &str| format!("claims[{at}].{name}");
        match claim.what {
            None => Err(Refused::invalid(format!("claims[{at}]"), "name a worker, any_worker or vram")),
            Some(What::Worker(name)) => match WorkerId::parse(&name) {
                Ok((Some(hive), id)) => Ok(Self::Worker(hive, id)),
                Ok((None, _)) => {
                    let reason = format!("{name:?} lacks the hive: use hive/group/instance");
                    Err(Refused::invalid(field("worker"), reason))
                }
                Err(error) => Err(Refused::invalid(field("worker"), error.to_string())),
            },
            Some(What::AnyWorker(claim)) => WorkerClaim::parse(&field("any_worker"), claim).map(Self::AnyWorker),
            Some(What::Vram(claim)) => VramClaim::parse(&field("vram"), claim).map(Self::Vram),
        }
    }

    /// The only hive that can serve it, when it names one.
    pub fn hive(&self) -> Option<HiveId> {
        match self {
            Self::Worker(hive, _) => Some(hive.clone()),
            Self::AnyWorker(claim) => HiveId::parse(&claim.filter.hive).ok(),
            Self::Vram(claim) => claim.hive.clone(),
        }
    }
}

impl WorkerClaim {
    fn parse(at: &str, claim: proto::WorkerClaim) -> Result<Self, Refused> {
        let filter = claim.filter.unwrap_or_default();
        let given = |name: &str| if name.is_empty() { "any".to_owned() } else { name.to_owned() };
        let wrong =
            |field: &str, error: &dyn std::fmt::Display| Refused::invalid(format!("{at}.{field}"), error.to_string());
        HiveId::parse(&given(&filter.hive)).map_err(|error| wrong("filter.hive", &error))?;
        WorkerId::new(&given(&filter.group), "any").map_err(|error| wrong("filter.group", &error))?;
        WorkerId::new("any", &given(&filter.instance)).map_err(|error| wrong("filter.instance", &error))?;
        let rule = match ModelMatch::try_from(claim.r#match) {
            Ok(ModelMatch::Unspecified | ModelMatch::Exact) => ModelRule::Exact,
            Ok(ModelMatch::IgnoreCase) => ModelRule::IgnoreCase,
            Ok(ModelMatch::Glob) => ModelRule::Glob,
            Err(_) => return Err(wrong("match", &format!("{} is not a ModelMatch", claim.r#match))),
        };
        let max_age = match claim.max_age {
            None => None,
            Some(age) => Some(common::from_duration(&age).ok_or_else(|| wrong("max_age", &"is not a length of time"))?),
        };
        Ok(Self { filter, model: claim.model, rule, idle: claim.idle, max_age })
    }
}

impl VramClaim {
    fn parse(at: &str, claim: proto::VramClaim) -> Result<Self, Refused> {
        let filter = claim.filter.unwrap_or_default();
        if claim.bytes == 0 {
            return Err(Refused::invalid(format!("{at}.bytes"), "say how much, in bytes"));
        }
        if claim.gpu_uuid.len() > GPU_UUID {
            return Err(Refused::invalid(format!("{at}.gpu_uuid"), format!("at most {GPU_UUID} bytes are accepted")));
        }
        let fit = Fit::try_from(claim.fit)
            .map_err(|_| Refused::invalid(format!("{at}.fit"), format!("{} is not a Fit", claim.fit)))?;
        let hive = match filter.hive.as_str() {
            "" => None,
            text => Some(
                HiveId::parse(text)
                    .map_err(|error| Refused::invalid(format!("{at}.filter.hive"), error.to_string()))?,
            ),
        };
        let (bytes, headroom, gpu_uuid) = (claim.bytes, claim.headroom_bytes, claim.gpu_uuid);
        Ok(Self { bytes, headroom, hive, labels: filter.labels, gpu_uuid, fit })
    }

    /// Whether a hive is of interest at all.
    pub fn fits_hive(&self, hive: &proto::Hive) -> bool {
        self.hive.as_ref().is_none_or(|wanted| wanted.as_str() == hive.id)
            && self.labels.iter().all(|(key, value)| hive.labels.get(key) == Some(value))
    }
}

impl Digest {
    fn labels(&mut self, labels: &HashMap<String, String>) {
        let mut sorted: Vec<_> = labels.iter().collect();
        sorted.sort_unstable();
        self.number(sorted.len() as u64);
        for (key, value) in sorted {
            self.text(key);
            self.text(value);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        match claim {
            Claim::Worker(hive, id) => {
                self.number(1);
                self.text(&format!("{hive}/{id}"));
            }
            Claim::AnyWorker(claim) => {
                self.number(2);
                let filter = &claim.filter;
                for text in [&filter.hive, &filter.group, &filter.instance, &filter.model, &claim.model] {
                    self.text(text);
                }
                self.labels(&filter.labels);
                let age = claim.max_age.map_or(u64::MAX, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
                for number in [filter.state as u64, claim.rule as u64, u64::from(claim.idle), age] {
                    self.number(number);
                }
            }
            Claim::Vram(claim) => {
                self.number(3);
                self.text(claim.hive.as_ref().map_or("", HiveId::as_str));
                self.text(&claim.gpu_uuid);
                self.labels(&claim.labels);
                // Saying nothing is asking for the best fit.
                let fit = if claim.fit == Fit::Unspecified { Fit::Best } else { claim.fit };
                for number in [claim.bytes, claim.headroom, fit as u64] {
                    self.number(number);
                }
            }
        }
    }
}

fn digest(claims: &[Claim], ttl: Duration) -> u64 {
    let mut digest = Digest::new();
    digest.number(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
    claims.iter().for_each(|claim| digest.claim(claim));
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(claims: Vec<What>) -> ReserveRequest {
        let claims = claims.into_iter().map(|what| proto::Claim { what: Some(what) }).collect();
        ReserveRequest { claims, ..ReserveRequest::default() }
    }

    fn field(request: ReserveRequest) -> String {
        match Wish::parse(request) {
            Err(Refused::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let worker = |name: &str| What::Worker(name.to_owned());
        let vram = |claim| What::Vram(claim);
        let any = |claim| What::AnyWorker(claim);
        let filter = |hive: &str| Some(Filter { hive: hive.to_owned(), ..Filter::default() });
        assert_eq!(field(request(vec![])), "claims");
        assert_eq!(field(request((0..65).map(|n| worker(&format!("box/llm/{n}"))).collect())), "claims");
        assert_eq!(
            field(ReserveRequest { claims: vec![proto::Claim { what: None }], ..Default::default() }),
            "claims[0]"
        );
        assert_eq!(field(request(vec![worker("llm/1")])), "claims[0].worker");
        assert_eq!(field(request(vec![worker("box/llm/1"), worker("box/llm/1")])), "claims[1].worker");
        assert_eq!(field(request(vec![vram(proto::VramClaim::default())])), "claims[0].vram.bytes");
        let bad = proto::VramClaim { bytes: 1, fit: 9, ..Default::default() };
        assert_eq!(field(request(vec![vram(bad)])), "claims[0].vram.fit");
        let bad = proto::VramClaim { bytes: 1, filter: filter("No"), ..Default::default() };
        assert_eq!(field(request(vec![vram(bad)])), "claims[0].vram.filter.hive");
        let bad = proto::WorkerClaim { filter: filter("No"), ..Default::default() };
        assert_eq!(field(request(vec![any(bad)])), "claims[0].any_worker.filter.hive");
        let bad = proto::WorkerClaim { r#match: 9, ..Default::default() };
        assert_eq!(field(request(vec![any(bad)])), "claims[0].any_worker.match");
        let good = || request(vec![worker("box/llm/1")]);
        assert_eq!(field(ReserveRequest { key: "k".repeat(129), ..good() }), "key");
        assert_eq!(field(ReserveRequest { holder: "h".repeat(201), ..good() }), "holder");
        assert_eq!(field(ReserveRequest { holder: "h\nx".into(), ..good() }), "holder");
        for (seconds, nanos) in [(0, 0), (-1, 0), (86_401, 0)] {
            assert_eq!(field(ReserveRequest { ttl: Some(prost_types::Duration { seconds, nanos }), ..good() }), "ttl");
        }
        assert!(Wish::parse(ReserveRequest { key: "ä".repeat(128), ..good() }).is_ok(), "characters, not bytes");
    }

    #[test]
    fn a_digest_tells_wishes_apart_and_stays_what_it_is() {
        let digest = |request: ReserveRequest| Wish::parse(request).unwrap().digest;
        let labels: HashMap<String, String> = ["a", "b", "c", "d"].map(|k| (k.to_owned(), k.to_owned())).into();
        let any = |labels: HashMap<String, String>| {
            let filter = Some(Filter { labels, ..Filter::default() });
            request(vec![What::AnyWorker(proto::WorkerClaim { filter, ..Default::default() })])
        };
        for _ in 0..20 {
            let shuffled: HashMap<String, String> = labels.clone().into_iter().collect();
            assert_eq!(digest(any(shuffled)), digest(any(labels.clone())), "the order of a map says nothing");
        }
        let worker = request(vec![What::Worker("box/llm/1".into())]);
        assert_eq!(digest(ReserveRequest { holder: "other".into(), ..worker.clone() }), digest(worker.clone()));
        let ttl = Some(prost_types::Duration { seconds: 61, nanos: 0 });
        assert_ne!(digest(ReserveRequest { ttl, ..worker.clone() }), digest(worker.clone()));
        let vram = |bytes, fit: Fit| {
            request(vec![What::Vram(proto::VramClaim { bytes, fit: fit.into(), ..Default::default() })])
        };
        assert_eq!(digest(vram(1, Fit::Unspecified)), digest(vram(1, Fit::Best)));
        assert_ne!(digest(vram(1, Fit::First)), digest(vram(1, Fit::Best)));
        assert_ne!(digest(vram(1, Fit::Best)), digest(vram(2, Fit::Best)));
        // Queens of other versions must come to the same number.
        assert_eq!(digest(worker), 8_348_890_556_353_768_388);
    }
}

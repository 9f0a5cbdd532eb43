//! Requests for grants, checked field by field before anything is decided.

use super::refusal::Refusal;
use common::WorkerId;
use std::time::Duration;

/// The ledger keeps at most so many holds, all of which are in each record that the hive sends of itself; and as many keys.
pub const HOLDS_MAX: usize = 512;
/// One request may have at most so many wishes.
pub const WISHES_MAX: usize = 64;
/// The longest time from now to the end of a hold.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest name of a reservation, in bytes.
const RESERVATION_MAX: usize = 64;
/// The longest key, in characters.
const KEY_MAX: usize = 128;
/// The longest name of who asks, in characters.
const HOLDER_MAX: usize = 200;
/// The longest name of a GPU, in bytes.
const GPU_MAX: usize = 256;

/// A valid wish for grants, all or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whose they will be.
    pub reservation: String,
    /// What is wished for, the first as part 0.
    pub wishes: Vec<Wish>,
    /// From now to their end.
    pub ttl: Duration,
    /// Who asks.
    pub holder: String,
    /// Tells one asking from the next; empty without one.
    pub key: String,
    /// Digest of what was asked for.
    pub wish: u64,
    /// How many grants the reservation is to have, on all hives together; 0 when nobody said.
    pub size: u32,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A worker.
    Worker(WorkerId),
    /// Memory of a GPU.
    Vram {
        /// How much.
        bytes: u64,
        /// Of which; empty: of the one that has room and least to spare.
        gpu: String,
        /// What must stay free beside it.
        headroom: u64,
    },
    /// Nothing but that the key is in use.
    Key,
}

impl Ask {
    /// Checks a request.
    pub fn new(request: proto::HoldRequest) -> Result<Self, Refusal> {
        let ttl = ttl(request.ttl.as_ref())?;
        let reservation = reservation(&request.reservation)?.to_owned();
        words("key", &request.key, KEY_MAX)?;
        words("holder", &request.holder, HOLDER_MAX)?;
        let count = request.wishes.len();
        if count == 0 {
            return Err(field("wishes", "name at least one worker or an amount of GPU memory"));
        }
        if count > WISHES_MAX {
            return Err(Refusal::TooManyWishes(count));
        }
        let wishes: Vec<Wish> = request.wishes.into_iter().map(wish).collect::<Result<_, _>>()?;
        if wishes.contains(&Wish::Key) && (wishes.len() > 1 || request.key.is_empty()) {
            return Err(field("wishes", "to hold a key, name it, and wish for nothing else"));
        }
        let (wish, size) = (request.wish, request.reservation_size);
        Ok(Self { reservation, wishes, ttl, holder: request.holder, key: request.key, wish, size })
    }

    /// Whether it asks for nothing but that its key is in use.
    pub fn is_key(&self) -> bool {
        self.wishes == [Wish::Key]
    }

    /// Whether it asks for memory of a GPU.
    pub fn needs_gpu(&self) -> bool {
        self.wishes.iter().any(|wish| matches!(wish, Wish::Vram { .. }))
    }
}

/// The name of a reservation, which is one word.
pub fn reservation(name: &str) -> Result<&str, Refusal> {
    let fits = !name.is_empty() && name.len() <= RESERVATION_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        return Ok(name);
    }
    Err(field("reservation", format!("use 1 to {RESERVATION_MAX} letters, digits and signs, without a blank")))
}

/// A time from now on that is more than none.
pub fn ttl(given: Option<&prost_types::Duration>) -> Result<Duration, Refusal> {
    let length = given.and_then(common::from_duration).filter(|length| !length.is_zero() && *length <= TTL_MAX);
    length.ok_or_else(|| field("ttl", "use a time of more than 0 s, and of at most 24 h"))
}

fn wish(wish: proto::HoldWish) -> Result<Wish, Refusal> {
    use proto::hold_wish::What;
    match wish.what {
        Some(What::Worker(name)) => match WorkerId::parse(&name) {
            Ok((None, id)) => Ok(Wish::Worker(id)),
            Ok((Some(_), _)) => Err(field("worker", format!("{name}: name it group/instance, without its hive"))),
            Err(error) => Err(field("worker", error.to_string())),
        },
        Some(What::Vram(proto::VramWish { bytes: 0, .. })) => Err(field("vram", "ask for at least one byte")),
        Some(What::Vram(vram)) if vram.gpu_uuid.len() > GPU_MAX => {
            Err(field("gpu_uuid", format!("a GPU's UUID has at most {GPU_MAX} bytes")))
        }
        Some(What::Vram(vram)) => {
            Ok(Wish::Vram { bytes: vram.bytes, gpu: vram.gpu_uuid, headroom: vram.headroom_bytes })
        }
        Some(What::Key(_)) => Ok(Wish::Key),
        None => Err(field("wishes", "each one names a worker or an amount of GPU memory")),
    }
}

fn words(name: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.chars().count() > max || text.chars().any(char::is_control) {
        return Err(field(name, format!("use at most {max} characters, in one line")));
    }
    Ok(())
}

fn field(field: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::Field { field, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::hold_wish::What;

    fn request(what: Option<What>) -> proto::HoldRequest {
        proto::HoldRequest {
            reservation: "r1".to_owned(),
            wishes: vec![proto::HoldWish { what }],
            ttl: Some(common::duration(Duration::from_secs(5))),
            ..Default::default()
        }
    }

    fn vram(bytes: u64) -> Option<What> {
        Some(What::Vram(proto::VramWish { bytes, ..Default::default() }))
    }

    fn refused(request: proto::HoldRequest) -> String {
        Ask::new(request).unwrap_err().to_string()
    }

    #[test]
    fn a_wish_is_for_a_worker_or_for_memory() {
        let ask = Ask::new(request(Some(What::Worker("llm/1".to_owned())))).unwrap();
        assert_eq!(ask.wishes, [Wish::Worker(WorkerId::new("llm", "1").unwrap())]);
        assert!(!ask.needs_gpu());
        assert!(Ask::new(request(vram(1))).unwrap().needs_gpu());
        for bad in [None, vram(0), Some(What::Worker("1".to_owned())), Some(What::Worker("box/llm/1".to_owned()))] {
            assert!(Ask::new(request(bad.clone())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_bound_is_told_with_what_is_accepted() {
        let good = request(vram(1));
        let long = |count| "x".repeat(count);
        let ttl = |length| Some(common::duration(length));
        for (bad, wanted) in [
            (proto::HoldRequest { ttl: None, ..good.clone() }, "at most 24 h"),
            (proto::HoldRequest { ttl: ttl(Duration::ZERO), ..good.clone() }, "more than 0 s"),
            (proto::HoldRequest { ttl: ttl(TTL_MAX + Duration::from_nanos(1)), ..good.clone() }, "at most 24 h"),
            (proto::HoldRequest { reservation: String::new(), ..good.clone() }, "reservation: use 1 to 64"),
            (proto::HoldRequest { reservation: long(RESERVATION_MAX + 1), ..good.clone() }, "reservation: use 1 to 64"),
            (proto::HoldRequest { reservation: "a b".to_owned(), ..good.clone() }, "without a blank"),
            (request(Some(What::Key(proto::KeyWish {}))), "to hold a key, name it"),
            (proto::HoldRequest { key: long(KEY_MAX + 1), ..good.clone() }, "key: use at most 128"),
            (proto::HoldRequest { holder: long(HOLDER_MAX + 1), ..good.clone() }, "holder: use at most 200"),
            (proto::HoldRequest { holder: "a\nb".to_owned(), ..good.clone() }, "in one line"),
            (proto::HoldRequest { wishes: Vec::new(), ..good.clone() }, "at least one"),
            (
                proto::HoldRequest { wishes: vec![good.wishes[0].clone(); WISHES_MAX + 1], ..good.clone() },
                "than the 64",
            ),
        ] {
            let told = refused(bad);
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        let most = proto::HoldRequest {
            ttl: ttl(TTL_MAX),
            reservation: long(RESERVATION_MAX),
            key: "é".repeat(KEY_MAX),
            holder: long(HOLDER_MAX),
            wishes: vec![good.wishes[0].clone(); WISHES_MAX],
            ..good
        };
        assert!(Ask::new(most).is_ok());
    }
}

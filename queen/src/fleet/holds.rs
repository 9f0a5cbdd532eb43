//! Checks the holds in a hive's record. One that nothing can be made of is left out and counted: what is then taken for
//! free is refused by the hive itself. Pure.

use common::WorkerId;
use proto::Hold;

/// The most holds that are kept of one hive; those with the highest fencing tokens, the last, are left out first.
const HOLDS: usize = 512;
/// The most aborted reservations that are kept of one hive.
const ABORTED: usize = 64;
/// The longest id of a reservation, in bytes: the queens' own have 17.
const ID: usize = 64;
/// The longest UUID of a GPU, in bytes.
const GPU_UUID: usize = 128;
/// The longest key, in bytes: 128 characters.
const KEY: usize = 128 * 4;
/// The longest holder, in bytes: 200 characters.
const HOLDER: usize = 200 * 4;

/// The holds that may be kept, and how many are not.
pub fn check(mut holds: Vec<Hold>) -> (Vec<Hold>, u64) {
    let before = holds.len();
    holds.retain(is_whole);
    holds.truncate(HOLDS);
    let left_out = (before - holds.len()) as u64;
    let untimely = |hold: &mut Hold| {
        let never = hold.expire_time.take_if(|at| common::from_timestamp(at).is_none());
        u64::from(never.is_some())
    };
    let dates: u64 = holds.iter_mut().map(untimely).sum();
    (holds, left_out + dates)
}

/// Leaves out what cannot be the id of a reservation, and the oldest beyond the bound; answers how many.
pub fn check_aborted(ids: &mut Vec<String>) -> u64 {
    let before = ids.len();
    ids.retain(|id| is_reservation_id(id));
    ids.drain(..ids.len().saturating_sub(ABORTED));
    (before - ids.len()) as u64
}

fn is_whole(hold: &Hold) -> bool {
    let worker = |name: &str| matches!(WorkerId::parse(name), Ok((None, _)));
    let what = match (hold.worker.as_str(), hold.gpu_uuid.as_str()) {
        (name, "") => worker(name),
        ("", uuid) => uuid.len() <= GPU_UUID,
        _ => false,
    };
    what && is_reservation_id(&hold.reservation)
        && (hold.used_by.is_empty() || worker(&hold.used_by))
        && hold.key.len() <= KEY
        && hold.holder.len() <= HOLDER
}

/// Whether a text can be the id of a reservation.
pub fn is_reservation_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= ID && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b5_holds_that_nothing_can_be_made_of_are_left_out_and_counted() {
        let worker = || Hold { reservation: "r1".into(), worker: "llm/1".into(), ..Hold::default() };
        let gpu = || Hold { reservation: "r1".into(), gpu_uuid: "GPU-1".into(), ..Hold::default() };
        let bad = vec![
            Hold { reservation: String::new(), ..worker() },
            Hold { reservation: "r".repeat(65), ..worker() },
            Hold { reservation: "r 1".into(), ..worker() },
            Hold { worker: "den/llm/1".into(), ..worker() },
            Hold { worker: "../1".into(), ..worker() },
            Hold { worker: String::new(), ..worker() },
            Hold { gpu_uuid: "GPU-1".into(), ..worker() },
            Hold { gpu_uuid: "x".repeat(129), ..gpu() },
            Hold { used_by: "x".into(), ..gpu() },
            Hold { key: "k".repeat(513), ..gpu() },
            Hold { holder: "h".repeat(801), ..gpu() },
        ];
        let count = bad.len() as u64;
        let whole = vec![worker(), Hold { used_by: "llm/2".into(), ..gpu() }];
        assert_eq!(check([bad, whole.clone()].concat()), (whole, count));
        let never = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(check(vec![Hold { expire_time: never, ..worker() }]), (vec![worker()], 1));
        assert_eq!(check(vec![worker(); HOLDS + 3]).1, 3);
    }

    #[test]
    fn b5_aborted_reservations_are_bounded_and_have_ids() {
        let mut ids = vec!["r 1".to_owned(), String::new(), "r1".to_owned(), "r2".to_owned()];
        assert_eq!((check_aborted(&mut ids), ids), (2, vec!["r1".to_owned(), "r2".to_owned()]));
        let mut many: Vec<String> = (0..70).map(|at| format!("r{at}")).collect();
        assert_eq!((check_aborted(&mut many), many[0].as_str()), (6, "r6"), "the newest are kept");
    }
}

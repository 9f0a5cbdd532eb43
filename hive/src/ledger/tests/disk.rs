//! What is on disk outlives the hive, and nothing is answered that is not there.

use super::*;
use std::fs;

fn hold(keeper: &Keeper, reservation: &str) -> Result<u64, Refusal> {
    let held = keeper.hold(&ask(reservation, &[vram(G)]), || scene(&[("a", 24 * G, 0)], &[]));
    Ok(held?[0].token)
}

#[test]
fn g3_tokens_go_on_over_restarts_and_reboots_and_grants_die_at_a_reboot() {
    let mut place = Place::new();
    let keeper = place.open();
    assert_eq!((hold(&keeper, "r1").unwrap(), hold(&keeper, "r2").unwrap()), (1, 2));
    drop(keeper);
    let keeper = place.open();
    assert_eq!((granted(&keeper).len(), hold(&keeper, "r3").unwrap()), (2, 3));
    drop(keeper);
    place.reboot();
    let keeper = place.open();
    assert_eq!((granted(&keeper).len(), hold(&keeper, "r4").unwrap()), (0, 4));
    drop(keeper);
    place.reboot();
    assert_eq!(hold(&place.open(), "r5").unwrap(), 5);
}

#[test]
fn g3_a_torn_line_was_never_answered_and_no_token_comes_twice() {
    let place = Place::new();
    let keeper = place.open();
    hold(&keeper, "r1").unwrap();
    let whole = fs::read(place.file()).unwrap().len();
    hold(&keeper, "r2").unwrap();
    drop(keeper);
    let all = fs::read(place.file()).unwrap();
    for length in [whole, whole + 1, whole + 20, all.len() - 1] {
        fs::write(place.file(), &all[..length]).unwrap();
        let keeper = place.open();
        assert_eq!(granted(&keeper).len(), 1, "{length}");
        let next = hold(&keeper, "r3").unwrap();
        assert!(if length == whole { next == 2 } else { next > 60_000 }, "{length}: {next}");
    }
    // A damaged line in the middle hides those behind it, whose tokens were answered.
    let mut damaged = all.clone();
    damaged[whole - 5] ^= 1;
    fs::write(place.file(), damaged).unwrap();
    assert!(hold(&place.open(), "r3").unwrap() > 2);
}

#[test]
fn g3_without_a_head_nothing_is_granted_and_nothing_is_written_over() {
    let place = Place::new();
    fs::write(place.file(), "0123456789abcdef {}\n").unwrap();
    let keeper = place.open();
    let refused = hold(&keeper, "r").unwrap_err();
    assert!(
        matches!(refused, Refusal::Unreadable(_)) && refused.to_string().contains("move that file away"),
        "{refused}"
    );
    assert_eq!(fs::read_to_string(place.file()).unwrap(), "0123456789abcdef {}\n");
    assert!(keeper.promise(|_| Ok::<_, Refusal>(())).is_ok(), "starts need no token");
}

#[test]
fn q6_a_full_disk_grants_nothing_and_forgets_nothing() {
    let place = Place::new();
    let keeper = place.open();
    hold(&keeper, "r1").unwrap();
    hold(&keeper, "r2").unwrap();
    // The file is replaced by one that takes nothing, and so is the draft of the next.
    keeper.settled().disk.fill();
    fs::create_dir(place.state.path().join("ledger.new")).unwrap();
    assert!(matches!(hold(&keeper, "r3"), Err(Refusal::Disk { .. })));
    assert!(matches!(keeper.renew("r1", TTL, true), Err(Refusal::Disk { .. })));
    assert_eq!((granted(&keeper).len(), keeper.release("r1", false)), (2, 1), "what ends, ends");
    assert_eq!(granted(&keeper).len(), 1);
    let promised = keeper.promise(|_| Ok::<_, Refusal>(()));
    assert!(matches!(promised, Err(Refusal::Disk { .. })), "the disk still has the hold, whose room it would be");
    fs::remove_dir(place.state.path().join("ledger.new")).unwrap();
    assert_eq!(keeper.promise(|grants| Ok::<_, Refusal>(grants.len())).unwrap(), 1);
    assert_eq!(hold(&keeper, "r3").unwrap(), 3);
    drop(keeper);
    let names: Vec<String> = granted(&place.open()).into_iter().map(|grant| grant.reservation).collect();
    assert_eq!(names, ["r2", "r3"]);
}

#[test]
fn the_file_stays_small() {
    let place = Place::new();
    let keeper = place.open();
    let mut largest = 0;
    for _ in 0..3000 {
        hold(&keeper, "r").unwrap();
        keeper.release("r", false);
        largest = largest.max(fs::metadata(place.file()).unwrap().len());
    }
    assert!(largest < 400 * 1024, "{largest}");
    drop(keeper);
    let keeper = place.open();
    assert!(fs::metadata(place.file()).unwrap().len() < 200);
    assert_eq!(hold(&keeper, "r").unwrap(), 3001);
}

//! Life events, numbered, kept over restarts of the hive. Bounded: the oldest go first, and a reader who missed
//! some is told so by an explicit GAP. Readers resume by journal id and number.

use super::mend::is_full;
use common::{HiveId, WorkerId, timestamp};
use prost::Message;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;
use tracing::{info, warn};

/// As many events are kept; the file may hold twice as many before it is written anew.
pub const EVENTS_MAX: usize = 4096;
/// At most this many are handed out at once; ask again from the last one.
pub const PAGE: usize = 256;
/// Longer messages are cut, in characters.
const MESSAGE_MAX: usize = 1000;

/// The life events of this hive's workers.
#[derive(Debug)]
pub struct Journal {
    hive: HiveId,
    id: String,
    boot_id: String,
    path: PathBuf,
    last: watch::Sender<u64>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<proto::LifeEvent>,
    file: Option<File>,
    in_file: usize,
}

/// What happened, before it has a number.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The kind.
    pub kind: proto::LifeEventKind,
    /// The worker's first process; zero when it never had one.
    pub pid: i32,
    /// One sentence.
    pub message: String,
    /// How it ended, when it did.
    pub exit: Option<proto::ExitCause>,
    /// The GPU that it is about, by UUID; empty when it is about none.
    pub gpu_uuid: String,
}

impl Journal {
    /// Opens or begins the journal in the state directory. It goes on under its old id only if its file is whole
    /// and from this boot: numbers that a crash of the machine may have lost are never given out twice. On a full disk it
    /// goes on in memory, until an event finds room again.
    pub fn open(state_dir: &Path, hive: &HiveId, boot_id: &str) -> io::Result<Self> {
        let path = state_dir.join("journal");
        let name = state_dir.join("journal.id");
        let (events, whole) = match fs::read(&path) {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (VecDeque::new(), false),
            Err(error) => return Err(error),
        };
        let stored = fs::read_to_string(&name).unwrap_or_default();
        let known = match stored.split_whitespace().collect::<Vec<_>>().as_slice() {
            [id, boot] if whole && *boot == boot_id => Some((*id).to_owned()),
            _ => None,
        };
        let is_known = known.is_some();
        let id = known.unwrap_or_else(fresh_id);
        let last = watch::Sender::new(events.back().map_or(0, |event| event.number));
        let journal = Self { hive: hive.clone(), id, boot_id: boot_id.to_owned(), path, last, kept: Mutex::default() };
        let mut kept = journal.kept();
        kept.events = events;
        let named = if is_known { Ok(()) } else { journal.write_id() };
        if let Err(error) = named.and_then(|()| journal.rewrite(&mut kept)) {
            if !is_full(&error) {
                return Err(error);
            }
            journal.only_in_memory(&mut kept, &error);
        }
        drop(kept);
        Ok(journal)
    }

    /// Names this journal: numbers mean something only together with it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The last number that was given out; zero before the first.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Tells of each new last number.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Where a reader goes on who holds `after` of journal `id`: at the beginning, if that was another journal.
    pub fn resume(&self, id: &str, after: u64) -> u64 {
        if id == self.id && after <= self.last() { after } else { 0 }
    }

    /// The next events after a number, at most [`PAGE`]. Where some were dropped, a GAP stands in their place.
    pub fn after(&self, number: u64) -> Vec<proto::LifeEvent> {
        let kept = self.kept();
        let Some(first) = kept.events.front().map(|event| event.number) else { return Vec::new() };
        let mut page = Vec::new();
        if first > number + 1 {
            page.push(proto::LifeEvent {
                number: first - 1,
                time: kept.events.front().and_then(|event| event.time),
                hive: self.hive.to_string(),
                kind: proto::LifeEventKind::Gap.into(),
                message: format!("events {} to {} are no longer kept", number + 1, first - 1),
                ..proto::LifeEvent::default()
            });
        }
        let start = kept.events.partition_point(|event| event.number <= number);
        page.extend(kept.events.range(start..).take(PAGE - page.len()).cloned());
        page
    }

    /// Writes an event down and wakes its readers. A disk that refuses it is warned of once; the event is kept in
    /// memory.
    pub fn add(&self, id: &WorkerId, news: News) -> u64 {
        self.write(id.group(), id.instance(), news)
    }

    /// The same for what concerns the machine and none of its workers.
    pub fn add_machine(&self, news: News) -> u64 {
        self.write("", "", news)
    }

    fn write(&self, group: &str, instance: &str, news: News) -> u64 {
        let mut kept = self.kept();
        let number = self.last() + 1;
        let event = proto::LifeEvent {
            number,
            time: Some(timestamp(SystemTime::now())),
            hive: self.hive.to_string(),
            group: group.to_owned(),
            instance: instance.to_owned(),
            pid: u32::try_from(news.pid).unwrap_or_default(),
            kind: news.kind.into(),
            message: news.message.chars().take(MESSAGE_MAX).collect(),
            exit: news.exit,
            gpu_uuid: news.gpu_uuid,
        };
        let bytes = event.encode_length_delimited_to_vec();
        kept.events.push_back(event);
        while kept.events.len() > EVENTS_MAX {
            kept.events.pop_front();
        }
        kept.in_file += 1;
        let full = kept.in_file > 2 * EVENTS_MAX;
        let had_file = kept.file.is_some();
        let written = match &mut kept.file {
            Some(file) if !full => file.write_all(&bytes),
            // Without a file: the disk may take it again.
            _ => self.rewrite(&mut kept),
        };
        match written {
            Err(error) if had_file => self.only_in_memory(&mut kept, &error),
            Ok(()) if !had_file => self.back_on_disk(&mut kept),
            _ => {}
        }
        // Still under the lock: the next writer counts on from it.
        self.last.send_replace(number);
        number
    }

    fn only_in_memory(&self, kept: &mut Kept, error: &io::Error) {
        warn!(path = %self.path.display(), %error, "journal goes on in memory only");
        kept.file = None;
        // Its numbers must not be given out again by the next hive, which will not know them.
        let _ = fs::remove_file(self.path.with_extension("id"));
    }

    fn write_id(&self) -> io::Result<()> {
        fs::write(self.path.with_extension("id"), format!("{} {}\n", self.id, self.boot_id))
    }

    fn back_on_disk(&self, kept: &mut Kept) {
        match self.write_id() {
            Ok(()) => info!(path = %self.path.display(), "journal is on disk again"),
            Err(_) => kept.file = None,
        }
    }

    fn rewrite(&self, kept: &mut Kept) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut bytes = Vec::new();
        for event in &kept.events {
            bytes.extend(event.encode_length_delimited_to_vec());
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let written = file.write_all(&bytes).and_then(|()| fs::rename(&draft, &self.path));
        written.inspect_err(|_| drop(fs::remove_file(&draft)))?;
        kept.in_file = kept.events.len();
        kept.file = Some(file);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of a file, and whether it was whole: readable to its end, with rising numbers.
pub fn decode(mut bytes: &[u8]) -> (VecDeque<proto::LifeEvent>, bool) {
    let mut events: VecDeque<proto::LifeEvent> = VecDeque::new();
    while !bytes.is_empty() {
        let Ok(event) = proto::LifeEvent::decode_length_delimited(&mut bytes) else { return (events, false) };
        if events.back().is_some_and(|before| event.number <= before.number) {
            return (events, false);
        }
        events.push_back(event);
        if events.len() > EVENTS_MAX {
            events.pop_front();
        }
    }
    (events, true)
}

/// A name that no other journal has.
fn fresh_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| format!("{}-{}", timestamp(SystemTime::now()).seconds, std::process::id()),
        |text| text.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(state: &Path, boot: &str) -> Journal {
        Journal::open(state, &HiveId::parse("box").unwrap(), boot).unwrap()
    }

    fn add(journal: &Journal, message: &str) {
        let id = WorkerId::new("llm", "1").unwrap();
        journal.add(&id, News { message: message.to_owned(), ..News::default() });
    }

    fn numbers(events: &[proto::LifeEvent]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn t5_events_keep_their_numbers_over_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let first = open(state.path(), "boot");
        add(&first, "a");
        add(&first, "b");
        let id = first.id().to_owned();
        drop(first);
        let second = open(state.path(), "boot");
        add(&second, "c");
        assert_eq!(second.id(), id);
        assert_eq!(numbers(&second.after(0)), [1, 2, 3]);
        assert_eq!(second.after(2)[0].message, "c");
        assert_eq!((second.resume(&id, 2), second.resume("other", 2), second.resume(&id, 9)), (2, 0, 0));
    }

    #[test]
    fn t5_a_torn_file_or_another_boot_begins_another_journal() {
        let state = tempfile::tempdir().unwrap();
        let first = open(state.path(), "boot");
        add(&first, "a");
        add(&first, "b");
        let path = state.path().join("journal");
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        let torn = open(state.path(), "boot");
        assert_ne!(torn.id(), first.id());
        assert_eq!(numbers(&torn.after(0)), [1]);
        assert_ne!(open(state.path(), "another boot").id(), torn.id());
    }

    #[test]
    fn t5_numbers_that_a_full_disk_did_not_take_are_not_given_out_again() {
        let state = tempfile::tempdir().unwrap();
        let name = || fs::read_to_string(state.path().join("journal.id"));
        let first = open(state.path(), "boot");
        add(&first, "a");
        first.kept().file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        add(&first, "b");
        assert!(name().is_err());
        add(&first, "c");
        assert!(name().unwrap().starts_with(first.id()), "the disk took it again");
        let second = open(state.path(), "boot");
        assert_eq!((second.id(), numbers(&second.after(0))), (first.id(), vec![1, 2, 3]));
    }

    #[test]
    fn q6_on_a_full_disk_a_journal_goes_on_in_memory_until_there_is_room() {
        let state = tempfile::tempdir().unwrap();
        let name = || fs::read_to_string(state.path().join("journal.id"));
        let first = open(state.path(), "boot");
        add(&first, "a");
        drop(first);
        // For an old name, and for a new one.
        for boot in ["boot", "another boot"] {
            std::os::unix::fs::symlink("/dev/full", state.path().join("journal.new")).unwrap();
            let second = open(state.path(), boot);
            assert!(name().is_err() && second.kept().file.is_none(), "no number of it is given out again");
            assert_eq!(second.after(0)[0].message, "a");
            assert!(!state.path().join("journal.new").exists());
            add(&second, "b");
            assert!(name().unwrap().starts_with(second.id()), "the disk took it again");
            assert_eq!(numbers(&open(state.path(), boot).after(0)), numbers(&second.after(0)));
        }
    }

    #[test]
    fn t5_an_overflow_is_an_explicit_gap() {
        let state = tempfile::tempdir().unwrap();
        let journal = open(state.path(), "boot");
        for _ in 0..2 * EVENTS_MAX + 10 {
            add(&journal, "x");
        }
        let page = journal.after(5);
        assert_eq!((page[0].kind(), page.len()), (proto::LifeEventKind::Gap, PAGE));
        assert_eq!(page[1].number, page[0].number + 1);
        assert_eq!(page[0].number, u64::try_from(EVENTS_MAX + 10).unwrap());
        assert_eq!(journal.last(), u64::try_from(2 * EVENTS_MAX + 10).unwrap());
        let again = open(state.path(), "boot");
        assert_eq!((again.id(), again.last()), (journal.id(), journal.last()));
    }
}

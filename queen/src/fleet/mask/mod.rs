//! Field masks: which fields of an `Update` a watcher is told. Compiled once, then applied to encoded objects: what is
//! masked is never decoded.

mod cut;
mod schema;

use super::object::{BEATS, HIVES, WORKERS};
use bytes::Bytes;
use common::columns::{FIELD_NUMBERS, FIELDS};
use std::collections::BTreeMap;

/// Paths longer than this, in bytes, are not compared with the known ones.
const PATH_BYTES: usize = 128;

/// `Worker.spec`, and what of it always comes: hive, group and instance.
const SPEC: u32 = 1;
const NAMES: [u32; 3] = [1, 2, 3];
/// `Worker.slot`, which always comes too, and `Worker.stats`.
const SLOT: u32 = 7;
const STATS: u32 = 2;
/// `ProcessStats.gpus`.
const GPUS: u32 = 10;
/// `Hive.id` and `HiveBeat.hive`.
const ID: u32 = 1;

/// What is kept of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Whole,
    /// These fields, by number.
    Fields(BTreeMap<u32, Kept>),
}

impl Kept {
    fn fields(numbers: &[u32]) -> Self {
        Self::Fields(numbers.iter().map(|number| (*number, Self::Whole)).collect())
    }

    fn add(&mut self, path: &[u32]) {
        let Self::Fields(fields) = self else { return };
        match path {
            [] => *self = Self::Whole,
            [first, rest @ ..] => fields.entry(*first).or_insert_with(|| Self::fields(&[])).add(rest),
        }
    }
}

/// A compiled mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    workers: Kept,
    hives: Kept,
    /// Whether each hive was heard from is told to those who ask for it.
    beats: Option<Kept>,
}

/// Which numbers of workers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Those fields, as bits.
    pub fields: u32,
    /// Per-GPU rows.
    pub gpus: bool,
}

impl Numbers {
    /// All.
    pub const ALL: Self = Self { fields: (1 << FIELDS) - 1, gpus: true };
}

/// Why a path is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// There is no such field.
    #[error("{path:?} is no field of Update; did you mean {nearest:?}?")]
    Unknown {
        /// As it was given.
        path: String,
        /// The known path that looks most like it.
        nearest: String,
    },
    /// It is longer than any path.
    #[error("a path of {0} bytes is no field of Update; \"workers.spec.model\" is one")]
    Long(usize),
}

impl Mask {
    /// Compiles paths such as `workers.spec.model`. No path at all asks for everything: `None`.
    pub fn compile(paths: &[String]) -> Result<Option<Self>, MaskError> {
        if paths.is_empty() {
            return Ok(None);
        }
        let spec = BTreeMap::from([(SPEC, Kept::fields(&NAMES)), (SLOT, Kept::Whole)]);
        let mut mask = Self { workers: Kept::Fields(spec), hives: Kept::fields(&[ID]), beats: None };
        for path in paths {
            match *numbers(path)?.as_slice() {
                [WORKERS, ref rest @ ..] => mask.workers.add(rest),
                [HIVES, ref rest @ ..] => mask.hives.add(rest),
                [BEATS, ref rest @ ..] => mask.beats.get_or_insert_with(|| Kept::fields(&[ID])).add(rest),
                // Revision, removals and the count of merged states always come.
                _ => {}
            }
        }
        Ok(Some(mask))
    }

    /// Whether beats are told.
    pub fn has_beats(&self) -> bool {
        self.beats.is_some()
    }

    /// Which numbers of workers are told; `None` where none is, or only a part of one.
    pub fn numbers(&self) -> Option<Numbers> {
        let Kept::Fields(worker) = &self.workers else { return Some(Numbers::ALL) };
        let stats = match worker.get(&STATS)? {
            Kept::Whole => return Some(Numbers::ALL),
            Kept::Fields(stats) => stats,
        };
        let whole = |number: &u32| match stats.get(number) {
            None => Some(false),
            Some(Kept::Whole) => Some(true),
            Some(Kept::Fields(_)) => None,
        };
        let kept = FIELD_NUMBERS.iter().enumerate();
        let fields = kept.map(|(field, number)| Some(u32::from(whole(number)?) << field));
        Some(Numbers { fields: fields.sum::<Option<u32>>()?, gpus: whole(&GPUS)? })
    }

    /// What is told of an object that stands as a field of `Update`. Removals are told as they are.
    pub fn cut(&self, part: &Bytes) -> Bytes {
        cut::part(part, |field| match field {
            WORKERS => Some(&self.workers),
            HIVES => Some(&self.hives),
            BEATS => self.beats.as_ref(),
            _ => None,
        })
    }
}

/// The numbers of the fields on the way to the one that is named.
fn numbers(path: &str) -> Result<Vec<u32>, MaskError> {
    let mut message = Some(schema::ROOT);
    let mut numbers = Vec::new();
    for name in path.split('.') {
        let field = message.and_then(|message| schema::schema().field(message, name)).ok_or_else(|| unknown(path))?;
        numbers.push(field.number);
        message = field.message.as_deref();
    }
    Ok(numbers)
}

fn unknown(path: &str) -> MaskError {
    if path.len() > PATH_BYTES {
        return MaskError::Long(path.len());
    }
    // Whoever wrote the beginning of a name meant that name.
    let near = |known: &String| (!known.starts_with(path), strsim::damerau_levenshtein(path, known));
    let nearest = schema::schema().paths().into_iter().min_by_key(near).unwrap_or_default();
    MaskError::Unknown { path: path.to_owned(), nearest }
}

#[cfg(test)]
mod tests;

//! `Explain`: of every candidate of a find, whether it would be found, and everything that speaks against it. Judged as
//! the finds judge.

use super::{CapacityQuery, PAGE_BYTES, Query, capacity, judge};
use crate::fleet::{Fleet, Moment, Seen, SeenHive};
use common::{HiveId, WorkerId};
use prost::Message;
use proto::Verdict;
use std::fmt;
use std::ops::Bound;
use std::time::Instant;

/// So many hives are named at a time.
const HIVES_AT_ONCE: usize = 64;

/// A find. Its limit, order and pages do not count.
#[derive(Debug, Clone)]
pub enum Question {
    /// One of the finds of workers.
    Workers(Query),
    /// The find of GPUs.
    Gpus(CapacityQuery),
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerdictCursor {
    /// At a worker.
    Worker(HiveId, WorkerId),
    /// At a GPU, by UUID and position.
    Gpu(HiveId, String, usize),
}

/// An answer, or a part of one.
#[derive(Debug, Default)]
pub struct ExplainedPage {
    /// In the order of their names.
    pub verdicts: Vec<Verdict>,
    /// Where to go on, when there are more.
    pub next: Option<VerdictCursor>,
}

impl VerdictCursor {
    /// Reads what [`VerdictCursor`]'s `Display` wrote for the same question; `None` for anything else.
    pub fn parse(question: &Question, text: &str) -> Option<Self> {
        if let Question::Workers(_) = question {
            let (hive, id) = WorkerId::parse(text).ok()?;
            return Some(Self::Worker(hive?, id));
        }
        let mut parts = text.splitn(3, '/');
        let (hive, position) = (HiveId::parse(parts.next()?).ok()?, parts.next()?.parse().ok()?);
        Some(Self::Gpu(hive, parts.next()?.to_owned(), position))
    }

    fn hive(&self) -> &HiveId {
        match self {
            Self::Worker(hive, _) | Self::Gpu(hive, ..) => hive,
        }
    }
}

impl fmt::Display for VerdictCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(hive, id) => write!(f, "{hive}/{id}"),
            Self::Gpu(hive, uuid, position) => write!(f, "{hive}/{position}/{uuid}"),
        }
    }
}

/// Verdicts on the candidates, at most `size` of them.
pub fn explain(
    fleet: &Fleet,
    now: Instant,
    question: &Question,
    size: usize,
    after: Option<&VerdictCursor>,
) -> ExplainedPage {
    let moment = fleet.moment(now);
    let mut page = Filling { page: ExplainedPage::default(), size, bytes: 0, after, last: None };
    let only = match question {
        Question::Workers(query) => &query.filter.hive,
        Question::Gpus(query) => &query.filter.hive,
    };
    if !only.is_empty() {
        if let Ok(only) = HiveId::parse(only) {
            page.add(fleet, &moment, question, &only);
        }
        return page.page;
    }
    let mut from = after.map_or(Bound::Unbounded, |after| Bound::Included(after.hive().clone()));
    loop {
        let hives = fleet.index().hives(None, from.as_ref(), HIVES_AT_ONCE);
        let Some(last) = hives.last() else { return page.page };
        for hive in &hives {
            if page.add(fleet, &moment, question, hive) {
                return page.page;
            }
        }
        from = Bound::Excluded(HiveId::clone(last));
    }
}

struct Filling<'a> {
    page: ExplainedPage,
    size: usize,
    bytes: usize,
    after: Option<&'a VerdictCursor>,
    last: Option<VerdictCursor>,
}

impl Filling<'_> {
    /// Adds the candidates of a hive; whether the page is full and there are more.
    fn add(&mut self, fleet: &Fleet, moment: &Moment, question: &Question, hive: &HiveId) -> bool {
        let full = fleet.visit(moment, hive, |hive| match question {
            Question::Workers(query) => self.workers(&hive, query),
            Question::Gpus(query) => self.gpus(&hive, query),
        });
        full.unwrap_or(false)
    }

    fn workers(&mut self, hive: &SeenHive<'_>, query: &Query) -> bool {
        let mut candidates: Vec<Seen<'_>> = hive.workers().filter(|seen| judge::is_candidate(seen, query)).collect();
        candidates.sort_unstable_by_key(|seen| seen.id());
        let seen_before = |seen: &&Seen<'_>| match self.after {
            Some(VerdictCursor::Worker(hive, id)) => (seen.hive(), seen.id()) <= (hive, id),
            _ => false,
        };
        let rest: Vec<&Seen<'_>> = candidates.iter().filter(|seen| !seen_before(seen)).collect();
        for seen in rest {
            let mut objections = Vec::new();
            judge::objections(seen, query, &mut |objection| objections.push(objection.to_wire()));
            let name = format!("{}/{}", seen.hive(), seen.id());
            let at = VerdictCursor::Worker(seen.hive().clone(), seen.id().clone());
            if !self.push(Verdict { name, chosen: objections.is_empty(), objections }, at) {
                return true;
            }
        }
        false
    }

    fn gpus(&mut self, hive: &SeenHive<'_>, query: &CapacityQuery) -> bool {
        if !capacity::is_candidate(hive, &query.filter) {
            return false;
        }
        let gpus = &hive.record().gpus;
        let mut candidates: Vec<(&str, usize)> = gpus.iter().map(|gpu| gpu.uuid.as_str()).zip(0..).collect();
        candidates.sort_unstable();
        for (uuid, at) in candidates {
            let seen_before = match self.after {
                Some(VerdictCursor::Gpu(id, last, position)) => (hive.id(), uuid, at) <= (id, last, *position),
                _ => false,
            };
            if seen_before {
                continue;
            }
            let mut objections = Vec::new();
            capacity::objections(hive, at, query, &mut |objection| objections.push(objection.to_wire()));
            let name = format!("{}/{uuid}", hive.id());
            let cursor = VerdictCursor::Gpu(hive.id().clone(), uuid.to_owned(), at);
            if !self.push(Verdict { name, chosen: objections.is_empty(), objections }, cursor) {
                return true;
            }
        }
        false
    }

    /// Whether there was room for it. The page goes on after the last one that had room.
    fn push(&mut self, verdict: Verdict, at: VerdictCursor) -> bool {
        self.bytes += verdict.encoded_len();
        let verdicts = &mut self.page.verdicts;
        if verdicts.len() >= self.size || (self.bytes > PAGE_BYTES && !verdicts.is_empty()) {
            self.page.next = self.last.take();
            return false;
        }
        verdicts.push(verdict);
        self.last = Some(at);
        true
    }
}

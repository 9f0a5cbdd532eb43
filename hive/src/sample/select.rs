//! Picks the samples of some workers out of a round.

use crate::roster::{Member, Roster};
use crate::round::{Round, Sample};
use std::sync::Arc;

/// The workers of a group, or one instance of it, or all, each with its sample. A worker that the round does not know
/// yet is left out; one that could not be sampled is there, with `stats: None`.
pub fn select<'a>(
    roster: &'a Roster,
    round: &'a Round,
    group: Option<&'a str>,
    instance: Option<&'a str>,
) -> impl Iterator<Item = (&'a Arc<Member>, &'a Sample)> {
    let wanted = move |member: &&Arc<Member>| {
        group.is_none_or(|group| member.id.group() == group)
            && instance.is_none_or(|instance| member.id.instance() == instance)
    };
    roster.members.iter().filter(wanted).filter_map(|member| {
        let at = round.samples.binary_search_by_key(&member.slot, |sample| sample.slot).ok()?;
        Some((member, round.samples.get(at)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::testing;
    use std::time::{Instant, SystemTime};

    fn fleet() -> (Roster, Round) {
        let names = [(1, "llm", "8080"), (2, "llm", "8081"), (3, "embed", "8080"), (4, "late", "1")];
        let members = names.map(|(slot, group, instance)| Arc::new(testing::member(slot, group, instance)));
        let samples = [1, 2, 3].map(|slot| Sample { slot, stats: (slot != 2).then(proto::ProcessStats::default) });
        let round = Round { samples: samples.into(), ..Round::empty(Instant::now(), SystemTime::now()) };
        (Roster { members: members.into() }, round)
    }

    fn slots(group: Option<&str>, instance: Option<&str>) -> Vec<u32> {
        let (roster, round) = fleet();
        select(&roster, &round, group, instance).map(|(member, _)| member.slot).collect()
    }

    #[test]
    fn collect_all_workers_returns_all() {
        assert_eq!(slots(None, None), [1, 2, 3], "the one that could not be sampled too");
    }

    #[test]
    fn collect_group_filters_by_group() {
        assert_eq!(slots(Some("llm"), None), [1, 2]);
        assert_eq!(slots(Some("none"), None), [0_u32; 0]);
    }

    #[test]
    fn collect_instance_single_worker() {
        assert_eq!(slots(Some("embed"), Some("8080")), [3]);
        assert_eq!(slots(Some("embed"), Some("8081")), [0_u32; 0]);
    }
}

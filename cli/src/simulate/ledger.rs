//! Whether the books balance: of a session that ended with a summary, every frame that was handed over was accepted or
//! refused; of one that was cut, the queen counted no frame that was never handed over, and only few were under way.
//! Pure, and outside both ends.

use hive::rpc::uplink::Account;

/// So many sentences about what is wrong are kept.
const FAULTS: usize = 20;

/// What became of all frames so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Sessions that ended with a summary.
    pub summed: u64,
    /// Sessions that were cut.
    pub cut: u64,
    /// Frames handed over in closed sessions.
    pub handed: u64,
    /// Frames that the queen accepted, as it says.
    pub accepted: u64,
    /// Frames that it refused or had had before.
    pub refused: u64,
    /// Frames of cut sessions that were heard of.
    pub heard: u64,
    /// Frames of cut sessions that were not: under way when the line was cut.
    pub in_flight: u64,
    /// What does not balance, in words; the first few.
    pub faults: Vec<String>,
    /// How many such there were.
    pub faulty: u64,
}

impl Ledger {
    /// Closes the account of a session. `heard` is the number of the last of its frames that somebody who watches the
    /// queen has heard of, 0 before the first; `None` when nobody watches. At most `under_way` frames may be on the way
    /// at once.
    pub fn settle(&mut self, account: &Account, heard: Option<u64>, under_way: u64) {
        self.handed += account.handed;
        let Some(summary) = &account.summary else {
            self.settle_cut(account, heard, under_way);
            return;
        };
        self.summed += 1;
        self.accepted += summary.frames_accepted;
        self.refused += summary.frames_refused;
        if account.handed != summary.frames_accepted + summary.frames_refused {
            self.fault(format!(
                "{}: {} frames handed over, {} accepted and {} refused",
                account.session, account.handed, summary.frames_accepted, summary.frames_refused
            ));
        }
    }

    fn settle_cut(&mut self, account: &Account, heard: Option<u64>, under_way: u64) {
        self.cut += 1;
        let Some(heard) = heard else { return };
        if heard > account.handed {
            self.fault(format!("{}: frame {heard} was heard of, {} were handed over", account.session, account.handed));
        } else if account.handed - heard > under_way {
            let lost = account.handed - heard;
            self.fault(format!("{}: {lost} frames under way at once, at most {under_way} can be", account.session));
        }
        self.heard += heard.min(account.handed);
        self.in_flight += account.handed.saturating_sub(heard);
    }

    /// Something else does not balance.
    pub fn fault(&mut self, words: String) {
        self.faulty += 1;
        if self.faults.len() < FAULTS {
            self.faults.push(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::PushTelemetryResponse;

    fn account(handed: u64, summary: Option<(u64, u64)>) -> Account {
        let summary = summary.map(|(frames_accepted, frames_refused)| PushTelemetryResponse {
            frames_accepted,
            frames_refused,
            ..PushTelemetryResponse::default()
        });
        Account { session: "sim-1/7/token".to_owned(), handed, summary }
    }

    #[test]
    fn t6_a_summed_session_balances_exactly() {
        let mut ledger = Ledger::default();
        ledger.settle(&account(10, Some((8, 2))), None, 5);
        assert_eq!((ledger.faulty, ledger.handed, ledger.accepted, ledger.refused), (0, 10, 8, 2));
        ledger.settle(&account(10, Some((9, 0))), None, 5);
        ledger.settle(&account(10, Some((10, 1))), None, 5);
        assert_eq!((ledger.faulty, ledger.summed), (2, 3));
    }

    #[test]
    fn t6_a_cut_session_balances_up_to_what_was_in_flight() {
        let mut ledger = Ledger::default();
        ledger.settle(&account(10, None), Some(8), 5);
        assert_eq!((ledger.faulty, ledger.heard, ledger.in_flight, ledger.cut), (0, 8, 2, 1));
        ledger.settle(&account(7, None), Some(8), 5);
        ledger.settle(&account(14, None), Some(8), 5);
        assert_eq!(ledger.faulty, 2, "{:?}", ledger.faults);
    }
}

//! What the subject's calls have made and not ended, by the ledger that the interposer keeps in its processes.
//!
//! Not seen: what a context takes along when it is destroyed, and what processes hold in which the interposer is not.

use procfs::process::Process;
use spillproof_faults::{Attachment, LedgerEntry, Shared, SiteId};

/// What exists of the subject's own making, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReading {
    /// Each with the call that made it, in the order of their serial numbers.
    pub held: Vec<LedgerEntry>,
    /// Things that found no room in the ledger since it was made.
    pub lost: u64,
    /// Calls that closed the driver of cuFile, or tried to: everything of cuFile goes with it.
    pub cufile_closes: u64,
}

/// Reads what living processes hold.
pub(crate) fn ledger(shared: &Shared) -> LedgerReading {
    let attached = shared.attachments().into_iter();
    let living: Vec<Attachment> = attached.filter(is_alive).collect();
    let view = shared.ledger().held_by(&living);
    LedgerReading {
        held: view.entries,
        lost: view.lost,
        cufile_closes: shared.calls(SiteId::named("cuFileDriverClose")),
    }
}

/// Whether it is still there, and no other process under its number.
fn is_alive(process: &Attachment) -> bool {
    let stat = Process::new(process.pid.cast_signed()).and_then(|found| found.stat());
    stat.is_ok_and(|stat| stat.starttime == process.start_ticks && stat.state != 'Z')
}

#[cfg(test)]
mod tests {
    //! Who counts as alive.
    use super::*;

    #[test]
    fn a_number_that_another_process_has_by_now_is_not_the_process() {
        let pid = std::process::id();
        let start_ticks = Process::myself().unwrap().stat().unwrap().starttime;
        let process = |pid, start_ticks| Attachment {
            pid,
            start_ticks,
            serial: 1,
        };
        assert!(is_alive(&process(pid, start_ticks)));
        assert!(!is_alive(&process(pid, start_ticks + 1)));
        assert!(!is_alive(&process(u32::MAX >> 1, start_ticks)));
    }
}

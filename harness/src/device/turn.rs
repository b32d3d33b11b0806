//! A real GPU belongs to one case at a time. A process keeps it from one case to its next, with the ballast on it: a context and
//! a GPU full of memory cost seconds. It hands both back as soon as another process waits.

use super::slot::{Slot, Wish};
use crate::{ballast::Ballast, error::HarnessError, settle::settle};
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How long other cases may have a GPU before it is said that one does not end.
const TAKING_BOUND: Duration = Duration::from_secs(600);

/// How soon another process that waits is noticed while no case is run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What this process has of its GPUs, by unique id: nothing while a case is at it.
static KEPT: Mutex<BTreeMap<String, Option<Kept>>> = Mutex::new(BTreeMap::new());

fn kept() -> MutexGuard<'static, BTreeMap<String, Option<Kept>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fields are dropped in this order: the next process finds the GPU clean.
#[derive(Debug)]
struct Kept {
    ballast: Option<Ballast>,
    slot: Slot,
}

/// The right to use a GPU for a case; given back on drop.
#[derive(Debug)]
pub(super) struct Turn {
    uuid: String,
    /// Absent once it is given back.
    slot: Option<Slot>,
    ballast: Mutex<Option<Ballast>>,
}

impl Turn {
    /// Waits until every other case is done with the GPU of this unique id.
    ///
    /// # Errors
    /// No place for the lock; or nobody lets go of it within ten minutes.
    pub(super) fn take(uuid: &str) -> Result<Self, HarnessError> {
        Self::take_within(uuid, TAKING_BOUND)
    }

    fn take_within(uuid: &str, bound: Duration) -> Result<Self, HarnessError> {
        let mut wish = None;
        let taken = settle(bound, || try_take(uuid, &mut wish).transpose());
        taken.unwrap_or_else(|| {
            let reason = format!("another run has had it for {bound:?}; end that run");
            Err(HarnessError::Device {
                device: uuid.into(),
                reason: io::Error::new(ErrorKind::TimedOut, reason).to_string(),
            })
        })
    }

    /// The ballast that lies on the GPU since an earlier case, or was given back in this one.
    pub(super) fn ballast(&self) -> MutexGuard<'_, Option<Ballast>> {
        self.ballast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn, unless somebody else has it; `wish` tells other processes to let go.
fn try_take(uuid: &str, wish: &mut Option<Wish>) -> Result<Option<Turn>, HarnessError> {
    let mut all = kept();
    let turn = |ballast, slot| {
        Some(Turn {
            uuid: uuid.into(),
            slot: Some(slot),
            ballast: Mutex::new(ballast),
        })
    };
    match all.get_mut(uuid) {
        // Another thread of this process has it.
        Some(None) => return Ok(None),
        Some(kept @ Some(_)) => {
            if let Some(Kept { ballast, slot }) = kept.take() {
                return Ok(turn(ballast, slot));
            }
        }
        None => {}
    }
    if let Some(slot) = Slot::try_take(uuid)? {
        *wish = None;
        all.insert(uuid.into(), None);
        return Ok(turn(None, slot));
    }
    if wish.is_none() {
        *wish = Wish::say(uuid)?;
    }
    Ok(None)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let ballast = self.ballast().take().filter(|ballast| !ballast.failed());
        let is_worth_keeping = ballast.is_some();
        let held = Kept { ballast, slot };
        kept().insert(self.uuid.clone(), Some(held));
        if !is_worth_keeping || is_awaited(&self.uuid) || !watch(&self.uuid) {
            let_go(&self.uuid);
        }
    }
}

/// Where it cannot be told whether another process waits, none is made to.
fn is_awaited(uuid: &str) -> bool {
    Wish::anybodys(uuid).unwrap_or(true)
}

/// Lets go of what no case has, without holding up the cases of other GPUs meanwhile.
fn let_go(uuid: &str) {
    let held = kept().get_mut(uuid).and_then(Option::take);
    if held.is_some() {
        drop(held);
        kept().remove(uuid);
    }
}

/// Looks for other processes that wait until a case takes the GPU again: none may come. False where that cannot be done.
fn watch(uuid: &str) -> bool {
    let uuid = uuid.to_owned();
    let looks = move || {
        while matches!(kept().get(&uuid), Some(Some(_))) {
            if is_awaited(&uuid) {
                let_go(&uuid);
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    let watcher = thread::Builder::new().name("turn".into());
    watcher.spawn(looks).is_ok()
}

#[cfg(test)]
mod tests {
    //! Who has a GPU, and what is left on it.
    use super::*;
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    fn uuid(test: &str) -> String {
        format!("{test}-{}", std::process::id())
    }

    fn forget(uuid: &str) {
        for what in ["", "-waiting"] {
            let path = std::env::temp_dir().join(format!("spillproof-{uuid}{what}.lock"));
            let _ = fs::remove_file(path);
        }
    }

    /// A process that obeys as the ballast does.
    fn obedient() -> Ballast {
        let program = std::path::Path::new("/bin/sh");
        let script = "while read -r line; do echo ok 1; done";
        Ballast::start_with(program, &["-c", script], &[]).unwrap()
    }

    #[test]
    fn one_case_at_a_time_has_the_turn() {
        let uuid = uuid("one");
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = Turn::take(&uuid).unwrap();
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                });
            }
        });
        forget(&uuid);
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn a_turn_is_waited_for_not_for_ever() {
        let uuid = uuid("late");
        let turn = Turn::take(&uuid).unwrap();
        let late = Turn::take_within(&uuid, Duration::from_millis(20)).unwrap_err();
        assert!(late.to_string().contains("end that run"), "{late}");
        drop(turn);
        drop(Turn::take_within(&uuid, Duration::ZERO).unwrap());
        forget(&uuid);
    }

    #[test]
    fn a_ballast_lies_until_another_process_waits() {
        let uuid = uuid("lies");
        let turn = Turn::take(&uuid).unwrap();
        let ballast = obedient();
        let pid = ballast.pid();
        *turn.ballast() = Some(ballast);
        drop(turn);
        let other = Slot::try_take(&uuid).unwrap();
        assert!(other.is_none(), "the GPU was let go with a ballast on it");

        let turn = Turn::take(&uuid).unwrap();
        let kept = turn.ballast().as_ref().map(Ballast::pid);
        assert_eq!(kept, Some(pid));
        let wish = Wish::say(&uuid).unwrap();
        drop(turn);
        assert!(Slot::try_take(&uuid).unwrap().is_some());
        let alive = std::path::Path::new("/proc").join(pid.to_string()).exists();
        assert!(!alive, "the ballast lies there still");
        drop(wish);
        forget(&uuid);
    }

    #[test]
    fn a_process_without_further_cases_lets_go_when_another_waits() {
        let uuid = uuid("idle");
        let turn = Turn::take(&uuid).unwrap();
        *turn.ballast() = Some(obedient());
        drop(turn);
        let wish = Wish::say(&uuid).unwrap();
        assert!(wish.is_some());
        let got = settle(Duration::from_secs(5), || Slot::try_take(&uuid).unwrap());
        assert!(got.is_some(), "still kept after 5 s of waiting");
        forget(&uuid);
    }

    #[test]
    fn a_ballast_that_failed_is_not_kept() {
        let uuid = uuid("failed");
        let turn = Turn::take(&uuid).unwrap();
        let program = std::path::Path::new("/bin/sh");
        let script = "read -r line; echo error";
        let mut ballast = Ballast::start_with(program, &["-c", script], &[]).unwrap();
        assert!(ballast.make_room(1).is_err());
        *turn.ballast() = Some(ballast);
        drop(turn);
        assert!(Slot::try_take(&uuid).unwrap().is_some());
        forget(&uuid);
    }
}

//! Each row of the table, by each of its spellings: the call is counted, fails before and after it is done, with every error that the table
//! names, takes longer, is cut short, raises a signal.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use spillproof_faults::{
    After, Domain, Failure, FaultError, Library, SPELLINGS, Short, Site, SpellingId,
};

use crate::calls::{call, errno, find, set_errno};
use crate::cuda_rows::Machine;
use crate::libc_rows::{self, Scene};
use crate::stage::Stage;

/// Long against the time that a call takes, also on a busy machine.
const DELAY: Duration = Duration::from_millis(30);
/// Left in `errno` before each call.
const UNTOUCHED: i32 = 99;

/// One call after the other in one process; a plan says what becomes of each.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Round {
    Plain,
    Before(FaultError),
    After(FaultError),
    Late,
    Signalled,
    Short,
}

pub(crate) fn tests() -> Vec<Trial> {
    (0..SPELLINGS.len() as u16)
        .map(SpellingId)
        .filter(|spelling| spelling.site().site().failure != Failure::RawSyscall)
        .map(|spelling| {
            let library = match spelling.site().site().library {
                Library::Libc => "libc",
                Library::Cuda => "cuda",
                Library::CuFile => "cufile",
            };
            let name = format!("rows::{library}::{}", spelling.spelling().name);
            Trial::test(name, move || row(spelling))
        })
        .collect()
}

fn rounds(site: &Site) -> Vec<Round> {
    let mut rounds = vec![Round::Plain];
    if site.after != After::Always {
        rounds.extend(site.errors.iter().copied().map(Round::Before));
    }
    if site.after != After::Never {
        rounds.extend(site.errors.first().copied().map(Round::After));
    }
    rounds.extend([Round::Late, Round::Signalled]);
    if site.short != Short::None {
        rounds.push(Round::Short);
    }
    rounds.push(Round::Plain);
    rounds
}

fn plan(site: &Site, rounds: &[Round]) -> String {
    let rules = rounds.iter().enumerate().filter_map(|(index, round)| {
        let action = match round {
            Round::Plain => return None,
            Round::Before(error) => format!("error={error}"),
            Round::After(error) if site.after == After::Always => format!("error={error}"),
            Round::After(error) => format!("error={error}:after"),
            Round::Late => format!("delay={}ms", DELAY.as_millis()),
            Round::Signalled => "signal=SIGUSR1".to_owned(),
            Round::Short => "short=5".to_owned(),
        };
        Some(format!("{}:{action}:when={}", site.name, index + 1))
    });
    rules.collect::<Vec<_>>().join(";")
}

/// What a call of the child came to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    result: usize,
    errno: i32,
    has_changed: bool,
    elapsed: Duration,
    signals: u32,
}

impl Seen {
    fn parse(line: &str) -> Seen {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap().parse::<u64>().unwrap();
        Seen {
            result: next() as usize,
            errno: next() as i32,
            has_changed: next() == 1,
            elapsed: Duration::from_nanos(next()),
            signals: next() as u32,
        }
    }
}

fn row(spelling: SpellingId) -> Result<(), Failed> {
    let site = spelling.site().site();
    let rounds = rounds(site);
    let stage = Stage::new(&plan(site, &rounds));
    let words = [
        "row",
        spelling.spelling().name,
        &stage.scope().display().to_string(),
        &rounds.len().to_string(),
    ];
    let said = match site.library {
        Library::Libc => stage.play(&words),
        Library::Cuda | Library::CuFile => stage.play_emulated(&words),
    };
    if said.starts_with("absent") {
        // The library does not export it, and the interposer must not seem to.
        assert_eq!(stage.shared.calls_by(spelling), 0);
        eprintln!("{} is not in the library here", spelling.spelling().name);
        return Ok(());
    }
    let seen: Vec<Seen> = said.lines().map(Seen::parse).collect();
    assert_eq!(seen.len(), rounds.len(), "{said}");
    assert_eq!(stage.shared.calls_by(spelling), rounds.len() as u64);
    assert_eq!(stage.shared.calls(spelling.site()), rounds.len() as u64);
    let plain = seen[0];
    for (round, seen) in rounds.iter().zip(&seen) {
        judge(site, *round, *seen, plain).map_err(|reason| {
            Failed::from(format!("{round:?}: {reason}: {seen:?}, plainly {plain:?}"))
        })?;
    }
    let fired: u64 = stage
        .shared
        .rule_counts()
        .iter()
        .map(|rule| rule.fired)
        .sum();
    let planned = rounds.iter().filter(|round| **round != Round::Plain);
    // A short count that the call does not reach fires nothing.
    assert_eq!(fired, planned.count() as u64);
    assert_eq!(fired as usize, stage.shared.receipts().len());
    Ok(())
}

/// Whether a call came to what its round says.
fn judge(site: &Site, round: Round, seen: Seen, plain: Seen) -> Result<(), &'static str> {
    let must = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
    let shows = match site.library {
        Library::Libc => libc_rows::shows(site.name),
        Library::Cuda | Library::CuFile => plain.has_changed,
    };
    let is_real_success = !is_failed(site.failure, plain.result);
    if site.library == Library::Libc {
        must(is_real_success, "the plain call fails")?;
        must(plain.has_changed == shows, "the plain call shows otherwise")?;
    }
    must(
        seen.signals == u32::from(round == Round::Signalled),
        "signals",
    )?;
    if round == Round::Late {
        must(seen.elapsed >= DELAY, "it was not late")?;
    }
    match round {
        Round::Plain | Round::Late | Round::Signalled => {
            let is_same = is_failed(site.failure, seen.result) != is_real_success;
            must(is_same, "the result differs")?;
            must(seen.has_changed == plain.has_changed, "the effect differs")?;
            must(seen.errno == plain.errno, "errno differs")
        }
        Round::Before(error) => {
            must(!seen.has_changed, "something happened")?;
            must(
                looks_like(site.failure, error, seen),
                "the failure looks otherwise",
            )
        }
        Round::After(error) => {
            must(seen.has_changed == plain.has_changed, "the effect differs")?;
            match is_real_success {
                true => must(
                    looks_like(site.failure, error, seen),
                    "the failure looks otherwise",
                ),
                false => must(seen.result == plain.result, "its own failure is hidden"),
            }
        }
        Round::Short if is_real_success => {
            must(seen.result == 5, "not so many bytes")?;
            must(seen.has_changed == shows, "nothing moved")
        }
        Round::Short => Ok(()),
    }
}

fn is_failed(failure: Failure, result: usize) -> bool {
    match failure {
        Failure::MinusOne | Failure::RawSyscall => result as u32 == u32::MAX,
        Failure::MapFailed => result == usize::MAX,
        Failure::ReturnsErrno | Failure::CudaResult | Failure::CuFileError => result as u32 != 0,
        Failure::CuFileBytes => (result as isize) < 0,
        Failure::Void => false,
    }
}

fn looks_like(failure: Failure, error: FaultError, seen: Seen) -> bool {
    let code = error.code;
    match failure {
        Failure::MinusOne | Failure::RawSyscall => {
            seen.result as i32 == -1 && seen.result as isize == -1 && seen.errno == code
        }
        Failure::MapFailed => seen.result == usize::MAX && seen.errno == code,
        Failure::ReturnsErrno => seen.result as i32 == code && seen.errno == UNTOUCHED,
        Failure::CudaResult => seen.result == code as usize,
        Failure::CuFileError => seen.result as u32 == code as u32,
        Failure::CuFileBytes if error.domain == Domain::Errno => {
            seen.result as isize == -1 && seen.errno == code
        }
        Failure::CuFileBytes => seen.result as isize == -(code as isize),
        Failure::Void => false,
    }
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// The child: calls the function so many times, each in fresh surroundings.
pub(crate) fn play(spelling: &str, scope: &Path, rounds: &str) {
    let id = SpellingId::find(spelling.as_bytes()).unwrap();
    let handler = count_signal as extern "C" fn(i32);
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
    let site = id.site().site();
    let rounds = rounds.parse::<usize>().unwrap();
    match site.library {
        Library::Libc => play_libc(spelling, site, scope, rounds),
        Library::Cuda | Library::CuFile => play_cuda(spelling, site, scope, rounds),
    }
}

fn play_libc(spelling: &str, site: &Site, scope: &Path, rounds: usize) {
    let Some(address) = find(libc::RTLD_DEFAULT, spelling) else {
        println!("absent");
        return;
    };
    let mut lines = String::new();
    for round in 0..rounds {
        let mut scene = Scene::new(scope, round);
        let arguments = scene.arguments(site.name);
        let before = scene.state();
        let (result, line) = measured(address, &arguments);
        let has_changed = scene.state() != before;
        lines += &line(has_changed);
        scene.end(site.name, result);
    }
    print!("{lines}");
}

fn play_cuda(spelling: &str, site: &Site, scope: &Path, rounds: usize) {
    let mut machine = Machine::start(scope, site.name);
    let Some(address) = find(machine.library(site.library), spelling) else {
        println!("absent");
        return;
    };
    let mut lines = String::new();
    for _ in 0..rounds {
        let arguments = machine.arguments(site.name);
        let before = machine.state();
        let (result, line) = measured(address, &arguments);
        let has_changed = machine.state() != before;
        lines += &line(has_changed);
        machine.undo(site, &arguments, result);
    }
    print!("{lines}");
}

fn measured(address: usize, arguments: &[usize]) -> (usize, impl FnOnce(bool) -> String) {
    let signals_before = SIGNALS.load(Ordering::SeqCst);
    set_errno(UNTOUCHED);
    let start = Instant::now();
    let result = call(address, arguments);
    let (elapsed, errno) = (start.elapsed(), errno());
    let signals = SIGNALS.load(Ordering::SeqCst) - signals_before;
    (result, move |has_changed: bool| {
        let changed = u8::from(has_changed);
        format!(
            "{result} {errno} {changed} {} {signals}\n",
            elapsed.as_nanos()
        )
    })
}

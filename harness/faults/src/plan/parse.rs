//! Reading a plan. The text is untrusted: whatever it holds, the answer is a plan or an error that says where and why.

use std::str::FromStr;
use std::time::Duration;

use super::error::{PlanError, RuleError};
use super::value::Glob;
use super::{
    Action, MAX_CALLER_GLOB_BYTES, MAX_DELAY, MAX_PATH_GLOB_BYTES, MAX_RULES, Plan, Rule, When,
};
use crate::error::FaultError;
use crate::nearest::nearest;
use crate::signal::Signal;
use crate::site::{Site, SiteId};

const KEYS: [&str; 8] = [
    "error", "short", "delay", "signal", "after", "when", "path", "caller",
];

/// A piece of the text and where it starts, in bytes.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    start: usize,
}

/// An error and the byte that it is about.
type At<T> = Result<T, (usize, RuleError)>;

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let whole = Piece { text, start: 0 };
        read_plan(whole).map_err(|(position, reason)| {
            let before = &text[..position];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            PlanError {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                reason,
            }
        })
    }
}

fn read_plan(whole: Piece<'_>) -> At<Plan> {
    let mut rules = Vec::new();
    for piece in whole.split(|c| matches!(c, ';' | '\n')) {
        let piece = piece.trimmed();
        if piece.text.is_empty() {
            continue;
        }
        rules.push(read_rule(piece)?);
        if rules.len() > MAX_RULES {
            let (rules, limit) = (rules.len(), MAX_RULES);
            return Err((piece.start, RuleError::TooManyRules { rules, limit }));
        }
    }
    if rules.is_empty() {
        return Err((0, RuleError::EmptyPlan));
    }
    Ok(Plan { rules })
}

/// What a rule has so far, each with the place where it was said.
#[derive(Debug, Default)]
struct Parts {
    action: Option<(usize, &'static str, Action)>,
    after: Option<usize>,
    when: Option<(usize, When)>,
    path: Option<(usize, Glob)>,
    caller: Option<(usize, Glob)>,
}

fn read_rule(piece: Piece<'_>) -> At<Rule> {
    let mut pieces = piece.split(|c| c == ':').map(Piece::trimmed);
    let sites = match pieces.next() {
        Some(words) => read_sites(words)?,
        None => return Err((piece.start, RuleError::NoSite)),
    };
    let mut parts = Parts::default();
    for piece in pieces {
        parts.read(piece)?;
    }
    let Some((action_at, _, action)) = parts.action else {
        return Err((piece.start, RuleError::NoAction));
    };
    let place = |reason: &RuleError| match reason {
        RuleError::AfterIllegal { .. } | RuleError::ShortAfter => parts.after,
        RuleError::PathWithoutFile { .. } => parts.path.as_ref().map(|(start, _)| *start),
        RuleError::WhenZero | RuleError::StepZero | RuleError::WhenBackwards { .. } => {
            parts.when.map(|(start, _)| start)
        }
        RuleError::SiteTwice { .. } => {
            let twice = |(index, (_, id)): (usize, &(usize, SiteId))| {
                sites[..index].iter().any(|(_, earlier)| earlier == id)
            };
            let index = (0..sites.len()).find(|index| twice((*index, &sites[*index])));
            index.map(|index| sites[index].0)
        }
        RuleError::RawSyscall => {
            let raw = sites.iter().find(|(_, id)| !id.site().is_plannable());
            raw.map(|(start, _)| *start)
        }
        _ => Some(action_at),
    };
    let rule = Rule {
        sites: sites.iter().map(|(_, id)| *id).collect(),
        action,
        after: parts.after.is_some(),
        when: parts.when.map_or(When::EVERY, |(_, when)| when),
        path: parts.path.clone().map(|(_, glob)| glob),
        caller: parts.caller.clone().map(|(_, glob)| glob),
    };
    match rule.check() {
        Ok(()) => Ok(rule),
        Err(reason) => Err((place(&reason).unwrap_or(piece.start), reason)),
    }
}

fn read_sites(words: Piece<'_>) -> At<Vec<(usize, SiteId)>> {
    let words = words.split(|c| c == ',').map(Piece::trimmed);
    let site = |word: Piece<'_>| {
        if word.text.is_empty() {
            return Err((word.start, RuleError::NoSite));
        }
        let unknown = || RuleError::UnknownSite {
            word: shown(word.text),
            nearest: Site::nearest(word.text),
        };
        let id = SiteId::find(word.text).ok_or_else(|| (word.start, unknown()))?;
        Ok((word.start, id))
    };
    words.map(site).collect()
}

impl Parts {
    fn read(&mut self, piece: Piece<'_>) -> At<()> {
        let (key, value) = piece.key_and_value();
        let Some(known) = KEYS.into_iter().find(|known| *known == key.text) else {
            let unknown = RuleError::UnknownKey {
                word: shown(key.text),
                nearest: nearest(key.text, KEYS.into_iter()),
            };
            return Err((key.start, unknown));
        };
        match known {
            "after" => {
                if let Some(value) = value {
                    return Err((value.start, RuleError::AfterValue));
                }
                once(&mut self.after, key.start, known, key)
            }
            "when" => {
                let value = required(key, value, known, "when=3")?;
                once(&mut self.when, (value.start, read_when(value)?), known, key)
            }
            "path" => {
                let value = required(key, value, known, "path=*.block")?;
                let glob = read_glob(value, MAX_PATH_GLOB_BYTES)?;
                once(&mut self.path, (value.start, glob), known, key)
            }
            "caller" => {
                let value = required(key, value, known, "caller=libcufile.so*")?;
                let glob = read_glob(value, MAX_CALLER_GLOB_BYTES)?;
                once(&mut self.caller, (value.start, glob), known, key)
            }
            _ => {
                let (value, action) = read_action(known, key, value)?;
                match self.action {
                    None => self.action = Some((value, known, action)),
                    Some((_, first, _)) if first == known => {
                        return Err((key.start, RuleError::KeyTwice { key: known }));
                    }
                    Some((_, first, _)) => {
                        let second = known;
                        return Err((key.start, RuleError::TwoActions { first, second }));
                    }
                }
                Ok(())
            }
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, known: &'static str, key: Piece<'_>) -> At<()> {
    if place.is_some() {
        return Err((key.start, RuleError::KeyTwice { key: known }));
    }
    *place = Some(value);
    Ok(())
}

fn required<'a>(
    key: Piece<'a>,
    value: Option<Piece<'a>>,
    name: &'static str,
    example: &'static str,
) -> At<Piece<'a>> {
    let missing = || RuleError::ValueMissing { key: name, example };
    let value = value.filter(|value| !value.text.is_empty());
    value.ok_or_else(|| (key.start, missing()))
}

fn read_action(
    known: &'static str,
    key: Piece<'_>,
    value: Option<Piece<'_>>,
) -> At<(usize, Action)> {
    let example = match known {
        "error" => "error=ENOSPC",
        "short" => "short=4096",
        "delay" => "delay=5ms",
        _ => "signal=SIGKILL",
    };
    let value = required(key, value, known, example)?;
    let word = || shown(value.text);
    let action = match known {
        "error" => {
            let found = FaultError::named(value.text).map(Action::Error);
            found.ok_or_else(|| RuleError::UnknownError {
                word: word(),
                nearest: FaultError::nearest(value.text),
            })
        }
        "short" => {
            let found = bytes(value.text).map(|bytes| Action::Short { bytes });
            found.ok_or_else(|| RuleError::BadBytes { word: word() })
        }
        "delay" => match time(value.text) {
            Some(delay) if delay > MAX_DELAY => Err(RuleError::DelayTooLong),
            Some(delay) => Ok(Action::Delay(delay)),
            None => Err(RuleError::BadTime { word: word() }),
        },
        _ => {
            let found = Signal::named(value.text).map(Action::Signal);
            found.ok_or_else(|| RuleError::UnknownSignal {
                word: word(),
                nearest: nearest(value.text, Signal::names()),
            })
        }
    };
    match action {
        Ok(action) => Ok((value.start, action)),
        Err(reason) => Err((value.start, reason)),
    }
}

fn read_glob(value: Piece<'_>, limit: usize) -> At<Glob> {
    let bytes = value.text.len();
    if bytes > limit {
        return Err((value.start, RuleError::GlobTooLong { bytes, limit }));
    }
    value
        .text
        .parse()
        .map_err(|reason| (value.start, RuleError::Glob(reason)))
}

fn read_when(value: Piece<'_>) -> At<When> {
    let bad = || RuleError::BadWhen {
        word: shown(value.text),
    };
    let when = when(value.text).ok_or_else(|| (value.start, bad()))?;
    Ok(when)
}

/// `FIRST[..LAST][+[STEP]]`.
fn when(text: &str) -> Option<When> {
    let (range, step) = match text.split_once('+') {
        Some((range, step)) => (range, Some(step)),
        None => (text, None),
    };
    let (first, last) = match range.split_once("..") {
        Some((first, last)) => (number(first)?, Some(number(last)?)),
        None => (number(range)?, None),
    };
    let last = if step.is_none() {
        last.or(Some(first))
    } else {
        last
    };
    let step = match step {
        None | Some("") => 1,
        Some(step) => number(step)?,
    };
    // One call only: a step says nothing.
    let step = if last == Some(first) && step != 0 {
        1
    } else {
        step
    };
    Some(When { first, last, step })
}

/// Digits only: no sign, no blanks.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.into_iter().find(|(unit, _)| text.ends_with(unit));
    match unit {
        Some((unit, shift)) => number(text.strip_suffix(unit)?)?.checked_mul(1 << shift),
        None => number(text),
    }
}

fn time(text: &str) -> Option<Duration> {
    let units = [
        ("ns", 1),
        ("us", 1000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
    ];
    let (unit, nanoseconds) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let total = number(text.strip_suffix(unit)?)?.checked_mul(nanoseconds)?;
    Some(Duration::from_nanos(total))
}

/// Enough of a word to find it again.
fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(40).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    shown
}

impl<'a> Piece<'a> {
    /// The pieces between separators that no `\` precedes.
    fn split(self, is_separator: impl Fn(char) -> bool) -> impl Iterator<Item = Piece<'a>> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let piece = rest?;
            let mut is_escaped = false;
            let end = piece.text.char_indices().find(|(_, c)| {
                // A line ends whatever stands before it.
                let is_end = is_separator(*c) && (!is_escaped || *c == '\n');
                is_escaped = !is_escaped && *c == '\\';
                is_end
            });
            let Some((index, separator)) = end else {
                rest = None;
                return Some(piece);
            };
            let next = index + separator.len_utf8();
            rest = Some(Piece {
                text: &piece.text[next..],
                start: piece.start + next,
            });
            Some(Piece {
                text: &piece.text[..index],
                start: piece.start,
            })
        })
    }

    fn trimmed(self) -> Piece<'a> {
        let from_start = self.text.trim_start();
        Piece {
            text: from_start.trim_end(),
            start: self.start + self.text.len() - from_start.len(),
        }
    }

    fn key_and_value(self) -> (Piece<'a>, Option<Piece<'a>>) {
        let Some(index) = self.text.find('=') else {
            return (self, None);
        };
        let key = Piece {
            text: &self.text[..index],
            start: self.start,
        };
        let value = Piece {
            text: &self.text[index + 1..],
            start: self.start + index + 1,
        };
        (key.trimmed(), Some(value.trimmed()))
    }
}

//! The canonical form of a plan: parsed, it is the same plan again.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Action, Plan, Rule, When};

impl Display for Plan {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(formatter, "{separator}{rule}")?;
        }
        Ok(())
    }
}

impl Display for Rule {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (index, id) in self.sites.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(formatter, "{separator}{}", id.site().name)?;
        }
        match self.action {
            Action::Error(error) => write!(formatter, ":error={error}")?,
            Action::Short { bytes } => write!(formatter, ":short={}", Bytes(bytes))?,
            Action::Delay(delay) => write!(formatter, ":delay={}", Time(delay))?,
            Action::Signal(signal) => write!(formatter, ":signal={signal}")?,
        }
        if self.after {
            formatter.write_str(":after")?;
        }
        if self.when != When::EVERY {
            write!(formatter, ":when={}", self.when)?;
        }
        if let Some(path) = &self.path {
            write!(formatter, ":path={path}")?;
        }
        if let Some(caller) = &self.caller {
            write!(formatter, ":caller={caller}")?;
        }
        Ok(())
    }
}

impl Display for When {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.first)?;
        match self.last {
            Some(last) if last == self.first => return Ok(()),
            Some(last) => write!(formatter, "..{last}")?,
            None if self.step == 1 => formatter.write_str("+")?,
            None => {}
        }
        if self.step != 1 {
            write!(formatter, "+{}", self.step)?;
        }
        Ok(())
    }
}

/// In the largest unit that divides it.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |(shift, _): &(u32, &str)| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        match units.into_iter().find(fits) {
            Some((shift, unit)) => write!(formatter, "{}{unit}", self.0 >> shift),
            None => write!(formatter, "{}", self.0),
        }
    }
}

/// In the largest unit that divides it.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us")];
        let fits = |(unit, _): &(u128, &str)| nanoseconds.is_multiple_of(*unit);
        match units.into_iter().find(fits) {
            Some((unit, name)) => write!(formatter, "{}{name}", nanoseconds / unit),
            None => write!(formatter, "{nanoseconds}ns"),
        }
    }
}

//! A case under another plan than its own or with fewer steps, and the line that shows a result again.

use crate::{bench::Judged, real::MODEL_VARIABLE};
use spillproof_harness::{
    case::{Case, Faults},
    faults::{Plan, PlanError},
};
use std::env;

/// A fault plan to run cases under in place of their own.
pub const PLAN_VARIABLE: &str = "SPILLPROOF_PLAN";

/// The steps of cases that are run, by number from 1, such as `1,2,5`; all others are left out.
pub const STEPS_VARIABLE: &str = "SPILLPROOF_STEPS";

/// What takes the place of what cases say themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// Their plan.
    pub plan: Option<Plan>,
    /// Their steps that are left, by number from 1.
    pub steps: Option<Vec<usize>>,
}

impl Override {
    /// What the environment asks for.
    ///
    /// # Errors
    /// It is no plan: what is wrong, with a mark below the place. Or these are no steps.
    pub fn from_environment() -> Result<Self, String> {
        let plan = variable(PLAN_VARIABLE, "a plan such as pwrite:error=ENOSPC:when=3")?;
        let steps = variable(STEPS_VARIABLE, "steps such as 1,2,5")?;
        Ok(Self {
            plan: plan.as_deref().map(read).transpose()?,
            steps: steps.as_deref().map(read_steps).transpose()?,
        })
    }

    /// Whether cases are run as they are.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The case under it. Under another plan it is judged by the receipts, and what it demands of the way that bytes take is left
    /// out: that holds under its own plan.
    ///
    /// # Errors
    /// The case has no such step.
    pub fn apply(&self, mut case: Case) -> Result<Case, String> {
        if let Some(plan) = &self.plan {
            if case.faults.is_none() {
                case.path = None;
            }
            case = case.under(plan);
        }
        if let Some(steps) = &self.steps {
            let step = |number: &usize| {
                let step = case.steps.get(number - 1).cloned();
                step.ok_or_else(|| {
                    let (id, count) = (case.id(), case.steps.len());
                    format!("{STEPS_VARIABLE}: {id} has {count} steps, none is {number}")
                })
            };
            let left = steps.iter().map(step).collect::<Result<_, _>>()?;
            let left_out = |faults: Faults| faults.left_with(steps.iter().map(|number| number - 1));
            case.faults = case.faults.map(left_out);
            case.steps = left;
        }
        Ok(case)
    }
}

fn variable(name: &str, example: &str) -> Result<Option<String>, String> {
    let Some(text) = env::var_os(name) else {
        return Ok(None);
    };
    let text = text.into_string();
    let text =
        text.map_err(|_| format!("{name} is not UTF-8; write {example}, or leave it unset"))?;
    Ok(Some(text))
}

fn read_steps(text: &str) -> Result<Vec<usize>, String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    match numbers {
        Ok(numbers) if numbers[0] > 0 && numbers.is_sorted_by(|one, next| one < next) => {
            Ok(numbers)
        }
        Ok(_) | Err(_) => Err(format!(
            "{STEPS_VARIABLE}={text:?} names no steps; write their numbers from 1 in rising order, such as 1,2,5"
        )),
    }
}

/// Reads a plan that a person wrote.
fn read(text: &str) -> Result<Plan, String> {
    text.parse().map_err(|error: PlanError| {
        let shown = error.underlined(text).replace('\n', "\n  ");
        format!(
            "{PLAN_VARIABLE} is no plan, line {}:\n  {shown}",
            error.line
        )
    })
}

/// The line that shows one trial again: for `sh`, in the root of the repository.
#[must_use]
pub fn show_again(name: &str, judged: &Judged, asked: &Override) -> String {
    let steps = asked.steps.as_ref().map_or_else(String::new, |steps| {
        let numbers: Vec<String> = steps.iter().map(ToString::to_string).collect();
        format!("{STEPS_VARIABLE}={} ", numbers.join(","))
    });
    let plan = asked.plan.as_ref().map_or_else(String::new, |plan| {
        format!("{PLAN_VARIABLE}={} ", quoted(&plan.to_string()))
    });
    // Its cases are there only with the file.
    let file = match (name.starts_with("real::"), env::var(MODEL_VARIABLE)) {
        (true, Ok(file)) => format!("{MODEL_VARIABLE}={} ", quoted(&file)),
        (true, Err(_)) | (false, _) => String::new(),
    };
    format!(
        "{}{file}{steps}{plan}cargo test --test fault_suite -- --exact {} --nocapture",
        judged.prefix(),
        quoted(name)
    )
}

/// As one word of `sh`, whatever is in it.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    //! What is said of a plan that is none, and that lines mean to `sh` what they say.
    use super::*;
    use std::process::Command;

    #[test]
    fn the_place_of_a_mistake_is_marked() {
        let wrong = |text: &str| read(text).unwrap_err();
        assert_eq!(
            wrong("pwrite:error=ENOSP:when=3"),
            "SPILLPROOF_PLAN is no plan, line 1:\n\
             \x20 pwrite:error=ENOSP:when=3\n\
             \x20              ^ \"ENOSP\" is no error; did you mean ENOSPC?"
        );
        assert_eq!(
            wrong("mmap:error=ENOMEM\npwirte:error=EIO"),
            "SPILLPROOF_PLAN is no plan, line 2:\n\
             \x20 pwirte:error=EIO\n\
             \x20 ^ \"pwirte\" is no site; did you mean pwrite?"
        );
        let illegal = wrong("mmap:error=ENOSPC");
        assert!(illegal.contains("mmap cannot return ENOSPC"), "{illegal}");
        assert!(wrong("").contains("the plan is empty"), "{}", wrong(""));
    }

    #[test]
    fn what_a_case_demands_of_the_way_holds_under_its_own_plan_only() {
        use crate::steps::{CaseWords as _, case};
        let way = spillproof_protocol::TransferPath::Staged;
        let mut plain = case("disk", "plain", 16, Vec::new());
        plain.path = Some(way);
        let own = plain.clone().failing("mmap:error=ENOMEM");
        let other = Override {
            plan: Some("pwrite:error=EIO".parse().unwrap()),
            steps: None,
        };
        assert_eq!(other.apply(plain.clone()).unwrap().path, None);
        let replayed = other.apply(own).unwrap();
        assert_eq!(
            (replayed.path, replayed.plan()),
            (Some(way), other.plan.as_ref())
        );
        assert_eq!(Override::default().apply(plain).unwrap().path, Some(way));
    }

    #[test]
    fn steps_that_are_named_are_left() {
        use crate::steps::{CaseWords as _, case, load, request};
        let whole =
            case("disk", "whole", 16, Vec::new()).steps([load("a"), request("a"), load("b")]);
        let some = |text: &str| Override {
            plan: None,
            steps: Some(read_steps(text).unwrap()),
        };
        let left = some("1,3").apply(whole.clone()).unwrap().steps;
        assert_eq!(left, [load("a"), load("b")]);
        let error = some("2,4").apply(whole).unwrap_err();
        assert_eq!(
            error,
            "SPILLPROOF_STEPS: disk::whole has 3 steps, none is 4"
        );
        for wrong in ["", "0", "2,1", "1,1", "1-3", "a", "1,"] {
            assert!(read_steps(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sh_takes_a_quoted_word_as_it_is() {
        for word in [
            "pwrite:error=EIO:when=3..7+2:path=*/it's $HOME `x` \\; *",
            "",
            "'",
            "a\nb",
        ] {
            let script = format!("printf %s {}", quoted(word));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_line_names_who_is_judged_the_plan_and_the_trial() {
        let asked = Override {
            plan: Some("pwrite64:error=EIO:when=3".parse().unwrap()),
            steps: Some(vec![1, 4]),
        };
        let specimen = Judged::Specimen("S1".into());
        assert_eq!(
            show_again("disk::a[emulated]", &specimen, &asked),
            "SPILLPROOF_SPECIMEN='S1' SPILLPROOF_STEPS=1,4 SPILLPROOF_PLAN='pwrite:error=EIO:when=3' \
             cargo test --test fault_suite -- --exact 'disk::a[emulated]' --nocapture"
        );
        let other = Judged::Other(vec!["my engine".into(), "--flag".into()]);
        assert_eq!(
            show_again("disk::a[emulated]", &other, &Override::default()),
            "SPILLPROOF_SUBJECT='my engine --flag' \
             cargo test --test fault_suite -- --exact 'disk::a[emulated]' --nocapture"
        );
    }
}

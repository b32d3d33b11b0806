//! A case under another plan than its own, and the line that shows a result again.

use crate::bench::Judged;
use spillproof_harness::{case::Case, faults::Plan};
use std::env;

/// A fault plan to run cases under in place of their own.
pub const PLAN_VARIABLE: &str = "SPILLPROOF_PLAN";

/// The plan that the environment asks for.
///
/// # Errors
/// It is no plan: what is wrong, with a mark below the place.
pub fn plan_from_environment() -> Result<Option<Plan>, String> {
    let Some(text) = env::var_os(PLAN_VARIABLE) else {
        return Ok(None);
    };
    let text = text
        .to_str()
        .ok_or_else(|| format!("{PLAN_VARIABLE} is not UTF-8; write a plan such as pwrite:error=ENOSPC:when=3, or leave it unset"))?;
    read(text).map(Some)
}

/// Reads a plan that a person wrote.
fn read(text: &str) -> Result<Plan, String> {
    text.parse()
        .map_err(|error: spillproof_harness::faults::PlanError| {
            // As many columns as characters, whatever a terminal makes of a tab.
            let line = text.lines().nth(error.line - 1).unwrap_or_default();
            let line = line.replace('\t', " ");
            let mark = " ".repeat(error.column - 1);
            format!("{PLAN_VARIABLE}: {error}\n  {line}\n  {mark}^")
        })
}

/// The case under this plan, judged by its receipts. What it demands of the way that bytes take holds only under its own plan.
#[must_use]
pub fn under(case: Case, plan: &Plan) -> Case {
    let path = if case.faults.is_some() {
        case.path
    } else {
        None
    };
    Case {
        faults: Some(plan.clone()),
        path,
        ..case
    }
}

/// The line that shows one trial again: for `sh`, in the root of the repository.
#[must_use]
pub fn show_again(name: &str, judged: &Judged, plan: Option<&Plan>) -> String {
    let plan = plan.map_or_else(String::new, |plan| {
        format!("{PLAN_VARIABLE}={} ", quoted(&plan.to_string()))
    });
    format!(
        "{}{plan}cargo test --test fault_suite -- --exact {} --nocapture",
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
            "SPILLPROOF_PLAN: line 1, column 14: \"ENOSP\" is no error; did you mean ENOSPC?\n\
             \x20 pwrite:error=ENOSP:when=3\n\
             \x20              ^"
        );
        assert_eq!(
            wrong("mmap:error=ENOMEM\n\tpwirte:error=EIO"),
            "SPILLPROOF_PLAN: line 2, column 2: \"pwirte\" is no site; did you mean pwrite?\n\
             \x20  pwirte:error=EIO\n\
             \x20  ^"
        );
        let illegal = wrong("mmap:error=ENOSPC");
        assert!(illegal.contains("mmap cannot return ENOSPC"), "{illegal}");
        assert!(wrong("").contains("the plan is empty"), "{}", wrong(""));
    }

    #[test]
    fn what_a_case_demands_of_the_way_holds_under_its_own_plan_only() {
        use crate::steps::{CaseWords as _, case};
        let plan = |text: &str| text.parse().unwrap();
        let way = spillproof_protocol::TransferPath::Staged;
        let mut plain = case("disk", "plain", 16, Vec::new());
        plain.path = Some(way);
        let own = plain.clone().failing("mmap:error=ENOMEM");
        let other = plan("pwrite:error=EIO");
        assert_eq!(under(plain, &other).path, None);
        let replayed = under(own, &other);
        assert_eq!((replayed.path, replayed.faults), (Some(way), Some(other)));
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
        let plan: Plan = "pwrite64:error=EIO:when=3".parse().unwrap();
        let specimen = Judged::Specimen("S1".into());
        assert_eq!(
            show_again("disk::a[emulated]", &specimen, Some(&plan)),
            "SPILLPROOF_SPECIMEN='S1' SPILLPROOF_PLAN='pwrite:error=EIO:when=3' \
             cargo test --test fault_suite -- --exact 'disk::a[emulated]' --nocapture"
        );
        let other = Judged::Other(vec!["my engine".into(), "--flag".into()]);
        assert_eq!(
            show_again("disk::a[emulated]", &other, None),
            "SPILLPROOF_SUBJECT='my engine --flag' \
             cargo test --test fault_suite -- --exact 'disk::a[emulated]' --nocapture"
        );
    }
}

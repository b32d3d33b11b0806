//! What is told of a program that ran under a plan.

use spillproof_harness::{
    faults::RuleAccount,
    program::{Account, Reach},
};
use std::fmt::Write as _;

/// Receipts that are told.
const RECEIPTS: usize = 20;

/// Lines, each with the name of the command before it.
pub(crate) fn text(account: &Account, with_calls: bool) -> String {
    let mut lines = Vec::new();
    if with_calls {
        calls(account, &mut lines);
    }
    rules(account, &mut lines);
    reach(account, &mut lines);
    let mut text = String::new();
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "spillproof: {line}");
    }
    text
}

fn calls(account: &Account, lines: &mut Vec<String>) {
    for call in &account.trace.entries {
        let mut line = format!("  {}#{}", call.site.site().name, call.nth);
        if call.size > 0 {
            let _ = write!(line, " {} bytes", call.size);
        }
        if let Some(offset) = call.offset {
            let _ = write!(line, " at {offset}");
        }
        if !call.path.is_empty() {
            let _ = write!(line, " {}", call.path);
        }
        let _ = write!(line, " from {} in {}/{}", call.caller, call.pid, call.tid);
        lines.push(line);
    }
    if account.trace.lost > 0 {
        let lost = account.trace.lost;
        lines.push(format!(
            "  {lost} further calls found no room in the record"
        ));
    }
    let counts: Vec<String> = account
        .calls
        .iter()
        .map(|(site, calls)| format!("{} {calls}", site.site().name))
        .collect();
    let counts = match counts.as_slice() {
        [] => "none".to_owned(),
        counts => counts.join(", "),
    };
    lines.push(format!("calls {}: {counts}", places(account)));
}

fn rules(account: &Account, lines: &mut Vec<String>) {
    for rule in &account.rules {
        lines.push(rule.to_string());
    }
    for receipt in account.receipts.iter().take(RECEIPTS) {
        let site = receipt.site.site().name;
        lines.push(format!(
            "  fired at {site}, call {} of rule {}, in {}/{}",
            receipt.nth,
            receipt.rule + 1,
            receipt.pid,
            receipt.tid
        ));
    }
    let fired: u64 = account.rules.iter().map(|rule| rule.fired).sum();
    let left = fired.saturating_sub(account.receipts.len().min(RECEIPTS) as u64);
    if left > 0 {
        lines.push(format!("  and {left} more times"));
    }
    for rule in account.unfired() {
        lines.push(unfired(rule, account));
    }
}

fn unfired(rule: &RuleAccount, account: &Account) -> String {
    let RuleAccount { rule, counted, .. } = rule;
    let reason = match counted {
        0 => format!("no such call was made {}", places(account)),
        counted if rule.contains(":short=") => {
            format!("of {counted} such calls it chooses none, or none that moves more bytes")
        }
        counted => format!("of {counted} such calls it chooses none"),
    };
    format!("inconclusive: {rule} never fired: {reason}")
}

fn places(account: &Account) -> String {
    match account.scopes.as_slice() {
        [] => "without a scope".to_owned(),
        scopes => {
            let scopes: Vec<String> = scopes
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!("in the scope {}", scopes.join(", "))
        }
    }
}

fn reach(account: &Account, lines: &mut Vec<String>) {
    match &account.reach {
        Reach::Whole => {}
        Reach::Never { reason } => lines.push(format!("no fault reached the program: {reason}")),
        Reach::Lost => lines.push(
            "no fault reached the program's end: it took LD_PRELOAD out of its environment and became another program, became a static or \
             set-uid one, or ended by a raw system call"
                .to_owned(),
        ),
    }
    if !account.missing.is_empty() {
        lines.push(format!(
            "{} that the program started ran without the interposer, uncounted: {}",
            processes(&account.missing),
            list(&account.missing)
        ));
    }
    if !account.open.is_empty() {
        lines.push(format!(
            "{} did not end where the interposer is: still there, killed, or since then a program without it, uncounted: {}",
            processes(&account.open),
            list(&account.open)
        ));
    }
}

fn processes(pids: &[u32]) -> String {
    match pids.len() {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
}

fn list(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    pids.join(", ")
}

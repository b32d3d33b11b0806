//! Records as tables for people, in Markdown. Their shape is that of the parent project's reports.

use super::{
    plan::Size,
    record::{Record, Run, Session},
    summary::{Summary, SummaryMemory},
};
use std::{collections::BTreeSet, fmt::Write as _};

/// Steps that no table shows: they prepare others.
const UNSHOWN: [&str; 1] = ["free"];

/// A run in one line.
pub(super) fn line(run: &Run) -> String {
    let shown = run
        .steps
        .iter()
        .filter(|step| !step.is_trial && !UNSHOWN.contains(&step.name.as_str()));
    let steps: Vec<String> = shown
        .map(|step| {
            format!(
                "{} {} ({})",
                step.name,
                duration(step.seconds),
                rate(step.bytes as f64 / step.seconds)
            )
        })
        .collect();
    format!("{}  [{:.1} s]", steps.join("  "), run.wall_seconds)
}

/// Everything.
#[must_use]
pub fn markdown(records: &[Record], summaries: &[Summary]) -> String {
    let mut text = String::new();
    let sessions: Vec<&Session> = records
        .iter()
        .filter_map(|record| match record {
            Record::Session(session) => Some(session),
            Record::Run(_) | Record::Skip(_) | Record::Failure(_) => None,
        })
        .collect();
    heading(&mut text, &sessions);
    let mut groups: Vec<&str> = Vec::new();
    for one in summaries {
        let group = group(&one.row);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups.sort_by_key(|group| !group.starts_with("tensor/"));
    for of in groups {
        let rows: Vec<&Summary> = summaries
            .iter()
            .filter(|one| group(&one.row) == of && !UNSHOWN.contains(&one.step.as_str()))
            .collect();
        let _ = write!(text, "\n## {of}\n\n");
        if of.starts_with("requests/") {
            requests(&mut text, &rows);
        } else {
            times(&mut text, &rows);
            memory(&mut text, &rows);
        }
    }
    told(&mut text, records);
    text
}

fn group(row: &str) -> &str {
    row.rsplit_once('/').map_or(row, |(group, _)| group)
}

fn contender(row: &str) -> &str {
    row.rsplit_once('/').map_or(row, |(_, contender)| contender)
}

fn heading(text: &mut String, sessions: &[&Session]) {
    let Some(first) = sessions.first() else {
        return;
    };
    let machine = &first.machine;
    let gpu = match (&machine.gpu, machine.gpu_bytes) {
        (Some(name), Some(bytes)) => format!("{name}, {} MiB", bytes >> 20),
        (Some(name), None) => name.clone(),
        (None, _) => machine.device.clone(),
    };
    let _ = writeln!(
        text,
        "{gpu} · driver {} · CUDA {} · Linux {} · {} cores · {} MiB · {}, {} MiB free",
        machine.driver.as_deref().unwrap_or("none"),
        machine.cuda.as_deref().unwrap_or("none"),
        machine.kernel,
        machine.cores,
        machine.memory_bytes >> 20,
        machine.filesystem,
        machine.free_bytes >> 20,
    );
    for session in sessions {
        let _ = writeln!(
            text,
            "\n{}: `{}`",
            session.started,
            session.command_line.join(" ")
        );
    }
}

fn times(text: &mut String, rows: &[&Summary]) {
    let references: BTreeSet<&str> = rows
        .iter()
        .flat_map(|one| one.times_as_fast_as.keys().map(String::as_str))
        .collect();
    text.push_str("| who | step | median | min – max | rate | runs | of ceiling |");
    for reference in &references {
        let _ = write!(text, " × {reference} |");
    }
    text.push_str(" way |\n|---|---|---:|---:|---:|---:|---:|");
    text.push_str(&"---:|".repeat(references.len()));
    text.push_str("---|\n");
    for one in rows {
        let of_ceiling = match (&one.ceiling, one.of_ceiling) {
            (Some(ceiling), Some(ratio)) => format!("{ratio:.2} of {ceiling}"),
            _ => String::new(),
        };
        let _ = write!(
            text,
            "| {} | {} | {} | {} – {} | {} | {} | {of_ceiling} |",
            contender(&one.row),
            one.step,
            duration(one.median_seconds),
            duration(one.min_seconds),
            duration(one.max_seconds),
            rate(one.bytes_per_second),
            one.runs,
        );
        for reference in &references {
            let times = one.times_as_fast_as.get(*reference);
            let times = times.map_or_else(String::new, |times| format!("{times:.2}"));
            let _ = write!(text, " {times} |");
        }
        let _ = writeln!(text, " {} |", one.ways.join(", "));
    }
}

fn memory(text: &mut String, rows: &[&Summary]) {
    let rows: Vec<(&&Summary, SummaryMemory)> = rows
        .iter()
        .filter_map(|one| one.memory.map(|memory| (one, memory)))
        .collect();
    if rows.is_empty() {
        return;
    }
    text.push_str(
        "\n| who | step | time | RSS start | RSS end | RSS peak | peak delta | anon + shared over open | largest | with staging |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (one, memory) in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            contender(&one.row),
            one.step,
            duration(one.median_seconds),
            mib(memory.rss_start_bytes),
            mib(memory.rss_end_bytes),
            mib(memory.rss_peak_bytes),
            mib(memory.peak_delta_bytes),
            mib(memory.over_baseline_bytes),
            mib(memory.max_over_baseline_bytes),
            mib(memory.max_cost_bytes),
        );
    }
}

/// RSS and USS at start, end and peak in MiB, and the time.
fn requests(text: &mut String, rows: &[&Summary]) {
    text.push_str(
        "| who | step | RSS start / end / peak, MiB | USS start / end / peak, MiB | median | min – max | runs |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for one in rows {
        let Some(memory) = one.memory else { continue };
        let uss = memory
            .uss_start_bytes
            .zip(memory.uss_end_bytes)
            .zip(memory.uss_peak_bytes);
        let uss = uss.map_or_else(String::new, |((start, end), peak)| {
            format!("{} / {} / {}", start >> 20, end >> 20, peak >> 20)
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} / {} / {} | {uss} | {} | {} – {} | {} |",
            contender(&one.row),
            one.step,
            memory.rss_start_bytes >> 20,
            memory.rss_end_bytes >> 20,
            memory.rss_peak_bytes >> 20,
            duration(one.median_seconds),
            duration(one.min_seconds),
            duration(one.max_seconds),
            one.runs,
        );
    }
}

/// Rows without numbers, and why.
fn told(text: &mut String, records: &[Record]) {
    let mut lines = Vec::new();
    for record in records {
        match record {
            Record::Skip(skip) => {
                lines.push(format!("- not measured: {}: {}", skip.row, skip.reason));
            }
            Record::Failure(skip) => lines.push(format!("- FAILED: {}: {}", skip.row, skip.reason)),
            Record::Run(run) => lines.extend(run.left_out.iter().map(|(step, reason)| {
                format!("- not measured: {} {} {step}: {reason}", run.row, run.run)
            })),
            Record::Session(_) => {}
        }
    }
    lines.dedup();
    if !lines.is_empty() {
        let _ = write!(text, "\n{}\n", lines.join("\n"));
    }
}

fn duration(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    if ms < 100.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn rate(bytes_per_second: f64) -> String {
    if !bytes_per_second.is_finite() {
        return String::new();
    }
    format!("{:.2} GB/s", bytes_per_second / 1e9)
}

fn mib(bytes: u64) -> String {
    match bytes < 10 << 30 {
        true => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        false => Size(bytes >> 20 << 20).to_string(),
    }
}

#[cfg(test)]
mod tests {
    //! A small table, letter by letter.
    use super::*;
    use crate::bench::{
        record::{Memory, Skip, Step},
        summaries,
    };

    #[test]
    fn rows_ceilings_and_what_was_not_measured_are_shown() {
        let step = |name: &str, seconds| Step {
            name: name.into(),
            bytes: 1 << 30,
            seconds,
            ..Step::default()
        };
        let run = |row: &str, step| Run {
            row: row.into(),
            steps: vec![step],
            ..Run::default()
        };
        let engine = Step {
            memory: Some(Memory {
                rss_start_bytes: 1 << 20,
                rss_end_bytes: 2 << 20,
                rss_peak_bytes: 4 << 20,
                anon_shared_peak_bytes: 3 << 20,
                staging_bytes: 1 << 20,
                ..Memory::default()
            }),
            paths: vec!["staged".into()],
            ..step("store", 0.5)
        };
        let without_warm = Run {
            left_out: [("load_warm".to_owned(), "no memory".to_owned())].into(),
            ..run("tensor/1GiB/engine", engine)
        };
        let records = [
            Record::Run(run("tensor/1GiB/ceiling", step("write", 0.45))),
            Record::Run(without_warm),
            Record::Run(run("tensor/1GiB/torch", step("store", 2.0))),
            Record::Skip(Skip {
                row: "tensor/1GiB/engine-cufile".into(),
                reason: "refused".into(),
            }),
        ];
        let runs = records.iter().filter_map(|record| match record {
            Record::Run(run) => Some(run),
            _ => None,
        });
        let text = markdown(&records, &summaries(runs, &["torch"]));
        let expected = "
## tensor/1GiB

| who | step | median | min – max | rate | runs | of ceiling | × torch | way |
|---|---|---:|---:|---:|---:|---:|---:|---|
| ceiling | write | 450 ms | 450 ms – 450 ms | 2.39 GB/s | 1 |  |  |  |
| engine | store | 500 ms | 500 ms – 500 ms | 2.15 GB/s | 1 | 0.90 of write | 4.00 | staged |
| torch | store | 2000 ms | 2000 ms – 2000 ms | 0.54 GB/s | 1 | 0.23 of write |  |  |

| who | step | time | RSS start | RSS end | RSS peak | peak delta | anon + shared over open | largest | with staging |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
| engine | store | 500 ms | 1.0 MiB | 2.0 MiB | 4.0 MiB | 3.0 MiB | 3.0 MiB | 3.0 MiB | 4.0 MiB |

- not measured: tensor/1GiB/engine 0 load_warm: no memory
- not measured: tensor/1GiB/engine-cufile: refused
";
        assert_eq!(text, expected);
    }
}

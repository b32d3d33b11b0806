//! What a wrapped call costs beside the bare one, libfiu and strace, in one run; COST.md has the table and says how to read it.
//!
//! The executable is two things: without a role it runs the comparison, with so many turns as an argument says and without the neighbours where another is `ours`, prints the tables and fails
//! where a call without a matching rule costs more than the limit; as `play CALLS DIRECTORY` it makes so many calls of a sort whenever it is
//! asked to, and says how long they took.
// Clippy does not see that a target with its own `main` is no library.
#![allow(clippy::unwrap_used)]

mod device;
mod methods;
mod play;
mod player;
mod table;

use std::env;
use std::path::Path;
use std::process::ExitCode;

/// Processes for each method, one after another: where its memory lies is another matter of luck in each.
const TURNS: usize = 5;
/// Batches of each sort of call in each process.
const ROUNDS: usize = 150;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["play", calls, directory] = words[..] {
        play::run(calls.parse().unwrap(), Path::new(directory));
        return ExitCode::SUCCESS;
    }
    // cargo adds a word of its own.
    let turns = words.iter().find_map(|word| word.parse().ok());
    let turns = turns.unwrap_or(TURNS);
    let is_ours_alone = words.contains(&"ours");
    player::stay_on_one_processor();
    let stage = methods::Stage::new();
    let methods = methods::all(&stage, is_ours_alone);
    let mut table = table::Table::default();
    for turn in 0..turns {
        let mut players: Vec<_> = methods.iter().map(methods::Method::start).collect();
        for (row, sort) in play::SORTS.iter().enumerate() {
            eprintln!("turn {} of {turns}: {}", turn + 1, sort.name);
            for _ in 0..ROUNDS {
                let times = players.iter_mut().map(|player| player.batch_ns(row));
                table.add(row, times.collect());
            }
        }
    }
    print!("{}", table.markdown(&methods));
    for reason in methods::missing() {
        println!("\nNot measured: {reason}");
    }
    let over = table.over_limit(&methods);
    over.iter().for_each(|line| eprintln!("Error: {line}"));
    match over.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

//! What a wrapped call costs beside the bare one, libfiu and strace, in one run; COST.md has the table and says how to read it.
//!
//! The executable is two things: without a role it runs the comparison, with so many turns as an argument says, and prints the table; as `play CALLS ROUNDS DIRECTORY` it makes the calls
//! and prints, for each, the time in nanoseconds: the median round and the quickest one.
// Clippy does not see that a target with its own `main` is no library.
#![allow(clippy::unwrap_used)]

mod methods;
mod play;
mod table;

use std::{env, path::Path};

/// Processes for each method; the methods take turns, so that a busy minute does not fall on one of them alone.
const TURNS: usize = 7;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["play", calls, rounds, directory] = words[..] {
        let calls = calls.parse().unwrap();
        return play::run(calls, rounds.parse().unwrap(), Path::new(directory));
    }
    // cargo adds a word of its own.
    let turns = words.iter().find_map(|word| word.parse().ok());
    let turns = turns.unwrap_or(TURNS);
    let stage = methods::Stage::new();
    let methods = methods::all(&stage);
    let mut table = table::Table::default();
    for turn in 0..turns {
        for (place, method) in methods.iter().enumerate() {
            eprintln!("turn {} of {turns}: {}", turn + 1, method.name);
            table.add(place, method.run());
        }
    }
    let names: Vec<&str> = methods.iter().map(|method| method.name).collect();
    print!("{}", table.markdown(&names));
    for reason in methods::missing() {
        println!("\nNot measured: {reason}");
    }
}

//! Whether the loader takes the interposer into programs of this machine. It only warns where it does not, and goes on without.

use super::{ProgramError, environment};
use crate::faults::Plan;
use spillproof_faults::{Options, Shared};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The interposer's absolute path, once a process has joined through it.
pub(super) fn usable(interposer: &Path, mut probe: Command) -> Result<PathBuf, ProgramError> {
    let missing = |source| ProgramError::InterposerMissing {
        path: interposer.to_owned(),
        source,
    };
    let path = interposer.canonicalize().map_err(missing)?;
    let unloadable = |reason: String| ProgramError::InterposerUnloadable {
        path: path.clone(),
        reason,
    };
    if let Some(reason) = misfit(&path).map_err(missing)? {
        return Err(unloadable(reason));
    }
    let options = Options {
        ledger_rows: 1,
        trace_rows: 1,
        ..Options::default()
    };
    let (shared, file) = Shared::create(&Plan::default(), &options)?;
    let output = probe
        .envs(environment(&path, &file))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ProgramError::Start {
            program: probe.get_program().into(),
            source,
        })?;
    if shared.attachments().is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let reason = if said.is_empty() {
            format!(
                "{} ran without it, and the loader does not say why; is it an interposer?",
                probe.get_program().display()
            )
        } else {
            said.to_owned()
        };
        return Err(unloadable(reason));
    }
    Ok(path)
}

/// What is wrong with the file, where that can be told without loading it.
fn misfit(path: &Path) -> io::Result<Option<String>> {
    if path.to_string_lossy().contains([' ', ':']) {
        let reason =
            "LD_PRELOAD cannot carry a path with a blank or a colon; put the library elsewhere";
        return Ok(Some(reason.to_owned()));
    }
    let mut head = [0u8; 20];
    let read = File::open(path)?.take(head.len() as u64).read(&mut head)?;
    let [0x7f, b'E', b'L', b'F', class, ..] = head[..read] else {
        return Ok(Some("it is no ELF library; build it anew".to_owned()));
    };
    let own = usize::BITS;
    let found = match class {
        1 => 32,
        2 => 64,
        _ => 0,
    };
    Ok((found != own).then(|| {
        format!("it is of {found} bits, and programs here are of {own}; build it for this machine")
    }))
}

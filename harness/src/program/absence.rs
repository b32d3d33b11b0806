//! Why a program ran without what was preloaded, as far as its file tells.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// `PT_INTERP`: the loader that the program asks for.
const INTERPRETER: u32 = 3;

/// A sentence without an end.
pub(super) fn reason(program: &Path) -> String {
    let Some(path) = find(program) else {
        return format!("{} is not to be found any more", program.display());
    };
    let path = fs::canonicalize(&path).unwrap_or(path);
    let Ok(file) = fs::read(&path) else {
        return format!("{} cannot be read", path.display());
    };
    let name = path.display();
    let mode = fs::metadata(&path).map_or(0, |found| found.permissions().mode());
    match linked(&file) {
        Linked::Foreign => {
            format!(
                "{name} is no program of this machine's word size, and the loader of another does not take the interposer"
            )
        }
        Linked::Statically => {
            format!(
                "{name} is statically linked, so no loader takes the interposer; link it dynamically"
            )
        }
        Linked::Dynamically if mode & 0o6000 != 0 => {
            format!(
                "{name} is set-uid or set-gid, and the loader ignores LD_PRELOAD; run a copy without that bit"
            )
        }
        Linked::Dynamically | Linked::Script => {
            format!(
                "{name} did not load the interposer, or could not join by it; what it said stands above"
            )
        }
    }
}

/// How a program comes by its libraries.
#[derive(Debug, PartialEq, Eq)]
enum Linked {
    Dynamically,
    Statically,
    /// Of another word size.
    Foreign,
    /// Not a program itself.
    Script,
}

fn linked(file: &[u8]) -> Linked {
    if !file.starts_with(b"\x7fELF") {
        return Linked::Script;
    }
    if file.get(4) != Some(&2) {
        return Linked::Foreign;
    }
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum; Elf64_Phdr begins with p_type.
    let word = |at: usize, bytes: usize| -> Option<usize> {
        let field = file.get(at..at.checked_add(bytes)?)?;
        let mut value = [0u8; 8];
        value[..bytes].copy_from_slice(field);
        usize::try_from(u64::from_le_bytes(value)).ok()
    };
    let has_interpreter = || {
        let (start, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
        let mut kinds = (0..count).map(|index| word(start.checked_add(index * size)?, 4));
        Some(kinds.any(|kind| kind == Some(INTERPRETER as usize)))
    };
    match has_interpreter() {
        Some(true) => Linked::Dynamically,
        Some(false) | None => Linked::Statically,
    }
}

/// Where `execvp` finds a program.
fn find(program: &Path) -> Option<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Some(program.to_owned());
    }
    let places = env::var_os("PATH")?;
    env::split_paths(&places)
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    //! What a program's file says of it.
    use super::*;

    #[test]
    fn a_file_tells_how_it_is_linked() {
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        assert_eq!(linked(&own), Linked::Dynamically);
        let mut without = own[..64].to_vec();
        assert_eq!(linked(&without), Linked::Statically);
        without[4] = 1;
        assert_eq!(linked(&without), Linked::Foreign);
        assert_eq!(linked(b"#!/bin/sh\n"), Linked::Script);
        assert_eq!(linked(b""), Linked::Script);
    }

    #[test]
    fn headers_that_lead_nowhere_are_no_loader() {
        let mut wild = [0xff_u8; 64];
        wild[..5].copy_from_slice(b"\x7fELF\x02");
        assert_eq!(linked(&wild), Linked::Statically);
    }
}

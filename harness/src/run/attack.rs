//! Attacks on offload files, carried out; and taking away what they left.

use super::{
    reach::{Closed, Found, Ground, Refusal, Trophy},
    session::{Session, Stop},
};
use crate::{
    attack::{Attack, Place, Spot},
    case::Case,
    error::HarnessError,
    observation::total,
    probe::{self, FileEntry, FileKind},
    shadow::Shadow,
};
use spillproof_protocol::ManifestError;
use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Payloads start at multiples of this in files (E19).
const PAGE_BYTES: u64 = 4096;
/// Bytes by which a tensor is recognised in a file.
const SIGNATURE_BYTES: u64 = 64;
/// What a file is replaced with.
const OTHER_BYTE: u8 = 0xA5;

/// Offload files may be longer than the models in them by this much.
const SLACK_BYTES: u64 = 64 << 20;

/// What attacks leave behind.
#[derive(Debug, Default)]
pub(super) struct Spoils {
    /// Files that are the attacker's.
    files: Vec<Trophy>,
    /// What lost its permissions, in the order in which they were taken.
    closed: Vec<Closed>,
}

impl Spoils {
    /// Gives back what was taken, as far as it is still there and still as the attack left it.
    pub(super) fn give_permissions_back(&mut self) {
        self.closed.drain(..).rev().for_each(Closed::open);
    }

    /// Removes the attacker's own files, and nothing that the subject made since.
    pub(super) fn take_away(&mut self) {
        self.files.drain(..).for_each(Trophy::take_away);
    }
}

/// A run that stops early leaves nothing closed either.
impl Drop for Spoils {
    fn drop(&mut self) {
        self.give_permissions_back();
    }
}

/// A file with contents, and its path for people.
type Target = (PathBuf, Found);

impl Session<'_> {
    /// Does something to the files that are there now.
    pub(super) fn attack(&mut self, attack: &Attack) -> Result<(), Stop> {
        if *attack == Attack::GivePermissionsBack {
            self.spoils.give_permissions_back();
            return Ok(());
        }
        let directory = self.sandbox.offload_view();
        let ground = Ground::open(&directory).map_err(HarnessError::path("attack", &directory))?;
        let files = self.targets(&ground, &directory, has_contents)?;
        if files.is_empty() {
            let doubt = format!("attack: {attack}: there is no offload file");
            self.run.doubts.push(doubt);
            return Ok(());
        }
        match attack {
            Attack::Unlink => {
                for (path, file) in &files {
                    file.unlink().map_err(failed(path))?;
                }
            }
            Attack::Rename => {
                for (path, file) in &files {
                    let renamed = file.rename().map_err(failed(path))?;
                    self.spoils.files.push(renamed);
                }
            }
            Attack::Replace | Attack::ReplaceByCopy => {
                if !self.are_within_bounds(attack, &files)? {
                    return Ok(());
                }
                for (path, file) in &files {
                    let replaced = replace(file, *attack == Attack::ReplaceByCopy);
                    self.spoils.files.push(replaced.map_err(failed(path))?);
                }
            }
            Attack::Cut { at } => {
                if let Some((path, file, offset)) = self.locate(attack, at, &files)? {
                    file.set_len(offset).map_err(failed(&path))?;
                }
            }
            Attack::Flip { at } => {
                if let Some((path, file, offset)) = self.locate(attack, at, &files)? {
                    flip(&file, offset).map_err(failed(&path))?;
                }
            }
            Attack::Grow => {
                for (path, file) in &files {
                    let file = file.open(true);
                    file.and_then(|file| file.set_len(file.metadata()?.len() + PAGE_BYTES))
                        .map_err(failed(path))?;
                }
            }
            Attack::RemoveDirectories => ground.empty().map_err(failed(&directory))?,
            Attack::TakePermissions => {
                let all = self.targets(&ground, &directory, |_| true)?;
                // What is in a directory comes after it.
                for (path, found) in all.into_iter().rev() {
                    let closed = found.close().map_err(failed(&path))?;
                    self.spoils.closed.push(closed);
                }
            }
            Attack::GivePermissionsBack => {}
        }
        Ok(())
    }

    /// Files and directories below the offload directory, in the order of their paths. What leads out of it is left
    /// alone, which is a doubt.
    fn targets(
        &mut self,
        ground: &Ground,
        directory: &Path,
        wanted: impl Fn(&FileEntry) -> bool,
    ) -> Result<Vec<Target>, Stop> {
        let entries = probe::files(directory)?.entries.into_iter();
        let entries = entries.filter(|(_, entry)| match entry.kind {
            FileKind::File | FileKind::Directory => wanted(entry),
            FileKind::Link | FileKind::Special => false,
        });
        let mut targets = Vec::new();
        for (inside, _) in entries {
            let path = directory.join(&inside);
            match ground.find(&inside).map_err(failed(&path))? {
                Ok(found) => targets.push((path, found)),
                Err(Refusal::Gone) => {}
                Err(Refusal::Foreign) => self.run.doubts.push(format!(
                    "attack: {} leads out of the case's directory, or has another name; it is left alone",
                    inside.display()
                )),
            }
        }
        Ok(targets)
    }

    /// Whether the files are no longer than the models account for; if not, reading or writing them could take for ever,
    /// which is a doubt.
    fn are_within_bounds(&mut self, attack: &Attack, files: &[Target]) -> Result<bool, Stop> {
        let excess = excess(&self.run.case, files)?;
        let doubt = excess.map(|excess| format!("attack: {attack}: {excess}"));
        let within = doubt.is_none();
        self.run.doubts.extend(doubt);
        Ok(within)
    }

    /// The file and the offset in it of a place; none when no file has the tensor's contents, which is a doubt.
    fn locate(
        &mut self,
        attack: &Attack,
        at: &Place,
        files: &[Target],
    ) -> Result<Option<(PathBuf, File, u64)>, Stop> {
        if !self.are_within_bounds(attack, files)? {
            return Ok(None);
        }
        let broken = |error: ManifestError| HarnessError::Case(error.to_string());
        let model = self.model(&at.model)?;
        let manifest = &model.manifest;
        let tensor = manifest.tensors.iter().find(|one| one.name == at.tensor);
        let tensor = tensor.ok_or_else(|| HarnessError::Case(format!("there is no {at}")))?;
        let span_bytes = tensor.span_bytes().map_err(broken)?;
        let mut signature = vec![0; span_bytes.min(SIGNATURE_BYTES) as usize];
        let storage = manifest.storage_of(tensor).map_err(broken)?;
        let written = storage.fill.write(tensor.byte_offset, &mut signature);
        written.map_err(|error| broken(error.into()))?;
        for (path, file) in files {
            let file = file.open(true).map_err(failed(path))?;
            let found = find(&file, &signature).map_err(HarnessError::path("read", path))?;
            let Some(start) = found else { continue };
            let offset = match at.spot {
                Spot::First => start,
                Spot::Middle => start + span_bytes / 2 / PAGE_BYTES * PAGE_BYTES,
                Spot::Last => start + span_bytes - 1,
            };
            return Ok(Some((path.clone(), file, offset)));
        }
        let doubt = format!("attack: the contents of {at} are in no offload file");
        self.run.doubts.push(doubt);
        Ok(None)
    }

    /// File bytes that an attack justifies: everything that is loaded may have to be written once more.
    pub(super) fn rewritten_bytes(&self) -> Result<u64, Stop> {
        let mut bytes = 0;
        for shadow in self.shadows.values() {
            let file_bytes = shadow.file_bytes();
            bytes += file_bytes.map_err(|error| HarnessError::Case(error.to_string()))?;
        }
        Ok(bytes)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> HarnessError {
    HarnessError::path("attack", path)
}

fn has_contents(entry: &FileEntry) -> bool {
    entry.kind == FileKind::File && entry.bytes > 0
}

/// What offload files of the case's models may be long: each model twice, as where an older state is still held.
fn bound_bytes(case: &Case) -> u64 {
    let models = case.models.iter().map(Shadow::new);
    let models_bytes = total(models.filter_map(|model| model.file_bytes().ok()));
    models_bytes.saturating_mul(2).saturating_add(SLACK_BYTES)
}

/// What is said of files that are longer than the case's models account for.
fn excess(case: &Case, files: &[Target]) -> Result<Option<String>, HarnessError> {
    let mut lengths = Vec::new();
    for (path, file) in files {
        lengths.push(file.metadata().map_err(failed(path))?.len());
    }
    let (bytes, bound_bytes) = (total(lengths.into_iter()), bound_bytes(case));
    Ok((bytes > bound_bytes).then(|| {
        format!(
            "offload files are {bytes} bytes long, the case's models account for {bound_bytes}; they are left alone"
        )
    }))
}

/// Puts another file of the same length in the place of one.
fn replace(file: &Found, by_copy: bool) -> io::Result<Trophy> {
    let metadata = file.metadata()?;
    let bytes = metadata.len();
    file.replace(|mut other| {
        if by_copy {
            io::copy(&mut file.open(false)?.take(bytes), &mut other)?;
            return other.set_permissions(metadata.permissions());
        }
        let (block, mut at) = ([OTHER_BYTE; 1 << 16], 0);
        while at < bytes {
            let length = (bytes - at).min(block.len() as u64);
            other.write_all_at(&block[..length as usize], at)?;
            at += length;
        }
        Ok(())
    })
}

fn flip(file: &File, offset: u64) -> io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset)
}

/// The first page of a file that begins with `signature`.
fn find(file: &File, signature: &[u8]) -> io::Result<Option<u64>> {
    let bytes = file.metadata()?.len();
    let mut beginning = vec![0; signature.len()];
    let mut at = 0;
    while at + signature.len() as u64 <= bytes {
        file.read_exact_at(&mut beginning, at)?;
        if beginning == signature {
            return Ok(Some(at));
        }
        at += PAGE_BYTES;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    //! What attacks do to files, by the file, and what they leave.
    use super::*;
    use crate::{
        case::{Expect, Gpu, Limits},
        world::World,
    };
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    fn found(directory: &Path, name: &str) -> Found {
        let ground = Ground::open(directory).unwrap();
        ground.find(Path::new(name)).unwrap().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_replaced_file_has_its_length_and_a_copy_has_its_bytes_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.spill");
        fs::write(&path, vec![7; 100_000]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let trophy = replace(&found(directory.path(), "m.spill"), true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), vec![7; 100_000]);
        assert_eq!(mode(&path), 0o640);
        drop(trophy);
        let trophy = replace(&found(directory.path(), "m.spill"), false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), vec![OTHER_BYTE; 100_000]);
        assert_eq!(mode(&path), 0o600);
        trophy.take_away();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tensor_is_found_at_the_start_of_its_page() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 3 * PAGE_BYTES as usize];
        bytes[2 * PAGE_BYTES as usize..][..4].copy_from_slice(b"here");
        fs::write(directory.path().join("m.spill"), bytes).unwrap();
        let file = found(directory.path(), "m.spill").open(true).unwrap();
        assert_eq!(find(&file, b"here").unwrap(), Some(2 * PAGE_BYTES));
        assert_eq!(find(&file, b"gone").unwrap(), None);
        flip(&file, 2 * PAGE_BYTES).unwrap();
        assert_eq!(find(&file, b"xere").unwrap(), Some(2 * PAGE_BYTES));
    }

    #[test]
    fn files_longer_than_the_models_account_for_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.spill");
        let file = File::create(&path).unwrap();
        let case = Case {
            family: "f",
            name: "n".into(),
            models: Vec::new(),
            gpu: Gpu::with_vram(0),
            device_name: None,
            settings: Vec::new(),
            open: Expect::Ok,
            steps: Vec::new(),
            limits: Limits::default(),
            requires: Vec::new(),
            world: World::default(),
            path: None,
            faults: None,
            pace: crate::case::Pace::default(),
        };
        let excess_of = |bytes| {
            file.set_len(bytes).unwrap();
            let target = (path.clone(), found(directory.path(), "m.spill"));
            excess(&case, &[target]).unwrap()
        };
        assert_eq!(excess_of(SLACK_BYTES), None);
        let told = excess_of(1 << 40).unwrap();
        assert!(told.contains("1099511627776 bytes long"), "{told}");
    }

    #[test]
    fn permissions_come_back_even_when_a_run_stops_early() {
        let directory = tempfile::tempdir().unwrap();
        let (sub, path) = (directory.path().join("sub"), directory.path().join("sub/a"));
        fs::create_dir(&sub).unwrap();
        fs::write(&path, "x").unwrap();
        let modes = (mode(&sub), mode(&path));
        let mut spoils = Spoils::default();
        for name in ["sub/a", "sub"] {
            let found = found(directory.path(), name);
            spoils.closed.push(found.close().unwrap());
        }
        assert_eq!(mode(&sub), 0);
        drop(spoils);
        assert_eq!((mode(&sub), mode(&path)), modes);
    }
}

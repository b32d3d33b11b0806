//! Attacks on offload files, carried out; and taking away what they left.

use super::session::{Session, Stop};
use crate::{
    attack::{Attack, Place, Spot},
    error::HarnessError,
    probe::{self, FileKind},
};
use spillproof_protocol::ManifestError;
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Payloads start at multiples of this in files (E19).
const PAGE_BYTES: u64 = 4096;
/// Bytes by which a tensor is recognised in a file.
const SIGNATURE_BYTES: u64 = 64;
/// What a file is replaced with.
const OTHER_BYTE: u8 = 0xA5;

/// What attacks leave behind.
#[derive(Debug, Default)]
pub(super) struct Spoils {
    /// Files that are the attacker's, by path and inode.
    files: Vec<(PathBuf, u64)>,
    /// What had which permissions, in the order in which they were taken.
    modes: Vec<(PathBuf, u32)>,
}

impl Spoils {
    fn keep(&mut self, path: &Path) -> io::Result<()> {
        let inode = fs::symlink_metadata(path)?.ino();
        self.files.push((path.to_owned(), inode));
        Ok(())
    }

    /// Gives back what was taken, as far as it is still there and still as the attack left it.
    pub(super) fn give_permissions_back(&mut self) {
        for (path, mode) in self.modes.drain(..).rev() {
            let unchanged = fs::symlink_metadata(&path)
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == 0);
            if unchanged {
                // Fails only where it is gone meanwhile.
                let _ = fs::set_permissions(&path, Permissions::from_mode(mode));
            }
        }
    }

    /// Removes the attacker's own files, and nothing that the subject made since.
    pub(super) fn take_away(&mut self) {
        for (path, inode) in self.files.drain(..) {
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
                // What cannot be removed shows in the reading of the directory.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

impl Session<'_> {
    /// Does something to the files that are there now.
    pub(super) fn attack(&mut self, attack: &Attack) -> Result<(), Stop> {
        let files = self.offload_files()?;
        if *attack == Attack::GivePermissionsBack {
            self.spoils.give_permissions_back();
            return Ok(());
        }
        if files.is_empty() {
            let doubt = format!("attack: {attack}: there is no offload file");
            self.run.doubts.push(doubt);
            return Ok(());
        }
        match attack {
            Attack::Unlink => {
                for path in &files {
                    fs::remove_file(path).map_err(failed(path))?;
                }
            }
            Attack::Rename => {
                for path in &files {
                    let renamed = path.with_extension("renamed");
                    let rename = fs::rename(path, &renamed);
                    rename
                        .and_then(|()| self.spoils.keep(&renamed))
                        .map_err(failed(path))?;
                }
            }
            Attack::Replace | Attack::ReplaceByCopy => {
                for path in &files {
                    replace(path, *attack == Attack::ReplaceByCopy)
                        .and_then(|()| self.spoils.keep(path))
                        .map_err(failed(path))?;
                }
            }
            Attack::Cut { at } => {
                if let Some((path, offset)) = self.locate(at, &files)? {
                    let file = OpenOptions::new().write(true).open(&path);
                    file.and_then(|file| file.set_len(offset))
                        .map_err(failed(&path))?;
                }
            }
            Attack::Flip { at } => {
                if let Some((path, offset)) = self.locate(at, &files)? {
                    flip(&path, offset).map_err(failed(&path))?;
                }
            }
            Attack::Grow => {
                for path in &files {
                    let file = OpenOptions::new().write(true).open(path);
                    file.and_then(|file| file.set_len(file.metadata()?.len() + PAGE_BYTES))
                        .map_err(failed(path))?;
                }
            }
            Attack::RemoveDirectories => {
                let directory = self.sandbox.offload_dir();
                empty(&directory).map_err(failed(&directory))?;
            }
            Attack::TakePermissions => self.take_permissions()?,
            Attack::GivePermissionsBack => {}
        }
        Ok(())
    }

    /// Files with contents below the offload directory.
    fn offload_files(&self) -> Result<Vec<PathBuf>, Stop> {
        let directory = self.sandbox.offload_dir();
        let entries = probe::files(&directory)?.entries.into_iter();
        let files = entries.filter(|(_, entry)| entry.kind == FileKind::File && entry.bytes > 0);
        Ok(files.map(|(path, _)| directory.join(path)).collect())
    }

    /// The file and the offset in it of a place; none when no file has the tensor's contents, which is a doubt.
    fn locate(&mut self, at: &Place, files: &[PathBuf]) -> Result<Option<(PathBuf, u64)>, Stop> {
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
        for path in files {
            let found = find(path, &signature).map_err(HarnessError::path("read", path))?;
            let Some(start) = found else { continue };
            let offset = match at.spot {
                Spot::First => start,
                Spot::Middle => start + span_bytes / 2 / PAGE_BYTES * PAGE_BYTES,
                Spot::Last => start + span_bytes - 1,
            };
            return Ok(Some((path.clone(), offset)));
        }
        let doubt = format!("attack: the contents of {at} are in no offload file");
        self.run.doubts.push(doubt);
        Ok(None)
    }

    fn take_permissions(&mut self) -> Result<(), Stop> {
        let directory = self.sandbox.offload_dir();
        // What is in a directory comes after it.
        let entries = probe::files(&directory)?.entries.into_iter().rev();
        for (path, entry) in entries {
            let path = directory.join(path);
            fs::set_permissions(&path, Permissions::from_mode(0o0))
                .map_err(HarnessError::path("take the permissions of", &path))?;
            self.spoils.modes.push((path, entry.mode));
        }
        Ok(())
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

/// Puts another file of the same length in the place of one.
fn replace(path: &Path, by_copy: bool) -> io::Result<()> {
    let other = path.with_extension("other");
    if by_copy {
        fs::copy(path, &other)?;
    } else {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&other)?;
        let (bytes, block) = (fs::metadata(path)?.len(), [OTHER_BYTE; 1 << 16]);
        let mut at = 0;
        while at < bytes {
            let length = (bytes - at).min(block.len() as u64);
            file.write_all_at(&block[..length as usize], at)?;
            at += length;
        }
    }
    fs::rename(other, path)
}

fn flip(path: &Path, offset: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset)
}

/// The first page of a file that begins with `signature`.
fn find(path: &Path, signature: &[u8]) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
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

/// Removes everything in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

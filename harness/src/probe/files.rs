//! What lies in a directory.

use super::ProbeError;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// What an entry is; links are told, not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, a pipe or a device.
    Special,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its length.
    pub bytes: u64,
    /// What it takes on the disk.
    pub allocated_bytes: u64,
    /// Permission bits, set-user-id, set-group-id and sticky included.
    pub mode: u32,
    /// What it is.
    pub kind: FileKind,
    /// When its contents last changed, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Its inode: another one under the same name is another file.
    pub inode: u64,
}

/// Every entry below a directory, by its path within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesReading {
    /// The entries; the directory itself is not among them.
    pub entries: BTreeMap<PathBuf, FileEntry>,
}

impl FilesReading {
    /// Lengths of all regular files together.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.entries
            .values()
            .filter(|entry| entry.kind == FileKind::File)
            .map(|entry| entry.bytes)
            .sum()
    }
}

/// Walks a directory without following links; entries that vanish meanwhile are left out.
///
/// # Errors
/// The directory itself is missing, or one below cannot be read.
pub fn files(directory: &Path) -> Result<FilesReading, ProbeError> {
    let mut reading = FilesReading::default();
    let mut pending = vec![PathBuf::new()];
    while let Some(inside) = pending.pop() {
        let path = directory.join(&inside);
        let unreadable = |source| ProbeError::Unreadable {
            what: path.display().to_string(),
            source,
        };
        let listing = match fs::read_dir(&path) {
            // An attack may have closed it; that it is there is told.
            Err(error) if is_withheld(&error) && inside != Path::new("") => continue,
            listing => listing.map_err(unreadable)?,
        };
        for entry in listing {
            let entry = entry.map_err(unreadable)?;
            let metadata = match entry.metadata() {
                Err(error) if vanished(&error) => continue,
                metadata => metadata.map_err(unreadable)?,
            };
            let kind = kind(metadata.file_type());
            let inside = inside.join(entry.file_name());
            if kind == FileKind::Directory {
                pending.push(inside.clone());
            }
            let entry = FileEntry {
                bytes: metadata.len(),
                allocated_bytes: metadata.blocks() * 512,
                mode: metadata.mode() & 0o7777,
                kind,
                modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                    + i128::from(metadata.mtime_nsec()),
                inode: metadata.ino(),
            };
            reading.entries.insert(inside, entry);
        }
    }
    Ok(reading)
}

fn is_withheld(error: &io::Error) -> bool {
    vanished(error) || error.kind() == io::ErrorKind::PermissionDenied
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_symlink() {
        FileKind::Link
    } else if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_socket()
        || file_type.is_fifo()
        || file_type.is_char_device()
        || file_type.is_block_device()
    {
        FileKind::Special
    } else {
        FileKind::File
    }
}

#[cfg(test)]
mod tests {
    //! Modes, sizes and links as they lie on the disk.
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn modes_sizes_and_inodes_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let path = directory.path().join("sub/data");
        fs::write(&path, vec![1; 5000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let reading = files(directory.path()).unwrap();
        let entry = &reading.entries[Path::new("sub/data")];
        assert_eq!((entry.bytes, entry.mode), (5000, 0o640));
        assert_eq!(entry.kind, FileKind::File);
        assert_eq!(entry.inode, fs::metadata(&path).unwrap().ino());
        assert_eq!(reading.entries[Path::new("sub")].kind, FileKind::Directory);
        assert_eq!((reading.entries.len(), reading.file_bytes()), (2, 5000));
    }

    #[test]
    fn reserved_but_unwritten_space_is_told_from_length() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs::File::create(directory.path().join("sparse")).unwrap();
        file.set_len(1 << 20).unwrap();
        let entry = &files(directory.path()).unwrap().entries[Path::new("sparse")];
        assert_eq!((entry.bytes, entry.allocated_bytes), (1 << 20, 0));
    }

    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let directory = tempfile::tempdir().unwrap();
        symlink(outside.path(), directory.path().join("out")).unwrap();
        symlink(".", directory.path().join("loop")).unwrap();
        let reading = files(directory.path()).unwrap();
        let kinds: Vec<_> = reading.entries.values().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [FileKind::Link, FileKind::Link]);
    }

    #[test]
    fn a_replaced_file_differs_from_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        fs::write(&path, "one").unwrap();
        let before = files(directory.path()).unwrap();
        let next = directory.path().join("next");
        fs::write(&next, "two").unwrap();
        fs::rename(next, &path).unwrap();
        assert_ne!(before, files(directory.path()).unwrap());
    }

    #[test]
    fn a_missing_directory_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(matches!(
            files(&missing),
            Err(ProbeError::Unreadable { what, .. }) if what.contains("missing")
        ));
    }
}

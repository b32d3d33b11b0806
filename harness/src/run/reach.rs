//! Files of a subject as the harness may touch them: never through a name that leads elsewhere.
//!
//! The directory is the subject's own: a link may stand where a file or a directory stood a moment ago, and a file may have
//! another name outside. So every path is resolved beneath the directory without links (`openat2`, Linux 5.6), what it
//! names is looked at by its descriptor, and every change goes through that descriptor.

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
};
use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// A descriptor that only names what it was opened for.
#[derive(Debug)]
struct Named(OwnedFd);

impl Named {
    fn open(at: impl AsFd, path: &Path, resolve: ResolveFlag) -> nix::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(resolve);
        openat2(at, path, how).map(Self)
    }

    /// A path to the very thing, whatever happens to its names.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self.path())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), Permissions::from_mode(mode))
    }
}

/// Why something is left alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is gone.
    Gone,
    /// Its path leads through a link, it is neither a file nor a directory, or it has another name that may lie outside.
    Foreign,
}

/// The directory that everything happens in.
#[derive(Debug)]
pub(super) struct Ground(Named);

/// A regular file with one name, or a directory.
#[derive(Debug)]
pub(super) struct Found {
    named: Named,
    parent: Named,
    name: PathBuf,
}

/// The name of a file that the attacker made, and which file it is.
#[derive(Debug)]
pub(super) struct Trophy {
    parent: Named,
    name: PathBuf,
    device: u64,
    inode: u64,
}

impl Ground {
    /// Opens a directory; no part of its path may be a link, unless it begins at a descriptor of ours.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let inside = directory
            .strip_prefix("/proc/self/fd")
            .ok()
            .and_then(|rest| Some(rest.components().next()?.as_os_str().to_owned()));
        let named = match inside {
            Some(descriptor) => {
                let ours = Path::new("/proc/self/fd").join(descriptor);
                let rest = directory.strip_prefix(&ours).unwrap_or(directory);
                let ours = OpenOptions::new()
                    .read(true)
                    .custom_flags(OFlag::O_PATH.bits())
                    .open(&ours)?;
                Named::open(ours, rest, beneath())?
            }
            None => Named::open(AT_FDCWD, directory, ResolveFlag::RESOLVE_NO_SYMLINKS)?,
        };
        if !named.metadata()?.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(Self(named))
    }

    /// What lies at a path within.
    pub(super) fn find(&self, path: &Path) -> io::Result<Result<Found, Refusal>> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Err(Refusal::Foreign));
        };
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        let opened = Named::open(&self.0.0, above, beneath()).and_then(|parent| {
            let named = Named::open(&parent.0, Path::new(name), beneath())?;
            Ok((parent, named))
        });
        let (parent, named) = match opened {
            Ok(opened) => opened,
            Err(Errno::ENOENT) => return Ok(Err(Refusal::Gone)),
            Err(Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR) => return Ok(Err(Refusal::Foreign)),
            Err(error) => return Err(error.into()),
        };
        let metadata = named.metadata()?;
        if metadata.is_file() && metadata.nlink() == 0 {
            return Ok(Err(Refusal::Gone));
        }
        let ours = metadata.is_dir() || metadata.is_file() && metadata.nlink() == 1;
        Ok(ours
            .then_some(Found {
                named,
                parent,
                name: name.into(),
            })
            .ok_or(Refusal::Foreign))
    }

    /// Removes everything in it; links are removed, not followed.
    pub(super) fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.0.path())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Found {
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.named.metadata()
    }

    /// The file itself, whatever its name means now.
    pub(super) fn open(&self, write: bool) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(write)
            .open(self.named.path())
    }

    pub(super) fn unlink(&self) -> io::Result<()> {
        fs::remove_file(self.place())
    }

    /// Gives it a name that nobody can foresee.
    pub(super) fn rename(&self) -> io::Result<Trophy> {
        let name = fresh_name("renamed");
        fs::rename(self.place(), self.parent.path().join(&name))?;
        self.trophy(name)
    }

    /// Puts a new file in its place, which `write` fills.
    pub(super) fn replace(
        &self,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Trophy> {
        let path = self.parent.path().join(fresh_name("other"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let other = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path)?;
        let replaced = write(&other).and_then(|()| fs::rename(&path, self.place()));
        if let Err(error) = replaced {
            // The name is ours alone; what is wrong is told already.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        self.trophy(self.name.clone())
    }

    /// Takes all permissions; the answer gives them back.
    pub(super) fn close(self) -> io::Result<Closed> {
        let mode = self.metadata()?.permissions().mode() & 0o7777;
        self.named.set_mode(0)?;
        Ok(Closed {
            named: self.named,
            mode,
        })
    }

    fn place(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    fn trophy(&self, name: PathBuf) -> io::Result<Trophy> {
        let parent = Named(self.parent.0.try_clone()?);
        let metadata = fs::symlink_metadata(parent.path().join(&name))?;
        Ok(Trophy {
            parent,
            name,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Trophy {
    /// Removes it, unless somebody else's file is there by now.
    pub(super) fn take_away(self) {
        let path = self.parent.path().join(&self.name);
        let is_ours = |found: Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&path).is_ok_and(is_ours) {
            // What cannot be removed shows in the reading of the directory.
            let _ = fs::remove_file(path);
        }
    }
}

/// What lost its permissions.
#[derive(Debug)]
pub(super) struct Closed {
    named: Named,
    mode: u32,
}

impl Closed {
    /// Gives them back, as far as it is still as the attack left it.
    pub(super) fn open(self) {
        let is_closed = |found: Metadata| found.permissions().mode() & 0o7777 == 0;
        if self.named.metadata().is_ok_and(is_closed) {
            // What stays closed shows in the reading of the directory.
            let _ = self.named.set_mode(self.mode);
        }
    }
}

fn beneath() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

fn fresh_name(extension: &str) -> PathBuf {
    // Keys of the standard library's hashes are random.
    let number = RandomState::new().build_hasher().finish();
    PathBuf::from(format!("{number:016x}.{extension}"))
}

#[cfg(test)]
mod tests {
    //! Names that lead elsewhere: nothing outside the directory is changed through them.
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn directories() -> (TempDir, TempDir) {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("theirs"), "theirs").unwrap();
        (inside, outside)
    }

    fn find(inside: &TempDir, path: &str) -> Result<Found, Refusal> {
        let ground = Ground::open(inside.path()).unwrap();
        ground.find(Path::new(path)).unwrap()
    }

    #[test]
    fn links_are_left_alone_wherever_they_lead() {
        let (inside, outside) = directories();
        symlink(outside.path(), inside.path().join("current")).unwrap();
        symlink("nowhere", inside.path().join("dangling")).unwrap();
        symlink(outside.path().join("theirs"), inside.path().join("file")).unwrap();
        for path in ["current", "current/theirs", "dangling", "file", "../x"] {
            let refusal = find(&inside, path).unwrap_err();
            assert_eq!(refusal, Refusal::Foreign, "{path}");
        }
        assert_eq!(find(&inside, "missing").unwrap_err(), Refusal::Gone);
    }

    #[test]
    fn a_file_with_a_name_outside_is_left_alone() {
        let (inside, outside) = directories();
        fs::hard_link(outside.path().join("theirs"), inside.path().join("shared")).unwrap();
        assert_eq!(find(&inside, "shared").unwrap_err(), Refusal::Foreign);
    }

    #[test]
    fn pipes_are_left_alone() {
        let (inside, _outside) = directories();
        let path = inside.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(find(&inside, "pipe").unwrap_err(), Refusal::Foreign);
    }

    #[test]
    fn a_link_put_in_the_place_of_what_was_found_is_not_followed() {
        let (inside, outside) = directories();
        let (sub, moved) = (inside.path().join("sub"), inside.path().join("moved"));
        fs::create_dir(&sub).unwrap();
        for name in ["theirs", "b", "c"] {
            fs::write(sub.join(name), "ours").unwrap();
        }
        let [taken, renamed, replaced, directory] =
            ["sub/theirs", "sub/b", "sub/c", "sub"].map(|path| find(&inside, path).unwrap());
        fs::rename(&sub, &moved).unwrap();
        symlink(outside.path(), &sub).unwrap();
        let mode = fs::metadata(outside.path()).unwrap().mode();
        directory.close().unwrap().open();
        taken.unlink().unwrap();
        renamed.rename().unwrap().take_away();
        replaced.replace(|_| Ok(())).unwrap();
        assert_eq!(fs::metadata(outside.path()).unwrap().mode(), mode);
        let theirs = fs::read_to_string(outside.path().join("theirs")).unwrap();
        assert_eq!(theirs, "theirs");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        let left = fs::read_dir(moved)
            .unwrap()
            .map(|one| one.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn emptying_removes_links_and_not_what_they_lead_to() {
        let (inside, outside) = directories();
        symlink(outside.path(), inside.path().join("current")).unwrap();
        fs::create_dir(inside.path().join("sub")).unwrap();
        symlink(outside.path(), inside.path().join("sub/current")).unwrap();
        Ground::open(inside.path()).unwrap().empty().unwrap();
        assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 0);
        assert!(outside.path().join("theirs").exists());
    }

    #[test]
    fn a_directory_that_is_a_link_is_no_ground() {
        let (inside, outside) = directories();
        let link = inside.path().join("offload");
        symlink(outside.path(), &link).unwrap();
        assert!(Ground::open(&link).is_err());
        let through = File::open(inside.path()).unwrap();
        let view = format!("/proc/self/fd/{}", through.as_raw_fd());
        assert!(Ground::open(&Path::new(&view).join("offload")).is_err());
        fs::create_dir(inside.path().join("real")).unwrap();
        Ground::open(&Path::new(&view).join("real")).unwrap();
    }

    #[test]
    fn another_file_under_the_attackers_name_stays() {
        let (inside, _outside) = directories();
        let path = inside.path().join("a");
        fs::write(&path, "ours").unwrap();
        let trophy = find(&inside, "a").unwrap().replace(|_| Ok(())).unwrap();
        fs::write(inside.path().join("next"), "the subject's").unwrap();
        fs::rename(inside.path().join("next"), &path).unwrap();
        trophy.take_away();
        assert_eq!(fs::read_to_string(path).unwrap(), "the subject's");
    }
}

//! What a subject enters before it becomes the program: a cgroup, and a mount namespace with a volume of its own.
//!
//! Runs between fork and exec: every string and structure is made before, and only system calls are made then. With
//! the right to mount, a mount namespace is enough; without it, a user namespace in which the user keeps its ids gives that
//! right. Both end with the last process in them, volume included.
#![allow(unsafe_code)]

use super::Volume;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, fchmodat, mkdirat},
    unistd::{getegid, geteuid, write},
};
use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE` and `LO_FLAGS_AUTOCLEAR` of the kernel's include/uapi/linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Others may take the free loop device between being told of it and taking it.
const LOOP_TRIES: u32 = 64;

/// A subject's surroundings, ready to be entered.
#[derive(Clone, Debug, Default)]
pub struct Enclosure {
    members: Option<CString>,
    mount: Option<Mounted>,
}

#[derive(Clone, Debug)]
struct Mounted {
    point: CString,
    directory: CString,
    identity: Identity,
    what: What,
}

/// The lines of `uid_map` and `gid_map` that leave the user who it is.
#[derive(Clone, Debug)]
struct Identity {
    uid: String,
    gid: String,
}

#[derive(Clone, Debug)]
enum What {
    Tmpfs { options: CString },
    Image { path: CString },
}

impl Enclosure {
    /// Also joins the cgroup whose `cgroup.procs` this is.
    #[must_use]
    pub fn in_group(mut self, members: &Path) -> Self {
        self.members = c_string(members.as_os_str()).ok();
        self
    }

    /// Also mounts `volume` at `point`, with the directory `directory` in it. `image` is the filesystem of a small disk.
    ///
    /// # Errors
    /// A path with a zero byte in it.
    pub fn with_volume(
        mut self,
        volume: Volume,
        point: &Path,
        directory: &Path,
        image: &Path,
    ) -> io::Result<Self> {
        let what = match volume {
            Volume::Disk | Volume::Memory => return Ok(self),
            Volume::SmallMemory { bytes } => What::Tmpfs {
                options: c_string(format!("size={bytes},mode=0700").as_ref())?,
            },
            Volume::SmallDisk { .. } => What::Image {
                path: c_string(image.as_os_str())?,
            },
        };
        let (uid, gid) = (geteuid(), getegid());
        self.mount = Some(Mounted {
            point: c_string(point.as_os_str())?,
            directory: c_string(directory.as_os_str())?,
            identity: Identity {
                uid: format!("{uid} {uid} 1"),
                gid: format!("{gid} {gid} 1"),
            },
            what,
        });
        Ok(self)
    }

    /// Whether there is a volume that only those inside see.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.mount.is_some()
    }

    /// Enters. To be called in a freshly forked process of one thread.
    ///
    /// # Errors
    /// The first refusal of the kernel.
    pub fn enter(&self) -> io::Result<()> {
        if let Some(members) = &self.members {
            write_all(members, b"0")?;
        }
        let Some(mounted) = &self.mount else {
            return Ok(());
        };
        mounted.identity.unshare()?;
        // Nothing mounted here may be seen elsewhere.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&CStr>, c"/", None::<&CStr>, private, None::<&CStr>)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let point = mounted.point.as_c_str();
        match &mounted.what {
            What::Tmpfs { options } => {
                let options = Some(options.as_c_str());
                mount(Some(c"tmpfs"), point, Some(c"tmpfs"), flags, options)?;
            }
            What::Image { path } => {
                let device = loop_device(path)?;
                let device = Some(device.path());
                mount(device, point, Some(c"ext4"), flags, None::<&CStr>)?;
            }
        }
        let directory = mounted.directory.as_c_str();
        mkdirat(nix::fcntl::AT_FDCWD, directory, Mode::S_IRWXU)?;
        // Whatever the umask is.
        let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
        fchmodat(nix::fcntl::AT_FDCWD, directory, Mode::S_IRWXU, follow)?;
        Ok(())
    }
}

impl Identity {
    fn unshare(&self) -> io::Result<()> {
        match unshare(CloneFlags::CLONE_NEWNS) {
            Ok(()) => return Ok(()),
            Err(Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        // Without this the group may not be mapped (user_namespaces(7)).
        write_all(c"/proc/self/setgroups", b"deny")?;
        write_all(c"/proc/self/uid_map", self.uid.as_bytes())?;
        write_all(c"/proc/self/gid_map", self.gid.as_bytes())
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn write_all(path: &CStr, text: &[u8]) -> io::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // These files take a line in one call or not at all.
    write(&file, text)?;
    Ok(())
}

/// `/dev/loopN`, and the descriptor that keeps it attached until it is mounted.
struct LoopDevice {
    path: [u8; 24],
    _attached: OwnedFd,
}

impl LoopDevice {
    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.path).unwrap_or(c"")
    }
}

/// Attaches the image to a free loop device, which detaches itself when it is no longer mounted.
fn loop_device(image: &CStr) -> io::Result<LoopDevice> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let image = open(image, flags, Mode::empty())?;
    let control = open(c"/dev/loop-control", flags, Mode::empty())?;
    let mut refusal = Errno::EBUSY;
    for _ in 0..LOOP_TRIES {
        // SAFETY: the call takes no argument and returns a number.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = device_path(number.unsigned_abs());
        let device = open(
            CStr::from_bytes_until_nul(&path).unwrap_or(c""),
            flags,
            Mode::empty(),
        )?;
        let config = LoopConfig::of(image.as_fd().as_raw_fd());
        // SAFETY: the structure is of the kernel's layout and outlives the call.
        let configured =
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        match Errno::result(configured) {
            Ok(_) => {
                return Ok(LoopDevice {
                    path,
                    _attached: device,
                });
            }
            Err(Errno::EBUSY) => refusal = Errno::EBUSY,
            Err(error) => return Err(error.into()),
        }
    }
    Err(refusal.into())
}

/// `/dev/loopN` without an allocation.
fn device_path(number: u32) -> [u8; 24] {
    let mut path = [0; 24];
    let name = b"/dev/loop";
    path[..name.len()].copy_from_slice(name);
    let mut digits = [0; 10];
    let (mut rest, mut count) = (number, 0);
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        path[name.len() + at] = *digit;
    }
    path
}

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// `lo_device` to `lo_sizelimit`.
    places: [u64; 5],
    /// `lo_number` to `lo_encrypt_key_size`.
    numbers: [u32; 3],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

impl LoopConfig {
    fn of(image: i32) -> Self {
        Self {
            fd: image.unsigned_abs(),
            block_size: 4096,
            places: [0; 5],
            numbers: [0; 3],
            flags: LO_FLAGS_AUTOCLEAR,
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        }
    }
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

#[cfg(test)]
mod tests {
    //! How loop devices are named. That volumes can be entered is in `permitted.rs`.
    use super::*;

    #[test]
    fn loop_devices_are_named_by_their_number() {
        for (number, expected) in [
            (0, c"/dev/loop0"),
            (7, c"/dev/loop7"),
            (10, c"/dev/loop10"),
            (4095, c"/dev/loop4095"),
            (u32::MAX, c"/dev/loop4294967295"),
        ] {
            let path = device_path(number);
            assert_eq!(CStr::from_bytes_until_nul(&path).unwrap(), expected);
        }
    }
}

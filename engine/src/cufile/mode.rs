//! Whether transfers go directly between device and storage, or through the library's own buffers in host memory.
//!
//! cuFile does not tell for a file: in compatibility mode, which is on by default, it takes one that it cannot reach
//! directly all the same and serves it with `pread` and `pwrite` (F27). What it does tell are the driver's properties,
//! and they are compared with what the file lies on. *Direct* is claimed only where both agree:
//! - The kernel module nvidia-fs is loaded (its version is not 0.0), or the properties name NVMe with peer-to-peer DMA
//!   (bit 11), which CUDA 12.8 and later use without that module. Later headers call that bit deprecated; a library that
//!   does peer-to-peer DMA, has no nvidia-fs and does not set the bit is therefore taken for compat: an error to the
//!   side of not claiming.
//! - The status flags have a bit for this kind of storage (`CUfileDriverStatusFlags`, a bit each): network file systems
//!   have their own; for others it is the bit of the block device, told apart by `/sys/dev/block`. Whatever is not named
//!   here is compat: copy-on-write and stacked file systems, those in user space, and disks behind encryption.
//!
//! Not seen are transfers that go the other way one by one, for want of BAR space for instance.
//!
//! Sources: cuFile API Reference Guide (compatibility mode), `cufile.h`, the output of `gdscheck` in reports to
//! NVIDIA/gds-nvidia-fs, which shows nvidia-fs loaded and no kind of storage supported.

use super::raw::RawProperties;
use nix::sys::{stat, statfs};
use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Direct,
    Compat,
}

/// What a file lies on, as far as cuFile tells kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    Lustre,
    Nfs,
    Gpfs,
    BeeGfs,
    WekaFs,
    ScateFs,
    VirtioFs,
    /// A disk file system on NVMe devices only, or on arrays and linear volumes of such.
    Nvme,
    /// A disk file system on another block device.
    Block,
    /// Anything else: file systems in user space, over the network, in memory, or on top of others.
    Other,
}

/// Numbers of `CUfileDriverStatusFlags`.
mod flag {
    pub(super) const LUSTRE: u32 = 0;
    pub(super) const WEKAFS: u32 = 1;
    pub(super) const NFS: u32 = 2;
    pub(super) const GPFS: u32 = 3;
    pub(super) const NVME: u32 = 4;
    pub(super) const NVMEOF: u32 = 5;
    pub(super) const SCSI: u32 = 6;
    pub(super) const SCALEFLUX: u32 = 7;
    pub(super) const NVMESH: u32 = 8;
    pub(super) const BEEGFS: u32 = 9;
    pub(super) const NVME_P2P: u32 = 11;
    pub(super) const SCATEFS: u32 = 12;
    pub(super) const VIRTIOFS: u32 = 13;
}

impl Mode {
    pub(super) fn of(properties: &RawProperties, storage: Storage) -> Self {
        let has = |flags: &[u32]| {
            flags
                .iter()
                .any(|flag| properties.status_flags & (1 << flag) != 0)
        };
        let has_module = (properties.major_version, properties.minor_version) != (0, 0);
        let is_reached = match storage {
            Storage::Lustre => has(&[flag::LUSTRE]),
            Storage::Nfs => has(&[flag::NFS]),
            Storage::Gpfs => has(&[flag::GPFS]),
            Storage::BeeGfs => has(&[flag::BEEGFS]),
            Storage::Nvme => has(&[
                flag::NVME,
                flag::NVMEOF,
                flag::SCALEFLUX,
                flag::NVMESH,
                flag::NVME_P2P,
            ]),
            Storage::Block => has(&[flag::SCSI, flag::SCALEFLUX, flag::NVMESH]),
            Storage::WekaFs => has(&[flag::WEKAFS]),
            Storage::ScateFs => has(&[flag::SCATEFS]),
            Storage::VirtioFs => has(&[flag::VIRTIOFS]),
            Storage::Other => false,
        };
        let is_peer_to_peer = storage == Storage::Nvme && has(&[flag::NVME_P2P]);
        if is_reached && (has_module || is_peer_to_peer) {
            Self::Direct
        } else {
            Self::Compat
        }
    }
}

impl Storage {
    /// Of an open file.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        let kind = statfs::fstatfs(&file)?.filesystem_type().0;
        let device = stat::fstat(&file)?.st_dev;
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let known = Self::told_apart(kind as u64, &Path::new("/sys/dev/block").join(&number));
        Ok(known.unwrap_or_else(|| {
            // Without the table nothing is claimed.
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            Self::named(&mounts, &number)
        }))
    }

    /// From a file system's magic number (the kernel's `magic.h`, and the modules' own headers), and the directory of
    /// its device in sysfs. `None` for another number.
    fn told_apart(magic: u64, device: &Path) -> Option<Self> {
        match magic & 0xFFFF_FFFF {
            0x0BD0_0BD0 => Some(Self::Lustre),
            0x6969 => Some(Self::Nfs),
            0x4750_4653 => Some(Self::Gpfs),
            0x1983_0326 => Some(Self::BeeGfs),
            // ext4, xfs: those that cuFile reaches through a block device.
            0xEF53 | 0x5846_5342 => match fs::canonicalize(device) {
                Ok(device) if is_nvme(&device) => Some(Self::Nvme),
                Ok(_) | Err(_) => Some(Self::Block),
            },
            _ => None,
        }
    }

    /// From the kind that `mountinfo` (proc_pid_mountinfo(5)) gives for a device: these have no published number of their
    /// own, virtiofs that of every file system in user space. The names are those the library looks for.
    fn named(mounts: &str, number: &str) -> Self {
        let kind = mounts.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let is_it = mount.split(' ').nth(2) == Some(number);
            filesystem.split(' ').next().filter(|_| is_it)
        });
        match kind {
            Some("wekafs") => Self::WekaFs,
            Some("scatefs") => Self::ScateFs,
            Some("virtiofs") => Self::VirtioFs,
            Some(_) | None => Self::Other,
        }
    }
}

/// Whether a device's directory in sysfs is that of an NVMe disk or its partition, or of an array or a volume of such.
fn is_nvme(device: &Path) -> bool {
    if is_disk(device) {
        return true;
    }
    let whole = match (device.join("partition").exists(), device.parent()) {
        (true, Some(disk)) => disk,
        (true, None) | (false, _) => device,
    };
    let parts = parts(whole);
    let is_array = |device: &Path| {
        let parts = self::parts(device);
        is_md(device) && !parts.is_empty() && parts.iter().all(|part| is_disk(part))
    };
    if is_md(whole) {
        return is_array(whole);
    }
    // Below a linear (or striped) volume are disks or arrays. What else the device mapper does to bytes or with their
    // place, as encryption, snapshots, caches, thin volumes or mirrors, has another kind of name, or volumes below.
    is_volume(whole)
        && !parts.is_empty()
        && parts.iter().all(|part| is_disk(part) || is_array(part))
}

fn is_disk(device: &Path) -> bool {
    let mut parts = device.iter().filter_map(|part| part.to_str());
    parts.any(|part| part.starts_with("nvme"))
}

fn is_md(device: &Path) -> bool {
    device.join("md").is_dir()
}

/// Whether it is a volume of LVM. Encrypted ones are called `CRYPT-…`.
fn is_volume(device: &Path) -> bool {
    let name = fs::read_to_string(device.join("dm/uuid"));
    name.is_ok_and(|name| name.starts_with("LVM-"))
}

fn parts(device: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.join("slaves")).into_iter().flatten();
    entries
        .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    //! What is claimed to be direct, for what the driver says and what a file lies on.
    use super::*;

    const EXT4: u64 = 0xEF53;

    fn properties(major_version: u32, flags: &[u32]) -> RawProperties {
        RawProperties {
            major_version,
            status_flags: flags.iter().fold(0, |all, flag| all | 1 << flag),
            ..RawProperties::default()
        }
    }

    #[test]
    fn a_file_is_reached_directly_when_the_driver_supports_what_it_lies_on() {
        for (storage, flag) in [
            (Storage::Lustre, flag::LUSTRE),
            (Storage::Nfs, flag::NFS),
            (Storage::Gpfs, flag::GPFS),
            (Storage::BeeGfs, flag::BEEGFS),
            (Storage::Nvme, flag::NVME),
            (Storage::Block, flag::SCSI),
            (Storage::WekaFs, flag::WEKAFS),
            (Storage::ScateFs, flag::SCATEFS),
            (Storage::VirtioFs, flag::VIRTIOFS),
        ] {
            assert_eq!(Mode::of(&properties(2, &[flag]), storage), Mode::Direct);
            assert_eq!(Mode::of(&properties(2, &[]), storage), Mode::Compat);
            assert_eq!(Mode::of(&properties(2, &[10]), storage), Mode::Compat);
            assert_eq!(Mode::of(&properties(0, &[flag]), storage), Mode::Compat);
        }
    }

    #[test]
    fn nvidia_fs_with_support_for_nvme_does_not_reach_another_disk() {
        let driver = properties(2, &[flag::NVME, flag::NVME_P2P]);
        assert_eq!(Mode::of(&driver, Storage::Nvme), Mode::Direct);
        assert_eq!(Mode::of(&driver, Storage::Block), Mode::Compat);
        assert_eq!(Mode::of(&driver, Storage::Other), Mode::Compat);
    }

    #[test]
    fn peer_to_peer_needs_no_kernel_module_and_reaches_nvme_only() {
        let driver = properties(0, &[flag::NVME_P2P, flag::SCSI]);
        assert_eq!(Mode::of(&driver, Storage::Nvme), Mode::Direct);
        assert_eq!(Mode::of(&driver, Storage::Block), Mode::Compat);
    }

    #[test]
    fn disks_are_told_apart_by_their_place_in_sysfs() {
        let sysfs = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = sysfs.path().join(path);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let nvme = make("pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p1");
        let virtual_disk = make("pci0000:00/virtio1/block/vda");
        let link = |name: &str, to: &Path| {
            std::os::unix::fs::symlink(to, sysfs.path().join(name)).unwrap();
        };
        link("259:1", &nvme);
        link("254:0", &virtual_disk);
        let array = make("virtual/block/md0");
        make("virtual/block/md0/md");
        make("virtual/block/md0/slaves");
        link("virtual/block/md0/slaves/nvme0n1p1", &nvme);
        let of = |path: &Path| Storage::told_apart(EXT4, path).unwrap();
        assert_eq!(of(&sysfs.path().join("259:1")), Storage::Nvme);
        assert_eq!(of(&sysfs.path().join("254:0")), Storage::Block);
        assert_eq!(of(&sysfs.path().join("0:99")), Storage::Block);
        assert_eq!(of(&array), Storage::Nvme);
        let part = make("virtual/block/md0/md0p1");
        fs::write(part.join("partition"), "1").unwrap();
        assert_eq!(of(&part), Storage::Nvme);

        let volume = |name: &str, uuid: &str, part: &Path| {
            let path = format!("virtual/block/{name}");
            make(&format!("{path}/dm"));
            make(&format!("{path}/slaves"));
            link(&format!("{path}/slaves/part"), part);
            fs::write(sysfs.path().join(&path).join("dm/uuid"), uuid).unwrap();
            sysfs.path().join(path)
        };
        let linear = volume("dm-0", "LVM-abc\n", &nvme);
        let encrypted = volume("dm-1", "CRYPT-LUKS2-abc\n", &nvme);
        assert_eq!(of(&linear), Storage::Nvme);
        assert_eq!(of(&volume("dm-2", "LVM-abc\n", &array)), Storage::Nvme);
        assert_eq!(of(&encrypted), Storage::Block);
        for below in [&encrypted, &linear, &virtual_disk] {
            let upper = volume(
                &format!("on-{}", below.file_name().unwrap().display()),
                "LVM-x\n",
                below,
            );
            assert_eq!(of(&upper), Storage::Block, "{}", below.display());
        }
        assert_eq!(
            of(&volume("dm-3", "CRYPT-PLAIN-abc\n", &array)),
            Storage::Block
        );

        link("virtual/block/md0/slaves/vda", &virtual_disk);
        assert_eq!(of(&array), Storage::Block);
        assert_eq!(Storage::told_apart(0x6969, &nvme), Some(Storage::Nfs));
        for magic in [0x0102_1994, 0x9123_683E, 0x794C_7630, 0x6573_5546] {
            assert_eq!(Storage::told_apart(magic, &nvme), None);
        }
    }

    #[test]
    fn what_has_no_number_of_its_own_is_told_by_its_name_and_everything_else_is_not_claimed() {
        let mounts = "\
            22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            40 22 0:50 / /weka rw - wekafs default rw\n\
            41 22 0:51 / /scate rw,nosuid shared:3 master:1 - scatefs scate rw\n\
            42 22 0:52 / /shared rw - virtiofs tag rw\n\
            43 22 0:53 / /over rw - overlay wekafs rw\n\
            44 22 0:54 / /user rw - fuse.sshfs host: rw\n\
            45 22 0:55 / /data rw - btrfs /dev/nvme0n1 rw\n";
        for (number, storage) in [
            ("0:50", Storage::WekaFs),
            ("0:51", Storage::ScateFs),
            ("0:52", Storage::VirtioFs),
            ("0:53", Storage::Other),
            ("0:54", Storage::Other),
            ("0:55", Storage::Other),
            ("0:5", Storage::Other),
        ] {
            assert_eq!(Storage::named(mounts, number), storage, "{number}");
        }
        assert_eq!(
            Mode::of(
                &properties(2, &[flag::WEKAFS, flag::SCATEFS, flag::VIRTIOFS]),
                Storage::Other
            ),
            Mode::Compat
        );
    }
}

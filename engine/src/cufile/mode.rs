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
//!   have their own; for others it is the bit of the block device, told apart by `/sys/dev/block`.
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
    /// A disk file system on NVMe devices only.
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
            Storage::Other => has(&[flag::WEKAFS, flag::SCATEFS, flag::VIRTIOFS]),
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
        let (major, minor) = (libc::major(device), libc::minor(device));
        let device = format!("/sys/dev/block/{major}:{minor}");
        Ok(Self::told_apart(kind as u64, Path::new(&device)))
    }

    /// From a file system's magic number (the kernel's `magic.h`, and the modules' own headers), and the directory of
    /// its device in sysfs.
    fn told_apart(magic: u64, device: &Path) -> Self {
        match magic & 0xFFFF_FFFF {
            0x0BD0_0BD0 => Self::Lustre,
            0x6969 => Self::Nfs,
            0x4750_4653 => Self::Gpfs,
            0x1983_0326 => Self::BeeGfs,
            // ext4, xfs: those that cuFile reaches through a block device.
            0xEF53 | 0x5846_5342 => match fs::canonicalize(device) {
                Ok(device) if is_nvme(&device) => Self::Nvme,
                Ok(_) | Err(_) => Self::Block,
            },
            _ => Self::Other,
        }
    }
}

/// Whether a device's directory in sysfs is that of an NVMe disk or its partition, or of an array of such.
fn is_nvme(device: &Path) -> bool {
    let is_one = |path: &Path| {
        path.iter()
            .filter_map(|part| part.to_str())
            .any(|part| part.starts_with("nvme"))
    };
    if is_one(device) {
        return true;
    }
    let parts: Vec<PathBuf> = fs::read_dir(device.join("slaves"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
        .collect();
    !parts.is_empty() && parts.iter().all(|part| is_one(part))
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
            (Storage::Other, flag::WEKAFS),
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
        make("virtual/block/md0/slaves");
        link("virtual/block/md0/slaves/nvme0n1p1", &nvme);
        let array = sysfs.path().join("virtual/block/md0");
        let of = |path: &Path| Storage::told_apart(EXT4, path);
        assert_eq!(of(&sysfs.path().join("259:1")), Storage::Nvme);
        assert_eq!(of(&sysfs.path().join("254:0")), Storage::Block);
        assert_eq!(of(&sysfs.path().join("0:99")), Storage::Block);
        assert_eq!(of(&array), Storage::Nvme);
        link("virtual/block/md0/slaves/vda", &virtual_disk);
        assert_eq!(of(&array), Storage::Block);
        assert_eq!(Storage::told_apart(0x0102_1994, &nvme), Storage::Other);
        assert_eq!(Storage::told_apart(0x6969, &nvme), Storage::Nfs);
    }
}

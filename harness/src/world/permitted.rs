//! What this machine permits, found out by doing it once with a process that does nothing.
#![allow(unsafe_code)]

use super::{Enclosure, MemoryGroup, Volume, World, make_image};
use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Enough for any filesystem's own structures.
const TRIAL_BYTES: u64 = 4 << 20;

/// Memory in which any process starts.
const TRIAL_GROUP_BYTES: u64 = 256 << 20;

/// Why this machine cannot make such a world; `None` when it can. Tried once for each kind.
#[must_use]
pub fn unavailable(world: &World) -> Option<String> {
    static SMALL_MEMORY: OnceLock<Option<String>> = OnceLock::new();
    static SMALL_DISK: OnceLock<Option<String>> = OnceLock::new();
    static GROUP: OnceLock<Option<String>> = OnceLock::new();
    let volume = |volume: Volume| refusal(try_volume(volume));
    let bytes = TRIAL_BYTES;
    let refused = match world.volume {
        Volume::Disk => None,
        Volume::Memory => refusal(fs::read_dir("/dev/shm").map(|_| ()))
            .map(|reason| format!("/dev/shm cannot be used: {reason}")),
        Volume::SmallMemory { .. } => SMALL_MEMORY
            .get_or_init(|| volume(Volume::SmallMemory { bytes }))
            .as_ref()
            .map(|reason| format!("a private filesystem in memory is not permitted here: {reason}")),
        Volume::SmallDisk { .. } => SMALL_DISK
            .get_or_init(|| volume(Volume::SmallDisk { bytes }))
            .as_ref()
            .map(|reason| {
                format!("a private disk filesystem (mkfs.ext4, loop devices, the right to mount) is not permitted here: {reason}")
            }),
    };
    refused.or_else(|| {
        world.memory_bytes?;
        GROUP
            .get_or_init(|| refusal(try_group()))
            .as_ref()
            .map(|reason| format!("a memory cgroup is not permitted here: {reason}"))
    })
}

fn refusal(result: io::Result<()>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

fn try_volume(volume: Volume) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let point = directory.path().join("volume");
    let image = directory.path().join("image");
    fs::create_dir(&point)?;
    if let Volume::SmallDisk { bytes } = volume {
        make_image(&image, bytes)?;
    }
    let offload = point.join("offload");
    run(Enclosure::default().with_volume(volume, &point, &offload, &image)?)?;
    assert_unseen(&offload)
}

/// A volume that was mounted for all would be in everyone's way.
fn assert_unseen(offload: &Path) -> io::Result<()> {
    if offload.exists() {
        return Err(io::Error::other("the mount was seen outside"));
    }
    Ok(())
}

fn try_group() -> io::Result<()> {
    let group = MemoryGroup::create(TRIAL_GROUP_BYTES)?;
    run(Enclosure::default().in_group(&group.members()))
}

/// Runs `true` inside.
fn run(enclosure: Enclosure) -> io::Result<()> {
    let mut command = Command::new("true");
    command.stdin(Stdio::null());
    // SAFETY: between fork and exec only system calls are made; see `enclosure.rs`.
    unsafe { command.pre_exec(move || enclosure.enter()) };
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("`true` ended with {status}")))
    }
}

#[cfg(test)]
mod tests {
    //! Each kind of world is either made here or refused with a reason.
    use super::*;

    #[test]
    fn every_kind_is_permitted_or_refused_with_a_reason() {
        let worlds = [
            World::default(),
            World {
                volume: Volume::Memory,
                ..World::default()
            },
            World {
                volume: Volume::SmallMemory { bytes: TRIAL_BYTES },
                ..World::default()
            },
            World {
                volume: Volume::SmallDisk { bytes: TRIAL_BYTES },
                ..World::default()
            },
            World {
                memory_bytes: Some(TRIAL_GROUP_BYTES),
                ..World::default()
            },
        ];
        for world in worlds {
            let reason = unavailable(&world);
            println!("{world:?}: {reason:?}");
            assert!(reason.is_none_or(|reason| reason.contains(": ")));
        }
        assert_eq!(unavailable(&World::default()), None);
    }
}

//! What cuFile could reach directly: the kinds of filesystems that NVIDIA's guide names (cuFile API Reference Guide), by their
//! numbers in the kernel's `magic.h` and the modules' own headers.

use nix::sys::statfs::statfs;
use std::path::Path;

const REACHED: [i64; 6] = [
    // ext4, xfs, NFS, Lustre, GPFS, BeeGFS.
    0xEF53,
    0x5846_5342,
    0x6969,
    0x0BD0_0BD0,
    0x4750_4653,
    0x1983_0326,
];

const NAMES: [(i64, &str); 5] = [
    (0x794C_7630, "overlay"),
    (0x9123_683E, "btrfs"),
    (0x2FC1_2FC1, "zfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1994, "tmpfs"),
];

/// Why nothing is surely transferred directly to files in this directory, by cuFile or by direct I/O; `None` where one may. A directory that is not made yet counts as the
/// one that it will be made in.
#[must_use]
pub fn out_of_direct_reach(directory: &Path) -> Option<String> {
    let existing = directory.ancestors().find(|at| at.exists())?;
    // Who cannot be asked is asked again by every case.
    let kind = statfs(existing).ok()?.filesystem_type().0;
    refusal(kind, existing)
}

fn refusal(kind: i64, directory: &Path) -> Option<String> {
    let kind = kind & 0xFFFF_FFFF;
    if REACHED.contains(&kind) {
        return None;
    }
    let name = NAMES.iter().find(|(known, _)| *known == kind);
    let name = name.map_or_else(|| format!("{kind:#x}"), |(_, name)| (*name).to_owned());
    Some(format!(
        "nothing is transferred directly on {name}, where {} is; set SPILLPROOF_DIR to a directory on ext4 or xfs",
        directory.display()
    ))
}

#[cfg(test)]
mod tests {
    //! Which filesystems are told from which.
    use super::*;

    #[test]
    fn disks_and_the_network_are_reached_and_what_lies_on_top_of_others_is_not() {
        let refused = |kind| refusal(kind, Path::new("/case"));
        for kind in REACHED {
            assert_eq!(refused(kind), None);
        }
        for (kind, name) in NAMES {
            let reason = refused(kind).unwrap();
            assert!(
                reason.contains(&format!("on {name}, where /case is")),
                "{reason}"
            );
        }
        assert!(refused(0x1234).unwrap().contains("0x1234"));
    }

    #[test]
    fn a_directory_that_is_not_made_yet_counts_as_its_parent() {
        let reason = out_of_direct_reach(Path::new("/proc/self/there/is/none"));
        assert!(reason.unwrap().contains("/proc/self is"));
    }
}

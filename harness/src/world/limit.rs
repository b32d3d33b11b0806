//! Resource limits of a running process, set from outside.
#![allow(unsafe_code)]

use super::LimitedResource;
use crate::{
    error::HarnessError,
    probe::{self, ProbeError},
};
use std::{collections::BTreeSet, fs, io, ptr};

/// The soft limit as it was before it was lowered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headroom {
    resource: LimitedResource,
    before: libc::rlimit64,
}

/// Lowers the soft limit of `resource` to what the process uses and `headroom`.
pub(crate) fn lower(
    pid: u32,
    resource: LimitedResource,
    headroom: u64,
) -> Result<Headroom, HarnessError> {
    let soft = match resource {
        LimitedResource::Descriptors => descriptor_limit(&descriptors(pid)?, headroom),
        LimitedResource::AddressSpace => probe::address_space_bytes(pid)? + headroom,
        LimitedResource::FileSize => headroom,
    };
    let before = prlimit(pid, resource, None)?;
    let lowered = libc::rlimit64 {
        rlim_cur: soft.min(before.rlim_cur),
        ..before
    };
    prlimit(pid, resource, Some(lowered))?;
    Ok(Headroom { resource, before })
}

/// Sets the limit as it was.
pub(crate) fn lift(pid: u32, headroom: &Headroom) -> Result<(), HarnessError> {
    prlimit(pid, headroom.resource, Some(headroom.before)).map(|_| ())
}

/// The limit is one on numbers: `headroom` of those below it are free.
fn descriptor_limit(open: &BTreeSet<u64>, headroom: u64) -> u64 {
    let mut free = (0..).filter(|number| !open.contains(number));
    match headroom.checked_sub(1) {
        Some(last) => free.nth(last as usize).map_or(0, |number| number + 1),
        None => free.next().unwrap_or(0),
    }
}

fn descriptors(pid: u32) -> Result<BTreeSet<u64>, ProbeError> {
    let path = format!("/proc/{pid}/fd");
    let unreadable = |source: io::Error| ProbeError::Unreadable {
        what: path.clone(),
        source,
    };
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        numbers.extend(name.to_string_lossy().parse::<u64>());
    }
    Ok(numbers)
}

/// Reads the limit, and sets it when `new` is given.
fn prlimit(
    pid: u32,
    resource: LimitedResource,
    new: Option<libc::rlimit64>,
) -> Result<libc::rlimit64, HarnessError> {
    let resource = match resource {
        LimitedResource::Descriptors => libc::RLIMIT_NOFILE,
        LimitedResource::AddressSpace => libc::RLIMIT_AS,
        LimitedResource::FileSize => libc::RLIMIT_FSIZE,
    };
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let given = new.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both pointers are null or point to values that outlive the call; the process is a child that was not reaped.
    let result = unsafe { libc::prlimit64(pid.cast_signed(), resource, given, &raw mut old) };
    if result == 0 {
        Ok(old)
    } else {
        Err(HarnessError::system("prlimit")(io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    //! Which numbers stay free.
    use super::*;

    #[test]
    fn exactly_the_headroom_is_free_below_the_limit() {
        let open = BTreeSet::from([0, 1, 2, 4, 7]);
        for (headroom, limit) in [(0, 3), (1, 4), (2, 6), (3, 7), (4, 9)] {
            let found = descriptor_limit(&open, headroom);
            assert_eq!(found, limit, "headroom {headroom}");
            let free = (0..found).filter(|number| !open.contains(number)).count();
            assert_eq!(free as u64, headroom);
        }
    }

    #[test]
    fn a_lowered_limit_is_set_back_as_it_was() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let read = |pid| prlimit(pid, LimitedResource::FileSize, None).unwrap();
        let before = read(child.id());
        let headroom = lower(child.id(), LimitedResource::FileSize, 4096).unwrap();
        assert_eq!(read(child.id()).rlim_cur, 4096);
        lift(child.id(), &headroom).unwrap();
        assert_eq!(read(child.id()).rlim_cur, before.rlim_cur);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

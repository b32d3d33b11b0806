//! Keeping a CUDA library that the machine has out of a subject's sight.

use super::emulated::LIBRARY_NAMES;
use crate::error::HarnessError;
use std::{fs, path::Path};

const LOADER_CACHE: &str = "/etc/ld.so.cache";
const DEFAULT_DIRECTORIES: [&str; 6] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Whether the loader finds a CUDA library by itself.
pub(super) fn system_has_cuda() -> bool {
    let cached = fs::read(LOADER_CACHE).is_ok_and(|cache| names_cuda(&cache));
    cached
        || DEFAULT_DIRECTORIES.iter().any(|directory| {
            LIBRARY_NAMES
                .iter()
                .any(|name| Path::new(directory).join(name).exists())
        })
}

fn names_cuda(cache: &[u8]) -> bool {
    cache
        .windows(b"/libcuda.so".len())
        .any(|name| name == b"/libcuda.so")
}

/// The loader stops at the first file of the right name: one that is no library makes `dlopen` fail.
pub(super) fn block(directory: &Path, names: &[&str]) -> Result<(), HarnessError> {
    for name in names {
        let path = directory.join(name);
        fs::write(&path, "").map_err(HarnessError::path("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! What counts as a CUDA library.
    use super::*;

    #[test]
    fn only_the_driver_itself_counts() {
        assert!(names_cuda(b"..libcuda.so.1\0/usr/lib/libcuda.so.1\0"));
        assert!(!names_cuda(
            b"/usr/lib/libcudart.so.12\0/usr/lib/libcudnn.so\0"
        ));
    }
}

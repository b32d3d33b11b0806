//! The filesystem of a small disk: an ext4 image in a file.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PROGRAM: &str = "mkfs.ext4";

/// Makes an ext4 filesystem of `bytes` in the file `image`, without a journal: all the space is for files.
pub(crate) fn make_image(image: &Path, bytes: u64) -> io::Result<()> {
    fs::File::create_new(image)?.set_len(bytes)?;
    let output = Command::new(PROGRAM)
        .args(["-q", "-F", "-m", "0", "-b", "4096", "-O", "^has_journal"])
        .arg(image)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "{PROGRAM}: {}: {text}",
        output.status
    )))
}

/// Users' paths often leave out where such programs are.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::join_paths(env::split_paths(&path).chain(more)).unwrap_or(path)
}

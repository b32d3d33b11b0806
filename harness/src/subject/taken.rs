//! `SIOCOUTQ`, which neither std nor nix offers as a safe call.
#![allow(unsafe_code)]

use std::os::{fd::AsRawFd, unix::net::UnixStream};

/// Whether the other side has read everything that was sent.
pub(super) fn is_all_taken(socket: &UnixStream) -> bool {
    let mut left: libc::c_int = 0;
    // SAFETY: the descriptor is open for the borrow, and the kernel writes one int to where the pointer leads (unix(7)).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    result == 0 && left == 0
}

#[cfg(test)]
mod tests {
    //! What is told of a socket whose other side has read or not.
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn bytes_are_taken_once_the_other_side_has_read_the_last_of_them() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_all_taken(&ours));
        ours.write_all(b"ab").unwrap();
        assert!(!is_all_taken(&ours));
        theirs.read_exact(&mut [0]).unwrap();
        assert!(!is_all_taken(&ours));
        theirs.read_exact(&mut [0]).unwrap();
        assert!(is_all_taken(&ours));
    }
}

//! Which names lead to themselves: what they open is what the kernel calls by the same name. No symbolic link is in such a name, so
//! whether it lies in the scope is whether its file does.
//!
//! That is believed for a moment (68 ms at most), and until a process of the subject makes a link or gives a file another name: who
//! changes names from outside the subject is found out when the moment is over. To ask the kernel takes longer than to open a file.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use spillproof_faults::Attached;

/// Names that are remembered at a time, each in one place only.
const TRACKED: usize = 256;

/// By name, the moment at which it led to itself.
#[derive(Debug)]
pub(crate) struct Shown([AtomicU64; TRACKED]);

/// A name, told from others by a number that is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(u64);

/// Now, as far as names are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Names given in the subject so far.
    given: u64,
    time: u64,
}

impl Name {
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Name {
        Name(hash(name) | 1)
    }

    /// Nothing for 0.
    #[inline]
    pub(crate) fn checked(word: u64) -> Option<Name> {
        (word != 0).then_some(Name(word))
    }

    #[inline]
    pub(crate) fn word(self) -> u64 {
        self.0
    }
}

impl Shown {
    pub(crate) const fn nothing() -> Shown {
        Shown([const { AtomicU64::new(0) }; TRACKED])
    }

    #[inline]
    fn place(&self, name: Name) -> &AtomicU64 {
        &self.0[(name.0 >> 32) as usize % TRACKED]
    }

    /// The kernel calls by this name what it opens.
    pub(crate) fn add(&self, name: Name, moment: Moment) {
        self.place(name).store(moment.of(name), Ordering::Relaxed);
    }

    /// What is known of a name: nothing, or of another one, unless it [is fresh](Moment::is_fresh).
    #[inline]
    pub(crate) fn of(&self, name: Name) -> u64 {
        self.place(name).load(Ordering::Relaxed)
    }
}

impl Moment {
    #[inline]
    pub(crate) fn now(shared: &Attached) -> Moment {
        Moment {
            given: shared.names_given(),
            time: time(),
        }
    }

    /// A word for a name that leads to itself at this moment.
    #[inline]
    pub(crate) fn of(self, name: Name) -> u64 {
        let moment = self.time.rotate_left(24) ^ self.given;
        name.0 ^ moment.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Whether a word is of a name at this moment or the one before.
    #[inline]
    pub(crate) fn is_fresh(self, name: Name, word: u64) -> bool {
        let time = self.time.wrapping_sub(1);
        word == self.of(name) || word == Moment { time, ..self }.of(name)
    }
}

/// In steps of 7 to 34 ms, as fast as processors count (1 to 5 GHz). The kernel's clocks lie in pages of their own, which take longer to find
/// than this to read.
#[cfg(target_arch = "x86_64")]
#[inline]
fn time() -> u64 {
    // SAFETY: every processor of this kind has the counter.
    unsafe { std::arch::x86_64::_rdtsc() >> 25 }
}

/// In steps of 17 ms.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    ((time.tv_sec as u64).wrapping_mul(1_000_000_000) + time.tv_nsec as u64) >> 24
}

/// Sixteen bytes at a time, each by a product of 128 bits (as wyhash does): names are long, and differ at the end.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    const KEYS: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
    let word = |bytes: &[u8; 16]| u128::from_le_bytes(*bytes);
    let mix = |hash: u64, both: u128| {
        let (low, high) = (both as u64, (both >> 64) as u64);
        let product = u128::from(low ^ KEYS[0]) * u128::from(high ^ KEYS[1] ^ hash);
        product as u64 ^ (product >> 64) as u64
    };
    let length = bytes.len() as u64;
    match bytes.last_chunk::<16>() {
        Some(last) => {
            let whole = bytes.as_chunks::<16>().0;
            let all = whole
                .iter()
                .fold(length, |hash, chunk| mix(hash, word(chunk)));
            mix(all, word(last))
        }
        None => {
            let mut last = [0; 16];
            last[..bytes.len()].copy_from_slice(bytes);
            mix(length, word(&last))
        }
    }
}

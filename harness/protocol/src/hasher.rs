//! Digests of bytes as they come.

use crate::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};
use twox_hash::xxhash3_128::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

/// A running digest. It allocates nothing until it is finished.
#[derive(Clone)]
pub struct Hasher(Running);

#[derive(Clone)]
enum Running {
    Sha256(Sha256),
    Xxh3_128(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Sha256(hasher) => hasher.update(bytes),
            Running::Xxh3_128(hasher) => hasher.write(bytes),
        }
    }

    /// The digest of all bytes that it took.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_hexadecimal(match self.0 {
            Running::Sha256(hasher) => {
                let bytes = hasher.finalize();
                bytes.iter().map(|byte| format!("{byte:02x}")).collect()
            }
            Running::Xxh3_128(hasher) => format!("{:032x}", hasher.finish_128()),
        })
    }
}

impl DigestAlgorithm {
    /// A digest of nothing so far.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher(match self {
            Self::Sha256 => Running::Sha256(Sha256::new()),
            Self::Xxh3_128 => Running::Xxh3_128(RawHasher::new(SecretBuffer::default())),
        })
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    //! Both algorithms against other implementations: Python's `hashlib`, and its `xxhash` 4.1 over xxHash 0.8.4.
    use super::*;
    use crate::Fill;

    /// The first bytes of the fill with the seed 0.
    fn contents(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        Fill::Seed(0).write(0, &mut out).unwrap();
        out
    }

    /// Lengths on both sides of where XXH3 goes another way, and several of its blocks.
    const VECTORS: [(usize, &str, &str); 8] = [
        (
            0,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "99aa06d3014798d86001c324468d497f",
        ),
        (
            16,
            "f9308187d2713e9e067c78dda10609843639f994a663cda1c665e7d1946e8e69",
            "762e30f8d68862897a1588d565f622b7",
        ),
        (
            100,
            "b859c4bd1232b653344946be27cbff9a7d2d6c92bf16a15049bae496eb0adea2",
            "6f330c091c947d1870c6eb57579314b3",
        ),
        (
            240,
            "45f23f0da3e55a2d7956c00618abe12e560901e7f718ba647eff3829390d09d1",
            "85dcf5ac73d83b64fe2a49a88dac08e5",
        ),
        (
            241,
            "eb15ba319bde5174d5d23f50d30b8e27ca4c72b95b36da68476903da27109604",
            "ac7a4a3d7efdcea27c1fb605565faf41",
        ),
        (
            256,
            "c8048a17929cf11fedc4b63a69f7b67c9df23af91443cc72eba6c497721583d3",
            "799480465db92cbb94d8430671381dc3",
        ),
        (
            1024,
            "79b857605c8e365750212fa51d6257014da97adebb16f980754f9252f5721de3",
            "7d24c5799ab9cf2a6df8bd94379a36ea",
        ),
        (
            100_003,
            "37aec24fe9b11a14e28ea82af17e72adc41edbfb2f5351ed07abb441dc5391b0",
            "23cbb849652b88aba79f4c3ed0f5f9c4",
        ),
    ];

    #[test]
    fn digests_are_those_of_other_implementations() {
        for (bytes, sha256, xxh3_128) in VECTORS {
            let contents = contents(bytes);
            let digest = |algorithm: DigestAlgorithm| algorithm.digest(&contents);
            assert_eq!(digest(DigestAlgorithm::Sha256).as_str(), sha256, "{bytes}");
            let found = digest(DigestAlgorithm::Xxh3_128);
            assert_eq!(found.as_str(), xxh3_128, "{bytes}");
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_how_its_bytes_came() {
        for (bytes, ..) in VECTORS {
            let contents = contents(bytes);
            for algorithm in DigestAlgorithm::ALL {
                for piece in [1, 7, 64, 240, 241, 4096] {
                    let mut hasher = algorithm.hasher();
                    for piece in contents.chunks(piece) {
                        hasher.update(piece);
                        hasher.update(&[]);
                    }
                    let whole = algorithm.digest(&contents);
                    assert_eq!(hasher.finish(), whole, "{algorithm}: {bytes} by {piece}");
                }
            }
        }
    }
}

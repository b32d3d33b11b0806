//! Results of driver calls: a number with names, never an enum (an unknown code must stay harmless).

/// What a driver call returned.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawResult(pub(super) u32);

impl RawResult {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const INVALID_VALUE: Self = Self(1);
    pub(super) const OUT_OF_MEMORY: Self = Self(2);

    /// Whether the context is unusable from here on (F17, F18): the driver repeats such a result for every later
    /// call, so that nothing on the device can be trusted or saved any more.
    ///
    /// Source: the descriptions of `CUresult` in the CUDA driver API reference, 13.0 (`cuda.h`). "To continue using CUDA, the process
    /// must be terminated and relaunched": 226, 700, 702, 714 to 719, 721, 810, 911; "the context cannot be used anymore": 710;
    /// there is none: 4, 709. Of uncorrectable errors (214, 220) it does not say so: that they end the use of the device is ours (F18).
    pub(super) fn is_sticky(self) -> bool {
        matches!(
            self.0,
            // deinitialized, context destroyed
            4 | 709
            // uncorrectable ECC, NVLink, hardware and memory containment errors
            | 214 | 220 | 226
            // illegal address, launch timeout, assert, hardware stack error, illegal instruction, misaligned
            // address, invalid address space, invalid pc, launch failed
            | 700 | 702 | 710 | 714
                ..=719
            // tensor memory leak, client terminated by the MPS server, error in an external device
            | 721 | 810 | 911
        )
    }
}

#[cfg(test)]
mod tests {
    //! Which results end a context.
    use super::*;

    #[test]
    fn an_illegal_address_ends_the_context_and_an_exhausted_memory_does_not() {
        for code in [700, 214, 719, 721, 810, 911] {
            assert!(RawResult(code).is_sticky(), "{code}");
        }
        for result in [
            RawResult::SUCCESS,
            RawResult::INVALID_VALUE,
            RawResult::OUT_OF_MEMORY,
            RawResult(100),
            RawResult(999),
            RawResult(u32::MAX),
        ] {
            assert!(!result.is_sticky(), "{result:?}");
        }
    }
}

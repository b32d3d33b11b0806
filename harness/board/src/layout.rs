//! Where everything lies in the file, in bytes and in 64-bit words.

/// "SPLBOARD", read as a little-endian word.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"SPLBOARD");
/// Raised with every change of this file.
pub(crate) const LAYOUT_VERSION: u64 = 3;

/// Devices that fit on one board.
pub const MAX_DEVICES: usize = 16;
/// Objects that can be alive at once on one board.
pub const MAX_OBJECTS: usize = 32 * 1024;
/// Violations kept in full; later ones are only counted.
pub const MAX_VIOLATIONS: usize = 1024;
/// Processes whose cuFile transfers are counted at once.
pub const MAX_CUFILE_USERS: usize = 256;
/// Device memory is accounted in units of this many bytes.
pub const ALLOCATION_UNIT_BYTES: u64 = 512;
/// Bytes of address space per device.
pub const DEVICE_REGION_BYTES: u64 = 1 << 46;
/// A device address minus this is an offset in the file. No host pointer of a 48-bit process lies above it, so that a
/// device address used as a host pointer faults and the two are never mistaken for one another.
pub const ADDRESS_BASE: u64 = 1 << 52;

/// Start of allocations and length of the gap behind each, so that a running-over pointer hits nothing.
pub(crate) const ADDRESS_STEP_BYTES: u64 = 64 * 1024;

const WORD_BYTES: usize = 8;

/// Word indices of the header.
pub(crate) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const LAYOUT_VERSION: usize = 1;
    pub(crate) const DEVICES: usize = 2;
    /// 1 while a holder of the lock changes rows: whoever finds it set recomputes the counters.
    pub(crate) const CHANGING: usize = 3;
    /// Rows at or above this index were never used.
    pub(crate) const ROWS_USED: usize = 4;
    /// No row below this index is free.
    pub(crate) const FREE_ROW_HINT: usize = 5;
    pub(crate) const VIOLATIONS: usize = 6;
}

/// Word indices within a device's row.
pub(crate) mod device {
    pub(crate) const CAPACITY_BYTES: usize = 0;
    pub(crate) const USED_BYTES: usize = 1;
    /// Offset in the device's region of the next allocation.
    pub(crate) const NEXT_OFFSET: usize = 2;
    pub(crate) const NAME: usize = 4;
    pub(crate) const NAME_WORDS: usize = 8;
    pub(crate) const WORDS: usize = 16;
}

/// Word indices within an object's row.
pub(crate) mod row {
    /// [`super::ROW_VALID`] when the row counts; written last, cleared first.
    pub(crate) const STATE: usize = 0;
    pub(crate) const KIND: usize = 1;
    pub(crate) const PID: usize = 2;
    pub(crate) const START_TICKS: usize = 3;
    pub(crate) const DEVICE: usize = 4;
    pub(crate) const BYTES: usize = 5;
    pub(crate) const ADDRESS: usize = 6;
    pub(crate) const SERIAL: usize = 7;
    pub(crate) const CALL: usize = 8;
    pub(crate) const CALL_WORDS: usize = 8;
    pub(crate) const WORDS: usize = 16;
}

/// Word indices within a violation's row.
pub(crate) mod violation {
    /// 1 when the row is complete; written last.
    pub(crate) const STATE: usize = 0;
    pub(crate) const PID: usize = 1;
    pub(crate) const CALL: usize = 2;
    pub(crate) const CALL_WORDS: usize = 8;
    pub(crate) const TEXT: usize = 10;
    pub(crate) const TEXT_WORDS: usize = 22;
    pub(crate) const WORDS: usize = 32;
}

/// Word indices within the row that counts what a process did and met with cuFile.
pub(crate) mod cufile {
    /// [`super::ROW_VALID`] when the row counts; written last, cleared first.
    pub(crate) const STATE: usize = 0;
    pub(crate) const PID: usize = 1;
    pub(crate) const START_TICKS: usize = 2;
    /// Two words, transfers and bytes, for each path and direction.
    pub(crate) const COUNTERS: usize = 4;
    pub(crate) const COUNTER_WORDS: usize = 8;
    /// One word for each kind of fault.
    pub(crate) const FAULTS: usize = COUNTERS + COUNTER_WORDS;
    pub(crate) const FAULT_WORDS: usize = 6;
    pub(crate) const WORDS: usize = 20;
}

pub(crate) const ROW_VALID: u64 = 1;

pub(crate) const DEVICES_WORD: usize = 4096 / WORD_BYTES;
pub(crate) const ROWS_WORD: usize = 65536 / WORD_BYTES;
pub(crate) const VIOLATIONS_WORD: usize = ROWS_WORD + MAX_OBJECTS * row::WORDS;
pub(crate) const CUFILE_WORD: usize = VIOLATIONS_WORD + MAX_VIOLATIONS * violation::WORDS;
pub(crate) const TABLE_WORDS: usize = CUFILE_WORD + MAX_CUFILE_USERS * cufile::WORDS;
/// Bytes of the file that are mapped: the tables.
pub(crate) const TABLE_BYTES: usize = TABLE_WORDS * WORD_BYTES;
/// Length of the file: one region for the tables, one for each possible device.
pub(crate) const FILE_BYTES: u64 = (MAX_DEVICES as u64 + 1) * DEVICE_REGION_BYTES;

const _: () = {
    assert!((TABLE_BYTES as u64) < DEVICE_REGION_BYTES);
    assert!(device_word(MAX_DEVICES as u32) <= ROWS_WORD);
    assert!(header::VIOLATIONS < DEVICES_WORD);
    assert!(device::NAME + device::NAME_WORDS <= device::WORDS);
    assert!(row::CALL + row::CALL_WORDS <= row::WORDS);
    assert!(cufile::FAULTS + cufile::FAULT_WORDS <= cufile::WORDS);
    assert!(violation::TEXT + violation::TEXT_WORDS <= violation::WORDS);
};

/// First word of a device's row.
pub(crate) const fn device_word(index: u32) -> usize {
    DEVICES_WORD + index as usize * device::WORDS
}

/// First word of an object's row.
pub(crate) const fn row_word(index: usize) -> usize {
    ROWS_WORD + index * row::WORDS
}

/// First word of a violation's row.
pub(crate) const fn violation_word(index: usize) -> usize {
    VIOLATIONS_WORD + index * violation::WORDS
}

/// First word of the row that counts the cuFile transfers of a process.
pub(crate) const fn cufile_word(index: usize) -> usize {
    CUFILE_WORD + index * cufile::WORDS
}

/// First device address of a device.
pub(crate) const fn device_base(index: u32) -> u64 {
    ADDRESS_BASE + (index as u64 + 1) * DEVICE_REGION_BYTES
}

/// The device whose region holds an address, whether or not anything is allocated there.
pub const fn device_of(address: u64) -> Option<u32> {
    if address < device_base(0) || address >= device_base(MAX_DEVICES as u32) {
        return None;
    }
    Some(((address - device_base(0)) / DEVICE_REGION_BYTES) as u32)
}

/// What an allocation of `bytes` takes from the capacity: `bytes` rounded up to [`ALLOCATION_UNIT_BYTES`].
pub const fn rounded_bytes(bytes: u64) -> u64 {
    match bytes.checked_next_multiple_of(ALLOCATION_UNIT_BYTES) {
        Some(rounded) => rounded,
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    //! The regions do not overlap and addresses belong to exactly one device.
    use super::*;

    #[test]
    fn an_address_belongs_to_the_device_of_its_region() {
        assert_eq!(device_of(0), None);
        assert_eq!(device_of(device_base(0) - 1), None);
        assert_eq!(device_of(device_base(0)), Some(0));
        assert_eq!(device_of(device_base(1) - 1), Some(0));
        assert_eq!(device_of(device_base(1)), Some(1));
        assert_eq!(
            device_of(device_base(MAX_DEVICES as u32) - 1),
            Some(MAX_DEVICES as u32 - 1)
        );
        assert_eq!(device_of(device_base(MAX_DEVICES as u32)), None);
    }

    #[test]
    fn sizes_round_up_to_the_unit_and_saturate() {
        assert_eq!(rounded_bytes(0), 0);
        assert_eq!(rounded_bytes(1), 512);
        assert_eq!(rounded_bytes(512), 512);
        assert_eq!(rounded_bytes(513), 1024);
        assert_eq!(rounded_bytes(u64::MAX), u64::MAX);
    }
}

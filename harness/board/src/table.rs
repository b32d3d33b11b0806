//! Changing the tables, under the lock.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::MutexGuard;

use crate::board::Board;
use crate::error::BoardError;
use crate::layout::{
    ADDRESS_STEP_BYTES, DEVICE_REGION_BYTES, MAX_OBJECTS, MAX_VIOLATIONS, ROW_VALID, device,
    device_base, device_of, device_word, header, row, row_word, violation, violation_word,
};
use crate::map::Words;
use crate::object::{NewObject, ObjectKind, RowId};
use crate::owner::Owner;

/// The board while this thread holds its lock.
#[derive(Debug)]
pub struct Locked<'a> {
    board: &'a Board,
    // Released after the lock of the file, which `drop` gives up first.
    _threads: MutexGuard<'static, ()>,
    _not_send: PhantomData<*const ()>,
}

impl<'a> Locked<'a> {
    pub(crate) fn new(board: &'a Board, threads: MutexGuard<'static, ()>) -> Locked<'a> {
        let locked = Locked {
            board,
            _threads: threads,
            _not_send: PhantomData,
        };
        if board.words().get(header::CHANGING) != 0 {
            locked.recount();
            board.words().set(header::CHANGING, 0);
        }
        locked
    }

    pub(crate) fn words(&self) -> &'a Words {
        self.board.words()
    }

    /// Bytes of a device that are taken: memory handed out and memory that pools keep.
    pub fn used_bytes(&self, index: u32) -> u64 {
        self.board
            .words()
            .get(device_word(index) + device::USED_BYTES)
    }

    /// Bytes of a device that are free.
    pub fn free_bytes(&self, index: u32) -> u64 {
        let capacity_bytes = self.board.capacity_bytes(index).unwrap_or(0);
        capacity_bytes.saturating_sub(self.used_bytes(index))
    }

    /// Hands out the next addresses of a device for `bytes` bytes. They are never handed out again.
    pub fn take_address(&mut self, index: u32, bytes: u64) -> Result<u64, BoardError> {
        self.require_device(index)?;
        let next = device_word(index) + device::NEXT_OFFSET;
        let offset = self.board.words().get(next);
        let exhausted = BoardError::AddressesExhausted { device: index };
        let end = offset
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(ADDRESS_STEP_BYTES))
            .and_then(|end| end.checked_add(ADDRESS_STEP_BYTES));
        match end {
            Some(end) if end <= DEVICE_REGION_BYTES => {
                self.board.words().set(next, end);
                Ok(device_base(index) + offset)
            }
            Some(_) | None => Err(exhausted),
        }
    }

    /// Puts an object on the board. Where the device or the table is full, what dead processes held is reclaimed and
    /// the call tries once more.
    pub fn insert(&mut self, owner: Owner, object: NewObject<'_>) -> Result<RowId, BoardError> {
        match self.try_insert(owner, object) {
            Err(BoardError::OutOfMemory { .. } | BoardError::TableFull { .. })
                if self.reclaim_dead() > 0 =>
            {
                self.try_insert(owner, object)
            }
            result => result,
        }
    }

    /// Changes the accounted size of an object; growing may fail for want of capacity, as in [`Locked::insert`].
    pub fn resize(&mut self, id: RowId, bytes: u64) -> Result<(), BoardError> {
        let start = row_word(id.0);
        let words = self.board.words();
        let old_bytes = words.get(start + row::BYTES);
        let index = words.get(start + row::DEVICE) as u32;
        if bytes > old_bytes {
            let wanted_bytes = bytes - old_bytes;
            if wanted_bytes > self.free_bytes(index) {
                self.reclaim_dead();
            }
            let free_bytes = self.free_bytes(index);
            if wanted_bytes > free_bytes {
                return Err(BoardError::OutOfMemory {
                    device: index,
                    wanted_bytes,
                    free_bytes,
                });
            }
        }
        self.begin_change();
        words.set(start + row::BYTES, bytes);
        let used = device_word(index) + device::USED_BYTES;
        words.set(
            used,
            words
                .get(used)
                .saturating_sub(old_bytes)
                .saturating_add(bytes),
        );
        self.end_change();
        Ok(())
    }

    /// Takes an object off the board and gives its memory back.
    pub fn remove(&mut self, id: RowId) {
        let start = row_word(id.0);
        let words = self.board.words();
        if words.get(start + row::STATE) != ROW_VALID {
            return;
        }
        let kind = ObjectKind::from_code(words.get(start + row::KIND));
        let bytes = words.get(start + row::BYTES);
        if kind == Some(ObjectKind::DeviceMemory) {
            self.board.discard(words.get(start + row::ADDRESS), bytes);
        }
        self.begin_change();
        words.set(start + row::STATE, 0);
        if kind.is_some_and(ObjectKind::takes_capacity) {
            let used = device_word(words.get(start + row::DEVICE) as u32) + device::USED_BYTES;
            words.set(used, words.get(used).saturating_sub(bytes));
        }
        if (id.0 as u64) < words.get(header::FREE_ROW_HINT) {
            words.set(header::FREE_ROW_HINT, id.0 as u64);
        }
        self.end_change();
    }

    /// Takes what dead processes left off the board; the number of objects.
    pub fn reclaim_dead(&mut self) -> usize {
        let mut alive: HashMap<Owner, bool> = HashMap::new();
        let dead: Vec<RowId> = self
            .valid_rows()
            .filter(|id| {
                let owner = self.owner(*id);
                !*alive.entry(owner).or_insert_with(|| owner.is_alive())
            })
            .collect();
        for id in &dead {
            self.remove(*id);
        }
        dead.len()
    }

    /// Writes a violation down. The first [`MAX_VIOLATIONS`] are kept, the rest counted.
    pub fn report(&mut self, pid: u32, call: &str, text: &str) {
        let words = self.board.words();
        let count = words.get(header::VIOLATIONS);
        if let Ok(index) = usize::try_from(count)
            && index < MAX_VIOLATIONS
        {
            let start = violation_word(index);
            words.set(start + violation::PID, u64::from(pid));
            words.set_text(start + violation::CALL, violation::CALL_WORDS, call);
            words.set_text(start + violation::TEXT, violation::TEXT_WORDS, text);
            words.set(start + violation::STATE, 1);
        }
        words.set(header::VIOLATIONS, count.saturating_add(1));
    }

    pub(crate) fn valid_rows(&self) -> impl Iterator<Item = RowId> + '_ {
        let words = self.board.words();
        let used = words.get(header::ROWS_USED).min(MAX_OBJECTS as u64) as usize;
        (0..used)
            .filter(|index| words.get(row_word(*index) + row::STATE) == ROW_VALID)
            .map(RowId)
    }

    pub(crate) fn owner(&self, id: RowId) -> Owner {
        let start = row_word(id.0);
        let words = self.board.words();
        Owner {
            pid: words.get(start + row::PID) as u32,
            start_ticks: words.get(start + row::START_TICKS),
        }
    }

    fn try_insert(&mut self, owner: Owner, object: NewObject<'_>) -> Result<RowId, BoardError> {
        self.require_device(object.device)?;
        if object.kind.takes_capacity() && object.bytes > self.free_bytes(object.device) {
            return Err(BoardError::OutOfMemory {
                device: object.device,
                wanted_bytes: object.bytes,
                free_bytes: self.free_bytes(object.device),
            });
        }
        debug_assert!(
            object.kind != ObjectKind::DeviceMemory
                || device_of(object.address) == Some(object.device)
        );
        let words = self.board.words();
        let hint = words.get(header::FREE_ROW_HINT).min(MAX_OBJECTS as u64) as usize;
        let free =
            (hint..MAX_OBJECTS).find(|index| words.get(row_word(*index) + row::STATE) != ROW_VALID);
        let Some(index) = free else {
            return Err(BoardError::TableFull { limit: MAX_OBJECTS });
        };
        self.begin_change();
        if words.get(header::ROWS_USED) <= index as u64 {
            words.set(header::ROWS_USED, index as u64 + 1);
        }
        words.set(header::FREE_ROW_HINT, index as u64 + 1);
        let start = row_word(index);
        words.set(start + row::KIND, object.kind.code());
        words.set(start + row::PID, u64::from(owner.pid));
        words.set(start + row::START_TICKS, owner.start_ticks);
        words.set(start + row::DEVICE, u64::from(object.device));
        words.set(start + row::BYTES, object.bytes);
        words.set(start + row::ADDRESS, object.address);
        words.set(start + row::SERIAL, object.serial);
        words.set_text(start + row::CALL, row::CALL_WORDS, object.call);
        words.set(start + row::STATE, ROW_VALID);
        if object.kind.takes_capacity() {
            let used = device_word(object.device) + device::USED_BYTES;
            words.set(used, words.get(used).saturating_add(object.bytes));
        }
        self.end_change();
        Ok(RowId(index))
    }

    fn require_device(&self, index: u32) -> Result<(), BoardError> {
        let devices = self.board.device_count();
        if index < devices {
            Ok(())
        } else {
            Err(BoardError::NoSuchDevice {
                device: index,
                devices,
            })
        }
    }

    fn begin_change(&self) {
        self.board.words().set(header::CHANGING, 1);
    }

    fn end_change(&self) {
        self.board.words().set(header::CHANGING, 0);
    }

    /// Recomputes what can be told from the rows, after a holder of the lock died while changing them.
    fn recount(&self) {
        let words = self.board.words();
        let mut used = vec![0u64; self.board.device_count() as usize];
        for id in self.valid_rows() {
            let start = row_word(id.0);
            let kind = ObjectKind::from_code(words.get(start + row::KIND));
            if kind.is_some_and(ObjectKind::takes_capacity)
                && let Some(sum) = used.get_mut(words.get(start + row::DEVICE) as usize)
            {
                *sum = sum.saturating_add(words.get(start + row::BYTES));
            }
        }
        for (sum, index) in used.into_iter().zip(0u32..) {
            words.set(device_word(index) + device::USED_BYTES, sum);
        }
        words.set(header::FREE_ROW_HINT, 0);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.board.unlock();
    }
}

#[cfg(test)]
mod tests {
    //! What the next holder of the lock finds after one that died in the middle of a change.
    use super::*;
    use crate::board::{BoardConfig, BoardDevice};

    #[test]
    fn counters_are_recomputed_after_an_unfinished_change() {
        let device = BoardDevice {
            capacity_bytes: 8192,
            name: String::new(),
        };
        let devices = vec![device];
        let board = Board::create(&BoardConfig { devices }).unwrap();
        let mut locked = board.lock().unwrap();
        let address = locked.take_address(0, 4096).unwrap();
        let object = NewObject {
            kind: ObjectKind::DeviceMemory,
            device: 0,
            bytes: 4096,
            address,
            call: "cuMemAlloc_v2",
            serial: 1,
        };
        let row = locked.insert(Owner::current(), object).unwrap();
        drop(locked);
        // As a process leaves it that died after clearing the row and before counting.
        board.words().set(header::CHANGING, 1);
        board.words().set(row_word(row.0) + row::STATE, 0);
        assert_eq!(board.lock().unwrap().used_bytes(0), 0);
        let next = board
            .lock()
            .unwrap()
            .insert(Owner::current(), object)
            .unwrap();
        assert_eq!(next, row);
        assert_eq!(board.lock().unwrap().used_bytes(0), 4096);
    }
}

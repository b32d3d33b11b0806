//! A libcufile inside the test process whose calls can be told to answer anything: what the emulated one, being a faithful
//! one, does not do by itself. Device memory is the fake driver's, which a test takes first.
#![allow(unsafe_code)]

use super::{
    Driver,
    raw::{RawDescriptor, RawHandle, RawProperties, RawStatus},
    symbols::Symbols,
};
use crate::cuda::fake::FakeDriver;
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    ffi::{c_int, c_long, c_void},
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// One test at a time has the library.
static TURN: Mutex<()> = Mutex::new(());
static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

/// What a call is to do instead of succeeding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Answers with this code, in a status or as a negative count.
    Code(i32),
    /// Returns this count with this errno, and moves nothing.
    Returns(isize, i32),
    /// Moves at most so many bytes.
    Short(usize),
    /// Moves everything, one bit of it wrong.
    Flips,
    /// Writes to a place of its own, and reads from there.
    Hides,
    /// Somebody else in the process has closed the driver.
    Closed,
    /// And opened it again.
    Reopened,
}

/// What a transfer does with its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Right,
    Flips,
    Hides,
}

#[derive(Default)]
struct Library {
    use_count: c_long,
    /// Descriptors by handle; those of before the driver was closed are not in it.
    handles: BTreeMap<usize, c_int>,
    /// Handles that a close took away. Giving one of these back is no mistake (seen with version 1.15).
    taken: Vec<usize>,
    next_handle: usize,
    buffers: BTreeMap<usize, usize>,
    calls: BTreeMap<&'static str, u64>,
    faults: Vec<(&'static str, u64, u64, Fault)>,
    properties: RawProperties,
    violations: Vec<String>,
    /// Most bytes of one transfer.
    largest: usize,
}

/// Where [`Fault::Hides`] puts bytes, by their offset in the file.
static HIDDEN: Mutex<BTreeMap<i64, Vec<u8>>> = Mutex::new(BTreeMap::new());

fn hidden() -> MutexGuard<'static, BTreeMap<i64, Vec<u8>>> {
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library of one test.
pub(crate) struct FakeCuFile {
    _turn: MutexGuard<'static, ()>,
}

fn library() -> MutexGuard<'static, Option<Library>> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeCuFile {
    /// One that reaches everything directly.
    pub(crate) fn new(_driver: &FakeDriver) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *library() = Some(Library {
            next_handle: 0xAB00,
            properties: RawProperties {
                major_version: 2,
                minor_version: 17,
                status_flags: !0,
                ..RawProperties::default()
            },
            ..Library::default()
        });
        Self { _turn: turn }
    }

    /// Without nvidia-fs.
    pub(crate) fn serve_in_compat_mode(&self) {
        self.with(|library| library.properties = RawProperties::default());
    }

    /// The driver as the engine opens it, by the watchdog.
    pub(crate) fn driver(&self) -> Result<Arc<Driver>, String> {
        Driver::open(|| Ok(symbols()), Duration::from_secs(10))
    }

    /// One whose opening waits for `release`, with this bound.
    pub(crate) fn hanging_driver(
        &self,
        release: std::sync::mpsc::Receiver<()>,
        bound: Duration,
    ) -> Result<Arc<Driver>, String> {
        let load = move || {
            // An error means that the test is over.
            let _ = release.recv();
            Err("it was let go".into())
        };
        Driver::open(load, bound)
    }

    /// Lets the `first`th to `last`th call from now on do `fault`.
    pub(crate) fn fail(&self, call: &'static str, first: u64, last: u64, fault: Fault) {
        self.with(|library| {
            let before = library.calls.get(call).copied().unwrap_or(0);
            let last = last.saturating_add(before);
            library.faults.push((call, before + first, last, fault));
        });
    }

    pub(crate) fn stop_failing(&self) {
        self.with(|library| library.faults.clear());
    }

    pub(crate) fn calls(&self, call: &'static str) -> u64 {
        self.with(|library| library.calls.get(call).copied().unwrap_or(0))
    }

    pub(crate) fn handles(&self) -> usize {
        self.with(|library| library.handles.len())
    }

    pub(crate) fn buffers(&self) -> usize {
        self.with(|library| library.buffers.len())
    }

    pub(crate) fn largest_transfer(&self) -> usize {
        self.with(|library| library.largest)
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.with(|library| library.violations.clone())
    }

    /// What somebody else's `cuFileDriverClose` does: every handle and registration is gone.
    pub(crate) fn close_by_somebody_else(&self) {
        self.with(Library::close);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Library) -> T) -> T {
        act(library().as_mut().expect("the library lives"))
    }
}

impl Library {
    fn close(&mut self) {
        self.use_count = 0;
        self.taken.extend(self.handles.keys());
        self.handles.clear();
        self.buffers.clear();
    }

    /// Counts the call, and tells what it is to do.
    fn fault(&mut self, call: &'static str) -> Option<Fault> {
        let count = self.calls.entry(call).or_default();
        *count += 1;
        let count = *count;
        let planned = self
            .faults
            .iter()
            .find(|(name, first, last, _)| *name == call && (*first..=*last).contains(&count));
        planned.map(|(_, _, _, fault)| *fault)
    }

    fn file(&self, handle: usize) -> Option<File> {
        let descriptor = self.handles.get(&handle)?;
        // Without O_DIRECT: the fake has no aligned memory.
        let path = format!("/proc/self/fd/{descriptor}");
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .ok()
    }

    fn transfer(
        &mut self,
        call: &'static str,
        handle: usize,
        wanted: usize,
        act: impl FnOnce(&File, usize, Manner) -> std::io::Result<usize>,
    ) -> isize {
        self.largest = self.largest.max(wanted);
        let (len, manner) = match self.fault(call) {
            None => (wanted, Manner::Right),
            Some(Fault::Flips) => (wanted, Manner::Flips),
            Some(Fault::Hides) => (wanted, Manner::Hides),
            Some(Fault::Short(bytes)) => (wanted.min(bytes), Manner::Right),
            Some(Fault::Code(code)) => return -(code as isize),
            Some(Fault::Returns(returned, errno)) => {
                Errno::set_raw(errno);
                return returned;
            }
            Some(fault @ (Fault::Closed | Fault::Reopened)) => {
                self.close();
                self.use_count = c_long::from(matches!(fault, Fault::Reopened));
                (0, Manner::Right)
            }
        };
        let Some(file) = self.file(handle) else {
            Errno::set_raw(5027);
            return -1;
        };
        match act(&file, len, manner) {
            Ok(count) => count as isize,
            Err(error) => {
                Errno::set_raw(error.raw_os_error().unwrap_or(libc::EIO));
                -1
            }
        }
    }
}

fn status(code: i32) -> RawStatus {
    RawStatus { code, cuda: 0 }
}

/// A call that answers with a status.
fn call(name: &'static str, act: impl FnOnce(&mut Library) -> i32) -> RawStatus {
    let mut guard = library();
    let Some(library) = guard.as_mut() else {
        return status(5001);
    };
    match library.fault(name) {
        Some(Fault::Code(code)) => status(code),
        Some(Fault::Closed | Fault::Reopened) => {
            library.close();
            status(5001)
        }
        Some(Fault::Returns(..) | Fault::Short(_) | Fault::Flips | Fault::Hides) | None => {
            status(act(library))
        }
    }
}

fn symbols() -> Symbols {
    Symbols {
        open_driver,
        properties,
        register_handle,
        deregister_handle,
        register_buffer,
        deregister_buffer,
        read,
        write,
        use_count: Some(use_count),
    }
}

unsafe extern "C" fn open_driver() -> RawStatus {
    call("cuFileDriverOpen", |library| {
        library.use_count += 1;
        0
    })
}

unsafe extern "C" fn use_count() -> c_long {
    library().as_ref().map_or(0, |library| library.use_count)
}

unsafe extern "C" fn properties(out: *mut RawProperties) -> RawStatus {
    call("cuFileDriverGetProperties", |library| {
        // SAFETY: the caller gives one structure to write to.
        unsafe { *out = library.properties };
        0
    })
}

unsafe extern "C" fn register_handle(
    out: *mut RawHandle,
    descriptor: *mut RawDescriptor,
) -> RawStatus {
    call("cuFileHandleRegister", |library| {
        // SAFETY: the caller gives one descriptor to read and one handle to write.
        let (kind, descriptor) = unsafe { ((*descriptor).kind, (*descriptor).file.descriptor) };
        if kind != 1 {
            return 5008;
        }
        if library.handles.values().any(|known| *known == descriptor) {
            library.violations.push(format!("{descriptor} twice"));
            return 5028;
        }
        library.use_count = library.use_count.max(1);
        library.next_handle += 1;
        library.handles.insert(library.next_handle, descriptor);
        // SAFETY: as above.
        unsafe { *out = library.next_handle as RawHandle };
        0
    })
}

unsafe extern "C" fn deregister_handle(handle: RawHandle) {
    let _ = call("cuFileHandleDeregister", |library| {
        match library.handles.remove(&(handle as usize)) {
            Some(descriptor) => {
                let path = format!("/proc/self/fd/{descriptor}");
                if std::fs::symlink_metadata(path).is_err() {
                    library
                        .violations
                        .push(format!("descriptor {descriptor} closed before its handle"));
                }
            }
            None if library.taken.contains(&(handle as usize)) => {}
            None => library
                .violations
                .push(format!("unknown handle {handle:?} deregistered")),
        }
        0
    });
}

unsafe extern "C" fn register_buffer(
    address: *const c_void,
    bytes: usize,
    _flags: c_int,
) -> RawStatus {
    call("cuFileBufRegister", |library| {
        if FakeDriver::peek(address as u64, bytes).is_none() {
            return 5014;
        }
        match library.buffers.insert(address as usize, bytes) {
            None => 0,
            Some(_) => 5023,
        }
    })
}

unsafe extern "C" fn deregister_buffer(address: *const c_void) -> RawStatus {
    call("cuFileBufDeregister", |library| {
        match library.buffers.remove(&(address as usize)) {
            Some(bytes) => {
                if FakeDriver::peek(address as u64, bytes).is_none() {
                    library
                        .violations
                        .push("memory freed while registered".into());
                }
                0
            }
            None => 5024,
        }
    })
}

unsafe extern "C" fn write(
    handle: RawHandle,
    base: *const c_void,
    wanted: usize,
    file_offset: libc::off_t,
    offset: libc::off_t,
) -> isize {
    let mut guard = library();
    let library = guard.as_mut().expect("the library lives");
    library.transfer(
        "cuFileWrite",
        handle as usize,
        wanted,
        |file, len, manner| {
            let from = base as u64 + offset as u64;
            let mut bytes = FakeDriver::peek(from, len).ok_or(std::io::ErrorKind::Other)?;
            match manner {
                Manner::Right => {}
                Manner::Flips => bytes[len / 2] ^= 1,
                Manner::Hides => {
                    hidden().insert(file_offset, bytes);
                    return Ok(len);
                }
            }
            file.write_at(&bytes, file_offset as u64)
        },
    )
}

unsafe extern "C" fn read(
    handle: RawHandle,
    base: *mut c_void,
    wanted: usize,
    file_offset: libc::off_t,
    offset: libc::off_t,
) -> isize {
    let mut guard = library();
    let library = guard.as_mut().expect("the library lives");
    library.transfer(
        "cuFileRead",
        handle as usize,
        wanted,
        |file, len, manner| {
            let mut bytes = vec![0; len];
            let count = file.read_at(&mut bytes, file_offset as u64)?;
            match manner {
                Manner::Right => {}
                Manner::Flips => bytes[len / 2] ^= 1,
                Manner::Hides => bytes = hidden()[&file_offset].clone(),
            }
            let to = base as u64 + offset as u64;
            if !FakeDriver::poke(to, &bytes[..count]) {
                return Err(std::io::ErrorKind::Other.into());
            }
            Ok(count)
        },
    )
}

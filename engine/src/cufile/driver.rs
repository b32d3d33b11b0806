//! The driver: opened once a process, under a watchdog, and given up for good once it is known to be gone.
#![allow(unsafe_code)]

use super::{
    answer::Failure,
    code::Code,
    mode::{Mode, Storage},
    module_table,
    raw::{RawProperties, RawStatus},
    symbols::Symbols,
};
use std::{
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

/// The open driver, and what it says of itself.
pub(crate) struct Driver {
    pub(super) symbols: Symbols,
    properties: RawProperties,
    /// Who may call it: behaviour after a fork is undefined (cuFile API Reference Guide, Usage).
    process: u32,
    /// Why it must not be called any more.
    lost: OnceLock<String>,
}

/// One attempt a process (F25), whoever asks.
static SHARED: OnceLock<Result<Arc<Driver>, String>> = OnceLock::new();

impl Driver {
    /// The process's driver. The first caller loads the library and opens the driver, which may take up to `bound`;
    /// the answer is then the same for everybody, for the life of the process. Call it only when a CUDA device is
    /// open: without libcuda, opening was seen to hang or to end the process.
    ///
    /// # Errors
    /// The reason why there is none, for people.
    pub(crate) fn shared(bound: Duration) -> Result<Arc<Self>, String> {
        let driver = SHARED
            .get_or_init(|| {
                let load = || {
                    let symbols = Symbols::load()?;
                    module_table::check(&symbols)?;
                    Ok(symbols)
                };
                Self::open(load, bound)
            })
            .clone()?;
        driver.usable()?;
        Ok(driver)
    }

    /// Loads and opens in a thread of its own, which is left to itself when it has not come back within `bound` (E27).
    pub(super) fn open(
        load: impl FnOnce() -> Result<Symbols, String> + Send + 'static,
        bound: Duration,
    ) -> Result<Arc<Self>, String> {
        let (tell, told) = mpsc::channel();
        let opener = std::thread::Builder::new()
            .name("cufile-open".into())
            .spawn(move || {
                let opened = load().and_then(open_driver);
                // Nobody listens when it took too long; the driver is then never used.
                let _ = tell.send(opened);
            })
            .map_err(|error| format!("no thread to open the cuFile driver: {error}"))?;
        let opened = match told.recv_timeout(bound) {
            Ok(opened) => {
                // It has said all it had to, so this waits for its end only.
                let _ = opener.join();
                opened?
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "the cuFile driver did not open within {} ms",
                    bound.as_millis()
                ));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err("the thread that opened the cuFile driver panicked".into());
            }
        };
        Ok(Arc::new(Self {
            symbols: opened.0,
            properties: opened.1,
            process: std::process::id(),
            lost: OnceLock::new(),
        }))
    }

    /// How transfers with this kind of storage travel.
    pub(crate) fn mode(&self, storage: Storage) -> Mode {
        Mode::of(&self.properties, storage)
    }

    /// Whether it may be called.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn usable(&self) -> Result<(), String> {
        if std::process::id() != self.process {
            return Err(format!(
                "the cuFile driver belongs to process {}, not to its forked child",
                self.process
            ));
        }
        match self.lost.get() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// Nobody in this process calls it any more.
    pub(crate) fn lose(&self, reason: &str) {
        // The first reason is the cause of the others.
        let _ = self.lost.set(reason.to_owned());
    }

    /// Whether it still keeps what it gave out, so that this can be given back. Once it was closed, handles of before mean
    /// nothing any more (transfers with them fail with 5027, also when it is open again), and registering another one
    /// would open it behind the back of whoever closed it (F33; both seen with version 1.15). One that was
    /// opened again cannot be told from one that never was closed; giving it an old handle back does nothing.
    pub(crate) fn is_open(&self) -> bool {
        if std::process::id() != self.process {
            return false;
        }
        let Some(use_count) = self.symbols.use_count else {
            return self.lost.get().is_none();
        };
        // SAFETY: no arguments; the library stays loaded.
        let is_open = unsafe { use_count() } > 0;
        if !is_open {
            self.lose("the cuFile driver was closed by somebody else in this process");
        }
        is_open
    }
}

fn open_driver(symbols: Symbols) -> Result<(Symbols, RawProperties), String> {
    // SAFETY: no arguments. A CUDA device is open in this process (see `Driver::shared`).
    let status = unsafe { (symbols.open_driver)() };
    if status.code != Code::DRIVER_ALREADY_OPEN.0 {
        check("cuFileDriverOpen", status).map_err(|failure| failure.to_string())?;
    }
    let mut properties = RawProperties::default();
    // SAFETY: the call writes one structure, for which there is more room than any known version takes.
    let status = unsafe { (symbols.properties)(&mut properties) };
    check("cuFileDriverGetProperties", status).map_err(|failure| failure.to_string())?;
    Ok((symbols, properties))
}

/// Turns a status into a failure.
pub(super) fn check(call: &'static str, status: RawStatus) -> Result<(), Failure> {
    if status.code == 0 {
        return Ok(());
    }
    Err(Failure::Code {
        call,
        // Seen with either sign.
        code: Code(status.code.saturating_abs()),
        cuda: status.cuda,
    })
}

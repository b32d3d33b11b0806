//! Starting a process that sees nothing of the harness but its socket, and does not outlive it.
#![allow(unsafe_code)]

use super::tree;
use crate::{error::HarnessError, sandbox::Sandbox, world::Enclosure};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigHandler, Signal, signal},
        stat::{Mode, umask},
    },
    unistd::{Pid, getppid, setsid},
};
use spillproof_protocol::{MAX_LINE_BYTES, SOCKET_FD_VARIABLE};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread,
};

/// Environment variable that marks every process of a subject's tree, so that strays can be found.
pub const TREE_VARIABLE: &str = "SPILLPROOF_TREE";

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectCommand {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment on top of the scrubbed one and the device's; wins over both.
    pub env: Vec<(OsString, OsString)>,
}

/// What a subject may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`, bytes.
    pub address_space_bytes: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub descriptors: Option<u64>,
    /// `RLIMIT_FSIZE`, bytes. `SIGXFSZ` is ignored then, so that writes fail with `EFBIG`.
    pub file_bytes: Option<u64>,
    /// Longest line taken from the subject, bytes.
    pub line_bytes: usize,
    /// Most that a standard stream may carry before it is a finding, bytes.
    pub stream_bytes: u64,
    /// Whether it may have transparent huge pages, where the machine gives them out. Then page faults bound no peak.
    pub huge_pages: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            address_space_bytes: None,
            descriptors: None,
            file_bytes: None,
            line_bytes: MAX_LINE_BYTES,
            stream_bytes: 8 << 20,
            huge_pages: false,
        }
    }
}

/// A started process, its socket, and the mark of its tree.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
    pub(super) mark: OsString,
}

pub(super) fn start(
    command: &SubjectCommand,
    sandbox: &Sandbox,
    device_env: Vec<(OsString, OsString)>,
    limits: Limits,
) -> Result<Started, HarnessError> {
    static SUBJECTS: AtomicU64 = AtomicU64::new(1);
    let (socket, theirs) = UnixStream::pair().map_err(HarnessError::system("socketpair"))?;
    let harness = std::process::id();
    let mark = OsString::from(format!(
        "{harness}-{}",
        SUBJECTS.fetch_add(1, Ordering::Relaxed)
    ));
    let mut process = Command::new(&command.program);
    process
        .args(&command.args)
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        )
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .env("HOME", sandbox.home_dir())
        .env("TMPDIR", sandbox.tmp_dir())
        .env("OFFLOAD_DIR", sandbox.offload_dir())
        .envs(device_env.iter().cloned())
        .envs(command.env.iter().cloned())
        .env(SOCKET_FD_VARIABLE, theirs.as_raw_fd().to_string())
        .env(TREE_VARIABLE, &mark)
        .current_dir(sandbox.work_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut kept = vec![theirs.as_raw_fd()];
    let enclosure = sandbox.enclosure().clone();
    if enclosure.is_private() {
        for (name, value) in &device_env {
            // A process in a user namespace of its own may not follow links to the harness's descriptors.
            if let Some(descriptor) = own_descriptor(value) {
                process.env(name, format!("/proc/self/fd/{descriptor}"));
                kept.push(descriptor);
            }
        }
    }
    let harness_pid = Pid::from_raw(harness.cast_signed());
    // SAFETY: between fork and exec only async-signal-safe system calls are made; nothing allocates or locks.
    unsafe { process.pre_exec(move || prepare(harness_pid, &kept, limits, &enclosure)) };
    let child = on_spawner(process)?.map_err(|source| HarnessError::Start {
        program: command.program.clone(),
        source,
    })?;
    Ok(Started {
        child,
        socket,
        mark,
    })
}

/// The descriptor of the harness that a path names.
fn own_descriptor(path: &OsStr) -> Option<RawFd> {
    let own = format!("/proc/{}/fd/", std::process::id());
    path.to_str()?.strip_prefix(&own)?.parse().ok()
}

/// Runs in the child, before exec.
fn prepare(harness: Pid, kept: &[RawFd], limits: Limits, enclosure: &Enclosure) -> io::Result<()> {
    setsid()?;
    // Before the next line: other credentials would take the parent-death signal back.
    enclosure.enter()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if !limits.huge_pages {
        // Peaks are bounded by page faults (`probe/bounds.rs`): one fault, one page.
        prctl::set_thp_disable(true)?;
    }
    // The harness may have died before the line above; nobody would send the signal then.
    if getppid() != harness {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, limits.address_space_bytes),
        (Resource::RLIMIT_NOFILE, limits.descriptors),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
    ] {
        if let Some(limit) = limit {
            setrlimit(resource, limit, limit)?;
        }
    }
    if limits.file_bytes.is_some() {
        // SAFETY: no handler is installed; "ignore" survives exec.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    }
    // SAFETY: plain system call; it marks descriptors, it closes none.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        return Err(io::Error::last_os_error());
    }
    for descriptor in kept {
        // SAFETY: the descriptor was inherited over the fork and stays open until exec.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

struct Job {
    command: Command,
    started: Sender<io::Result<Child>>,
}

/// Spawns in a thread that lives as long as the harness.
///
/// The parent-death signal comes when the *thread* that forked ends [man 2 PR_SET_PDEATHSIG]: were it the
/// thread of a test, subjects that it handed on would die with it.
pub(super) fn on_spawner(command: Command) -> Result<io::Result<Child>, HarnessError> {
    static SPAWNER: OnceLock<Result<Sender<Job>, i32>> = OnceLock::new();
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EAGAIN);
    let spawner = SPAWNER.get_or_init(|| {
        prctl::set_child_subreaper(true).map_err(|error| error as i32)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for mut job in queue {
                    let child = tree::register(|| job.command.spawn());
                    // Nobody waits any more only if the asking thread panicked.
                    let _ = job.started.send(child);
                }
            })
            .map_err(errno)?;
        Ok(jobs)
    });
    let lost = || HarnessError::System {
        call: "spawner thread",
        source: io::ErrorKind::BrokenPipe.into(),
    };
    let jobs = spawner.as_ref().map_err(|&error| HarnessError::System {
        call: "prctl(PR_SET_CHILD_SUBREAPER)",
        source: io::Error::from_raw_os_error(error),
    })?;
    let (started, child) = mpsc::channel();
    jobs.send(Job { command, started }).map_err(|_| lost())?;
    child.recv().map_err(|_| lost())
}

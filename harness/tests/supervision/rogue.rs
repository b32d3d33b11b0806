//! The subjects: one that behaves, one that does what probes should see, and one for each way to misbehave.
#![allow(unsafe_code)]

use nix::{
    sys::{mman, signal},
    unistd::{ForkResult, Pid, fork, setsid},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    num::NonZero,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{self, ExitCode},
    ptr::NonNull,
    thread,
    time::Duration,
};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

pub(crate) struct Line {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Line {
    pub(crate) fn open() -> Self {
        let fd = env::var("SPILLPROOF_SOCKET_FD").unwrap().parse().unwrap();
        // SAFETY: the harness left this descriptor to this process, and nobody else here uses it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let writer = UnixStream::from(socket);
        Self {
            reader: BufReader::new(writer.try_clone().unwrap()),
            writer,
        }
    }

    /// The next request; without one the process ends.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
            process::exit(1);
        }
        serde_json::from_str(&line).unwrap()
    }

    fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn ok(&mut self, request: &Value, ok: Value) {
        self.write(&format!("{}\n", json!({"id": request["id"], "ok": ok})));
    }

    fn hello(&mut self) {
        let request = self.next();
        self.ok(&request, hello(1));
    }

    /// Answers everything until `quit`.
    fn serve(&mut self) {
        loop {
            let request = self.next();
            self.ok(&request, json!({}));
            if request["verb"] == "quit" {
                return;
            }
        }
    }
}

fn hello(protocol: u32) -> Value {
    json!({"protocol": protocol, "engine": "rogue", "version": "0", "capabilities": []})
}

pub(crate) fn run(behaviour: &str) -> ExitCode {
    let mut line = Line::open();
    match behaviour {
        "speaks_another_version" => {
            let request = line.next();
            line.ok(&request, hello(2));
        }
        "never_answers_hello" => thread::sleep(FOREVER),
        "exits_before_hello" => return ExitCode::SUCCESS,
        _ => line.hello(),
    }
    match behaviour {
        "quits_with_status_5" => {
            line.serve();
            return ExitCode::from(5);
        }
        "lingers_after_quit" => {
            line.serve();
            thread::sleep(FOREVER);
        }
        "ignores_the_closed_socket" => thread::sleep(FOREVER),
        "exits_zero_when_the_socket_closes" => {
            let mut text = String::new();
            let _ = line.reader.read_line(&mut text);
            return ExitCode::SUCCESS;
        }
        "works" => return work(&mut line),
        "forks_a_child" => leave_behind(false),
        "forks_a_daemon" => leave_behind(true),
        "behaves" | "speaks_another_version" => {}
        _ => {
            let request = line.next();
            return misbehave(behaviour, &mut line, &request);
        }
    }
    line.serve();
    ExitCode::SUCCESS
}

/// What is done instead of answering one request rightly.
fn misbehave(behaviour: &str, line: &mut Line, request: &Value) -> ExitCode {
    let id = request["id"].as_u64().unwrap();
    let answer = format!("{}\n", json!({"id": id, "ok": {}}));
    match behaviour {
        "speaks_garbage" => line.write("Traceback (most recent call last):\n"),
        "answers_ok_and_error" => line.write(&format!(
            "{}\n",
            json!({"id": id, "ok": {}, "error": {"kind": "io", "message": ""}})
        )),
        "answers_neither" => line.write(&format!("{}\n", json!({"id": id}))),
        "answers_with_an_unknown_field" => {
            line.write(&format!("{}\n", json!({"id": id, "ok": {}, "note": 1})));
        }
        "answers_an_unknown_error_kind" => line.write(&format!(
            "{}\n",
            json!({"id": id, "error": {"kind": "tired", "message": ""}})
        )),
        "answers_twice" => line.write(&format!("{answer}{answer}")),
        "answers_twice_later" => {
            line.write(&answer);
            thread::sleep(Duration::from_millis(100));
            line.write(&answer);
        }
        "answers_the_wrong_id" => {
            line.write(&format!("{}\n", json!({"id": id + 1, "ok": {}})));
        }
        "answers_without_end" => loop {
            if line.writer.write_all(&[b'x'; 1 << 16]).is_err() {
                thread::sleep(FOREVER);
            }
        },
        "stops_within_a_line" => line.write(r#"{"id":2,"#),
        "answers_both_in_reverse"
        | "answers_one_of_both_twice"
        | "answers_neither_of_both_but_another"
        | "answers_only_the_second" => {
            let second = line.next()["id"].as_u64().unwrap();
            let ids = match behaviour {
                "answers_both_in_reverse" => vec![second, id],
                "answers_one_of_both_twice" => vec![second, second],
                "answers_only_the_second" => vec![second],
                _ => vec![second + 1],
            };
            for id in ids {
                // What tells the answers apart.
                line.write(&format!("{}\n", json!({"id": id, "ok": {"to": id}})));
            }
            if behaviour == "answers_both_in_reverse" {
                line.serve();
                return ExitCode::SUCCESS;
            }
        }
        "floods_standard_error" => {
            flood(std::io::stderr());
            line.write(&answer);
            line.serve();
            return ExitCode::SUCCESS;
        }
        "floods_standard_output" => {
            flood(std::io::stdout());
            line.write(&answer);
            line.serve();
            return ExitCode::SUCCESS;
        }
        "closes_its_socket" => {
            line.writer.shutdown(std::net::Shutdown::Both).unwrap();
        }
        "hangs" => {}
        "exits_zero_too_early" => return ExitCode::SUCCESS,
        "exits_with_status_3" => return ExitCode::from(3),
        "answers_and_exits_with_status_3" => {
            line.write(&answer);
            return ExitCode::from(3);
        }
        "dies_by_sigkill" => {
            signal::kill(Pid::this(), signal::Signal::SIGKILL).unwrap();
        }
        "dies_by_a_real_time_signal" => {
            // SAFETY: sends a signal to this process.
            unsafe { libc::raise(libc::SIGRTMIN() + 3) };
        }
        "dies_by_sigsegv" => {
            // SAFETY: it is not: this faults, as a broken engine would.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
        }
        "aborts" => process::abort(),
        other => panic!("no such behaviour: {other}"),
    }
    thread::sleep(FOREVER);
    ExitCode::SUCCESS
}

fn flood(mut stream: impl Write) {
    for _ in 0..32 {
        stream.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    stream.write_all(b"\nlast words\n").unwrap();
    stream.flush().unwrap();
}

/// Leaves a process behind: a child, or a daemon two forks away in a session of its own. Writes its pid to `left`.
fn leave_behind(daemon: bool) {
    fn fork_once() -> bool {
        // SAFETY: this process has one thread.
        matches!(unsafe { fork() }.unwrap(), ForkResult::Child)
    }
    if fork_once() {
        if daemon {
            setsid().unwrap();
            if !fork_once() {
                process::exit(0);
            }
        }
        fs::write("left.new", process::id().to_string()).unwrap();
        fs::rename("left.new", "left").unwrap();
        thread::sleep(FOREVER);
    }
    while !fs::exists("left").unwrap() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Does tasks, one a request, and answers when they are done.
fn work(line: &mut Line) -> ExitCode {
    let mut kept = Kept::default();
    loop {
        let request = line.next();
        if request["verb"] == "quit" {
            line.ok(&request, json!({}));
            return ExitCode::SUCCESS;
        }
        let task = request["args"]["model"].as_str().unwrap_or_default();
        let value = kept.task(task);
        line.ok(&request, json!({ "value": value }));
    }
}

#[derive(Default)]
struct Kept {
    files: BTreeMap<String, File>,
    maps: BTreeMap<String, Map>,
}

impl Kept {
    fn task(&mut self, task: &str) -> Value {
        let words: Vec<&str> = task.split(' ').collect();
        match words[..] {
            ["environment"] => json!(env::vars().collect::<BTreeMap<_, _>>()),
            ["descriptors"] => {
                let targets = fs::read_dir("/proc/self/fd").unwrap();
                let targets = targets.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
                json!(targets.collect::<Vec<_>>())
            }
            ["limits"] => json!(fs::read_to_string("/proc/self/limits").unwrap()),
            ["write", path, bytes] => {
                let written = fs::write(path, vec![1; bytes.parse().unwrap()]);
                json!(written.err().and_then(|error| error.raw_os_error()))
            }
            ["open", path] => {
                self.files.insert(path.into(), File::open(path).unwrap());
                Value::Null
            }
            ["close", path] => {
                self.files.remove(path).unwrap();
                Value::Null
            }
            ["map", path] => {
                self.maps.insert(path.into(), Map::file(path));
                Value::Null
            }
            ["unmap", path] => {
                self.maps.remove(path).unwrap();
                Value::Null
            }
            // Fills and releases.
            ["fill", mib] => {
                Map::anonymous(mib.parse().unwrap()).fill();
                Value::Null
            }
            ["read", path] => json!(self.maps[path].sum()),
            // A map comes, is read, and goes, again and again: no copy is ever made.
            ["sweep", path, times] => {
                let sums = (0..times.parse().unwrap()).map(|_| Map::file(path).sum());
                json!(sums.collect::<Vec<u64>>())
            }
            // The file's pages leave, a whole copy comes and goes, the pages come back.
            ["swap", path, mib] => {
                self.maps.remove(path).unwrap();
                Map::anonymous(mib.parse().unwrap()).fill();
                let map = Map::file(path);
                let sum = map.sum();
                self.maps.insert(path.into(), map);
                json!(sum)
            }
            _ => panic!("no such task: {task}"),
        }
    }
}

struct Map {
    start: NonNull<std::ffi::c_void>,
    bytes: usize,
}

impl Map {
    fn file(path: &str) -> Self {
        let file = File::open(path).unwrap();
        let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let (protection, flags) = (mman::ProtFlags::PROT_READ, mman::MapFlags::MAP_SHARED);
        // SAFETY: a new map at an address of the kernel's choice; no test changes the file while it lives.
        let start = unsafe {
            mman::mmap(
                None,
                NonZero::new(bytes).unwrap(),
                protection,
                flags,
                &file,
                0,
            )
        };
        Self {
            start: start.unwrap(),
            bytes,
        }
    }

    fn anonymous(mib: usize) -> Self {
        let bytes = mib << 20;
        let protection = mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE;
        let flags = mman::MapFlags::MAP_PRIVATE;
        // SAFETY: a new map at an address of the kernel's choice.
        let start =
            unsafe { mman::mmap_anonymous(None, NonZero::new(bytes).unwrap(), protection, flags) };
        let start = start.unwrap();
        // An engine may ask for huge pages; a kernel without them refuses.
        // SAFETY: the map is ours, and this long.
        let _ = unsafe { mman::madvise(start, bytes, mman::MmapAdvise::MADV_HUGEPAGE) };
        Self { start, bytes }
    }

    fn fill(&mut self) {
        // SAFETY: the map is ours, writable, and this long.
        unsafe { self.start.as_ptr().cast::<u8>().write_bytes(1, self.bytes) };
    }

    /// Reads one byte of each page.
    fn sum(&self) -> u64 {
        // SAFETY: the map is ours, readable, and this long.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.bytes) };
        bytes
            .iter()
            .step_by(4096)
            .map(|&byte| u64::from(byte))
            .sum()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the map any more.
        unsafe { mman::munmap(self.start, self.bytes) }.unwrap();
    }
}

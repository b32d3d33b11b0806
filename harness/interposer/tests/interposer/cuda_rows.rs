//! How functions of CUDA and cuFile are called with success on the emulated driver, and what shows that they did something. What is not
//! listed is called with nulls, and has to refuse in its own way.
//!
//! Preparations pass the wrappers, too, so none of them uses the function under test. What an earlier round left registered, because its
//! call was made to fail, is still there for the next.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;

use spillproof_board::{BOARD_VARIABLE, Board};
use spillproof_faults::{Library, Site};

use crate::calls::{call, find, open};

const BYTES: usize = 4096;

/// A process with the driver loaded, a context, memory on both sides, a stream, an event, and a file.
pub(crate) struct Machine {
    cuda: *mut c_void,
    cufile: *mut c_void,
    site: String,
    board: Board,
    out: Box<[usize; 4]>,
    host: Box<Page>,
    device: usize,
    stream: usize,
    event: usize,
    handle: usize,
    descriptor: Box<Description>,
    file: std::fs::File,
    properties: Box<[u32; 22]>,
}

#[repr(C, align(4096))]
struct Page([u8; BYTES]);

/// `CUfileDescr_t`.
#[repr(C)]
struct Description {
    kind: u32,
    number: i64,
    operations: u64,
}

/// What the call may change.
#[derive(PartialEq, Eq)]
pub(crate) struct State {
    objects: Vec<(u64, u64)>,
    out: [usize; 4],
    host: Vec<u8>,
    device: Vec<u8>,
    file: Vec<u8>,
}

impl Machine {
    pub(crate) fn start(scope: &Path, site: &str) -> Machine {
        let cuda = open("libcuda.so.1", libc::RTLD_NOW);
        let cufile = open("libcufile.so.0", libc::RTLD_NOW);
        assert!(!cuda.is_null() && !cufile.is_null());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(scope.join("file")).unwrap();
        file.set_len(BYTES as u64).unwrap();
        let board = std::env::var_os(BOARD_VARIABLE).unwrap();
        let mut properties = Box::new([0; 22]);
        // Pinned memory on device 0.
        (properties[0], properties[2]) = (1, 1);
        let mut machine = Machine {
            cuda,
            cufile,
            site: site.to_owned(),
            board: Board::open(Path::new(&board)).unwrap(),
            out: Box::new([0; 4]),
            host: Box::new(Page([b'h'; BYTES])),
            device: 0,
            stream: 0,
            event: 0,
            handle: 0,
            descriptor: Box::new(Description {
                kind: 1,
                number: i64::from(file.as_raw_fd()),
                operations: 0,
            }),
            file,
            properties,
        };
        machine.prepare();
        machine
    }

    fn prepare(&mut self) {
        if self.site == "cuInit" {
            return;
        }
        self.ok("cuInit", &[0]);
        let context = match self.site.as_str() {
            "cuDevicePrimaryCtxRetain" => self.get("cuCtxCreate_v2", &[0, 0]),
            _ => self.get("cuDevicePrimaryCtxRetain", &[0]),
        };
        self.ok("cuCtxSetCurrent", &[context]);
        self.device = match self.site.as_str() {
            "cuMemAlloc" => self.get("cuMemAllocAsync", &[BYTES, 0]),
            _ => self.get("cuMemAlloc_v2", &[BYTES]),
        };
        self.stream = match self.site.as_str() {
            "cuStreamCreate" => self.get("cuStreamCreateWithPriority", &[1, 0]),
            _ => self.get("cuStreamCreate", &[1]),
        };
        if self.site != "cuEventCreate" {
            self.event = self.get("cuEventCreate", &[0]);
        }
        let needs_handle = [
            "cuFileRead",
            "cuFileWrite",
            "cuFileReadAsync",
            "cuFileWriteAsync",
        ];
        if needs_handle.contains(&self.site.as_str()) {
            self.handle = self.register();
        }
    }

    /// A library's handle.
    pub(crate) fn library(&self, library: Library) -> *mut c_void {
        match library {
            Library::Libc => libc::RTLD_DEFAULT,
            Library::Cuda => self.cuda,
            Library::CuFile => self.cufile,
        }
    }

    fn call(&self, name: &str, arguments: &[usize]) -> usize {
        let library = if name.starts_with("cuFile") {
            self.cufile
        } else {
            self.cuda
        };
        call(find(library, name).unwrap(), arguments)
    }

    fn ok(&self, name: &str, arguments: &[usize]) {
        let result = self.call(name, arguments);
        assert_eq!(result as u32, 0, "{name} prepares {}", self.site);
    }

    /// Calls a function whose first argument receives a value.
    fn get(&self, name: &str, arguments: &[usize]) -> usize {
        let mut value = 0usize;
        let mut all = vec![&raw mut value as usize];
        all.extend(arguments);
        self.ok(name, &all);
        value
    }

    fn register(&self) -> usize {
        self.get(
            "cuFileHandleRegister",
            &[&raw const *self.descriptor as usize],
        )
    }

    /// The arguments of a call, a successful one if the function is known here.
    pub(crate) fn arguments(&mut self, site: &str) -> Vec<usize> {
        *self.out = [0; 4];
        let out = self.out.as_mut_ptr() as usize;
        let host = self.host.0.as_mut_ptr() as usize;
        let (device, stream, event) = (self.device, self.stream, self.event);
        let properties = self.properties.as_ptr() as usize;
        match site {
            "cuInit" => vec![0],
            "cuDeviceGetCount" => vec![out],
            "cuDevicePrimaryCtxRetain" => vec![out, 0],
            "cuDevicePrimaryCtxRelease" => {
                self.get("cuDevicePrimaryCtxRetain", &[0]);
                vec![0]
            }
            "cuCtxCreate" => vec![out, 0, 0],
            "cuCtxCreate_v3" => vec![out, 0, 0, 0, 0],
            "cuCtxCreate_v4" => vec![out, 0, 0, 0],
            "cuMemAlloc" => vec![out, BYTES],
            "cuMemAllocPitch" => vec![out, out + 8, 100, 3, 4],
            "cuMemAllocAsync" => vec![out, BYTES, stream],
            "cuMemFree" => vec![self.get("cuMemAlloc_v2", &[BYTES])],
            "cuMemFreeAsync" => vec![self.get("cuMemAllocAsync", &[BYTES, stream]), stream],
            "cuMemGetInfo" => vec![out, out + 8],
            "cuMemPoolCreate" => vec![out, properties],
            "cuMemPoolDestroy" => vec![self.get("cuMemPoolCreate", &[properties])],
            "cuMemAllocHost" => vec![out, BYTES],
            "cuMemHostAlloc" => vec![out, BYTES, 0],
            "cuMemFreeHost" => vec![self.get("cuMemHostAlloc", &[BYTES, 0])],
            "cuMemHostRegister" => vec![host, BYTES, 0],
            "cuMemHostUnregister" => {
                self.call("cuMemHostRegister_v2", &[host, BYTES, 0]);
                vec![host]
            }
            "cuMemcpyHtoD" | "cuMemcpyHtoDAsync" => {
                self.host.0[0] = self.host.0[0].wrapping_add(1);
                vec![device, host, BYTES, stream]
            }
            "cuMemcpyDtoH" | "cuMemcpyDtoHAsync" => {
                self.host.0.fill(b'x');
                vec![host, device, BYTES, stream]
            }
            "cuCtxSynchronize" => vec![],
            "cuStreamCreate" => vec![out, 1],
            "cuStreamCreateWithPriority" => vec![out, 1, 0],
            "cuStreamDestroy" => vec![self.get("cuStreamCreate", &[1])],
            "cuStreamSynchronize" | "cuStreamQuery" => vec![stream],
            "cuStreamWaitEvent" => vec![stream, event, 0],
            "cuEventCreate" => vec![out, 0],
            "cuEventDestroy" => vec![self.get("cuEventCreate", &[0])],
            "cuEventRecord" | "cuEventRecordWithFlags" => vec![event, stream, 0],
            "cuEventQuery" | "cuEventSynchronize" => vec![event],
            _ => self.cufile_arguments(site),
        }
    }

    fn cufile_arguments(&mut self, site: &str) -> Vec<usize> {
        let out = self.out.as_mut_ptr() as usize;
        let descriptor = &raw const *self.descriptor as usize;
        let (device, handle) = (self.device, self.handle);
        match site {
            "cuFileDriverClose" => {
                self.ok("cuFileDriverOpen", &[]);
                vec![]
            }
            "cuFileGetVersion" => vec![out],
            "cuFileHandleRegister" => vec![out, descriptor],
            "cuFileHandleDeregister" => vec![self.register()],
            "cuFileBufRegister" => vec![device, BYTES, 0],
            "cuFileBufDeregister" => {
                self.call("cuFileBufRegister", &[device, BYTES, 0]);
                vec![device]
            }
            "cuFileRead" | "cuFileWrite" => {
                let byte = self.host.0[0].wrapping_add(1);
                self.host.0.fill(byte);
                self.upload();
                vec![handle, device, BYTES, 0, 0]
            }
            "cuFileStreamRegister" => vec![self.stream, 0],
            "cuFileStreamDeregister" => {
                self.call("cuFileStreamRegister", &[self.stream, 0]);
                vec![self.stream]
            }
            _ => vec![],
        }
    }

    fn upload(&self) {
        let host = self.host.0.as_ptr() as usize;
        self.ok("cuMemcpyHtoD_v2", &[self.device, host, BYTES]);
    }

    /// What the call may change.
    pub(crate) fn state(&self) -> State {
        let snapshot = self.board.snapshot().unwrap();
        let objects = snapshot.objects.iter();
        let mut device = vec![0u8; BYTES];
        if self.device != 0 && self.site != "cuMemcpyDtoH" {
            let to = device.as_mut_ptr() as usize;
            self.ok("cuMemcpyDtoH_v2", &[to, self.device, BYTES]);
        }
        State {
            objects: objects
                .map(|object| (object.address, object.bytes))
                .collect(),
            out: *self.out,
            host: self.host.0.to_vec(),
            device,
            file: std::fs::read(format!("/proc/self/fd/{}", self.file.as_raw_fd())).unwrap(),
        }
    }

    /// Gives back what a successful call has made.
    pub(crate) fn undo(&mut self, site: &Site, arguments: &[usize], result: usize) {
        if result as u32 != 0 {
            return;
        }
        let made = self.out[0];
        match site.name {
            "cuMemAlloc" | "cuMemAllocPitch" | "cuMemAllocAsync" => {
                self.ok("cuMemFree_v2", &[made])
            }
            "cuMemAllocHost" | "cuMemHostAlloc" => self.ok("cuMemFreeHost", &[made]),
            "cuMemHostRegister" => self.ok("cuMemHostUnregister", &[arguments[0]]),
            "cuMemPoolCreate" => self.ok("cuMemPoolDestroy", &[made]),
            "cuStreamCreate" | "cuStreamCreateWithPriority" => {
                self.ok("cuStreamDestroy_v2", &[made]);
            }
            "cuEventCreate" => self.ok("cuEventDestroy_v2", &[made]),
            "cuFileHandleRegister" => {
                self.call("cuFileHandleDeregister", &[made]);
            }
            "cuFileBufRegister" => self.ok("cuFileBufDeregister", &[arguments[0]]),
            "cuFileStreamRegister" => self.ok("cuFileStreamDeregister", &[arguments[0]]),
            _ => {}
        }
    }
}

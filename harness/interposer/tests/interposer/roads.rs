//! The roads to the driver: bound by the loader, by `dlsym` of a handle, by `cuGetProcAddress`, by cudarc. Each meets the wrapper; and who
//! asks for a function that no library has gets what it would get without the interposer.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use libtest_mimic::Trial;

use crate::calls::{call, errno, find, open};
use crate::stage::{Stage, describe, library, said};
use crate::trial;

const OUT_OF_MEMORY: usize = 2;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("roads::dlsym_of_a_handle_answers_with_the_wrapper", || {
            refused("dlsym")
        }),
        trial("roads::get_proc_address_answers_with_the_wrapper", || {
            refused("proc_address")
        }),
        trial(
            "roads::the_first_get_proc_address_answers_with_the_wrapper",
            || {
                refused("first_proc_address");
            },
        ),
        trial(
            "roads::get_proc_address_found_by_itself_answers_with_the_wrapper",
            || {
                refused("nested_proc_address");
            },
        ),
        trial("roads::cudarc_meets_the_wrapper", || refused("cudarc")),
        trial(
            "roads::a_program_bound_to_the_driver_meets_the_wrapper",
            bound,
        ),
        trial("roads::functions_that_nobody_has_stay_absent", absent),
        trial(
            "roads::functions_of_libc_are_found_by_every_handle",
            of_libc,
        ),
        trial("roads::the_next_function_is_the_callers_next", next),
        trial("roads::cufile_meets_the_wrapper", cufile),
        trial("roads::arguments_beyond_the_registers_arrive", || {
            let stage = Stage::recording("");
            assert_eq!(fake(&stage, "many"), "0");
        }),
        trial(
            "roads::what_a_library_calls_inside_is_seen_and_labelled",
            inside,
        ),
        trial("roads::errno_of_the_real_function_stays", || {
            let stage = Stage::recording("");
            assert_eq!(fake(&stage, "errno"), "-1 5008");
        }),
    ]
}

pub(crate) fn play(road: &str) {
    match road {
        "dlsym" => by_function(|library, name| find(library, name).unwrap()),
        "proc_address" => by_function(|library, name| {
            let resolver = find(library, "cuGetProcAddress_v2").unwrap();
            by_proc_address(resolver, name, true)
        }),
        "first_proc_address" => by_function(|library, name| {
            let resolver = find(library, "cuGetProcAddress").unwrap();
            by_proc_address(resolver, name, false)
        }),
        "nested_proc_address" => by_function(|library, name| {
            let first = find(library, "cuGetProcAddress_v2").unwrap();
            let resolver = by_proc_address(first, "cuGetProcAddress", true);
            by_proc_address(resolver, name, true)
        }),
        "cudarc" => play_cudarc(),
        "absent" => play_absent(),
        "of_libc" => play_of_libc(),
        "cufile" => play_cufile(),
        "many" | "inside" | "errno" => play_fake(road),
        _ => panic!("{road}"),
    }
}

/// The first allocation is refused, the second is not.
fn refused(road: &str) {
    let stage = Stage::new("cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=1");
    assert_eq!(stage.play_emulated(&["road", road]), "refused, then served");
    assert_eq!(stage.calls("cuMemAlloc"), 2);
    assert_eq!(stage.shared.receipts().len(), 1);
    assert_eq!(
        stage
            .ledger()
            .iter()
            .filter(|entry| entry.bytes == 4096)
            .count(),
        1
    );
}

fn by_function(find: impl Fn(*mut std::ffi::c_void, &str) -> usize) {
    let library = open("libcuda.so.1", libc::RTLD_NOW | libc::RTLD_LOCAL);
    let mut value = 0usize;
    let out = &raw mut value as usize;
    assert_eq!(call(find(library, "cuInit"), &[0]), 0);
    assert_eq!(
        call(find(library, "cuDevicePrimaryCtxRetain"), &[out, 0]),
        0
    );
    assert_eq!(call(find(library, "cuCtxSetCurrent"), &[value]), 0);
    let allocate = find(library, "cuMemAlloc_v2");
    let first = call(allocate, &[out, 4096]);
    let second = call(allocate, &[out, 4096]);
    assert_eq!((first, second), (OUT_OF_MEMORY, 0));
    print!("refused, then served");
}

/// Names there have no suffix.
fn by_proc_address(resolver: usize, name: &str, has_status: bool) -> usize {
    let plain = CString::new(name.trim_end_matches("_v2")).unwrap();
    let (mut address, mut status) = (0usize, 9i32);
    let out = &raw mut address as usize;
    let told = match has_status {
        true => &raw mut status as usize,
        false => 0,
    };
    let result = call(resolver, &[plain.as_ptr() as usize, out, 12080, 0, told]);
    assert_eq!(result, 0, "{name}");
    assert_eq!(status, if has_status { 0 } else { 9 });
    assert_ne!(address, 0, "{name}");
    // A name that the driver does not know stays unknown.
    let mut unknown = 7usize;
    let out = &raw mut unknown as usize;
    let nothing = c"cuMemAllocNothing".as_ptr() as usize;
    call(resolver, &[nothing, out, 12080, 0, told]);
    assert!(matches!(unknown, 0 | 7));
    address
}

fn play_cudarc() {
    use cudarc::driver::{CudaContext, DriverError, result, sys::CUresult};
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    // SAFETY: the memory is not used.
    let (first, second) = unsafe { (result::malloc_sync(4096), result::malloc_sync(4096)) };
    assert_eq!(first, Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)));
    assert!(second.is_ok());
    print!("refused, then served");
}

/// A C program that is linked with the driver.
fn bound() {
    let stage = Stage::new("cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=1");
    let source = stage.outside().join("bound.c");
    let program = stage.outside().join("bound");
    fs::write(&source, include_str!("bound.c")).unwrap();
    let mut compile = Command::new("cc");
    compile
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .arg(library("libcuda_emulator.so"));
    let output = compile.output().unwrap();
    assert!(output.status.success(), "{}", describe(&compile, &output));
    let mut command = stage.command(&program);
    stage.emulated(&mut command);
    assert_eq!(said(&mut command), "refused, then served");
    assert_eq!(stage.calls("cuMemAlloc"), 2);
}

fn absent() {
    let stage = Stage::new("");
    assert_eq!(stage.play(&["road", "absent"]), "absent");
}

fn play_absent() {
    let message = || {
        // SAFETY: the message is a terminated string, if there is one.
        unsafe {
            let message = libc::dlerror();
            assert!(!message.is_null());
            CStr::from_ptr(message).to_str().unwrap().to_owned()
        }
    };
    // SAFETY: only a handle for the program.
    let program = unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_NOW) };
    for handle in [libc::RTLD_DEFAULT, libc::RTLD_NEXT, program] {
        for name in ["cuMemAlloc_v2", "cuGetProcAddress_v2", "cuFileRead"] {
            assert_eq!(find(handle, name), None, "{name}");
            assert!(message().contains(name), "{name}");
        }
    }
    // Nor is anything there to be opened.
    assert!(open("libcuda.so.1", libc::RTLD_NOW | libc::RTLD_NOLOAD).is_null());
    print!("absent");
}

fn of_libc() {
    let stage = Stage::new("");
    assert_eq!(stage.play(&["road", "of_libc"]), "wrapped");
}

fn play_of_libc() {
    let libc_handle = open("libc.so.6", libc::RTLD_NOW);
    for name in ["pwrite", "pwrite64", "open", "dlsym"] {
        let wrapper = find(libc::RTLD_DEFAULT, name).unwrap();
        assert_eq!(find(libc_handle, name), Some(wrapper), "{name}");
        assert_eq!(find(libc::RTLD_NEXT, name), Some(wrapper), "{name}");
    }
    // What is not wrapped is as it was.
    let plain = find(libc_handle, "strlen").unwrap();
    assert_eq!(call(plain, &[c"four".as_ptr() as usize]), 4);
    let versioned = |version: &CStr| {
        // SAFETY: terminated strings.
        unsafe { libc::dlvsym(libc_handle, c"pwrite".as_ptr(), version.as_ptr()) as usize }
    };
    let version = if cfg!(target_arch = "x86_64") {
        c"GLIBC_2.2.5"
    } else {
        c"GLIBC_2.17"
    };
    assert_eq!(Some(versioned(version)), find(libc::RTLD_DEFAULT, "pwrite"));
    assert_eq!(versioned(c"GLIBC_9.9"), 0);
    print!("wrapped");
}

/// A library that wraps `write` itself and is preloaded behind the interposer: its next one is libc's.
fn next() {
    let stage = Stage::new("");
    let source = stage.outside().join("next.c");
    let second = stage.outside().join("libnext.so");
    fs::write(&source, include_str!("next.c")).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-o"])
        .arg(&second)
        .arg(&source);
    let output = compile.output().unwrap();
    assert!(output.status.success(), "{}", describe(&compile, &output));
    let scope = stage.scope();
    let mut command = stage.role(&["scope", "write", scope.to_str().unwrap()]);
    let first = library("libspillproof_interposer.so");
    let both = format!("{}:{}", first.display(), second.display());
    let output = command.env("LD_PRELOAD", both).output().unwrap();
    assert!(output.status.success(), "{}", describe(&command, &output));
    assert_eq!(stage.calls("write"), 1);
    assert_eq!(fs::read(scope.join("file")).unwrap(), b"HELLO");
}

fn cufile() {
    let stage = Stage::new("cuFileDriverOpen:error=CU_FILE_NVFS_SETUP_ERROR:when=1");
    assert_eq!(stage.play_emulated(&["road", "cufile"]), "5033 0");
    assert_eq!(stage.calls("cuFileDriverOpen"), 2);
}

fn play_cufile() {
    let library = open("libcufile.so.0", libc::RTLD_NOW);
    let open = find(library, "cuFileDriverOpen").unwrap();
    print!("{} {}", call(open, &[]), call(open, &[]));
}

/// What a role says where a driver of C code is found.
fn fake(stage: &Stage, road: &str) -> String {
    let folder = stage.outside().join("fake");
    let source = stage.outside().join("fake.c");
    fs::create_dir(&folder).unwrap();
    fs::write(&source, include_str!("fake.c")).unwrap();
    for name in ["libcuda.so.1", "libcufile.so.0"] {
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-o"])
            .arg(folder.join(name))
            .arg(&source);
        let output = compile.output().unwrap();
        assert!(output.status.success(), "{}", describe(&compile, &output));
    }
    let mut command = stage.role(&["road", road]);
    said(
        command
            .env("LD_LIBRARY_PATH", folder)
            .current_dir(stage.scope()),
    )
}

fn inside() {
    let stage = Stage::recording("pwrite:error=ENOSPC:caller=libcufile.so.0:when=2");
    assert_eq!(fake(&stage, "inside"), "4 -1 28 4");
    assert_eq!((stage.calls("cuFileWrite"), stage.calls("pwrite")), (2, 3));
    let callers: Vec<String> = stage
        .shared
        .trace()
        .entries
        .into_iter()
        .filter(|entry| entry.site.site().name == "pwrite")
        .map(|entry| entry.caller)
        .collect();
    assert_eq!(callers[..2], ["libcufile.so.0", "libcufile.so.0"]);
    assert!(callers[2].starts_with("interposer-"), "{callers:?}");
    let quiet = Stage::new("");
    assert_eq!(fake(&quiet, "inside"), "4 4 0 4");
    assert_eq!((quiet.calls("cuFileWrite"), quiet.calls("pwrite")), (2, 3));
}

fn play_fake(road: &str) {
    let cuda = open("libcuda.so.1", libc::RTLD_NOW);
    let cufile = open("libcufile.so.0", libc::RTLD_NOW);
    let file = fs::File::create("file").unwrap();
    let (number, bytes) = (file.as_raw_fd() as usize, b"four".as_ptr() as usize);
    match road {
        "many" => {
            let function = find(cuda, "cuMemcpyBatchAsync").unwrap();
            print!("{}", call(function, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
        }
        "inside" => {
            let write = find(cufile, "cuFileWrite").unwrap();
            let arguments = [number, bytes, 4, 0, 0];
            let (first, second) = (call(write, &arguments), call(write, &arguments) as isize);
            let told = if second < 0 { errno() } else { 0 };
            // SAFETY: the bytes are there.
            let own = unsafe { libc::pwrite(file.as_raw_fd(), bytes as *const _, 4, 0) };
            print!("{first} {second} {told} {own}");
        }
        _ => {
            let read = find(cufile, "cuFileRead").unwrap();
            print!(
                "{} {}",
                call(read, &[number, bytes, 4, 0, 0]) as isize,
                errno()
            );
        }
    }
}

//! A patched copy of a library lacks the withheld symbol and nothing else.
#![allow(unsafe_code)]

use crate::trial;
use libloading::os::unix::{Library, RTLD_NOW};
use libtest_mimic::Trial;
use spillproof_harness::device::{WithheldError, withhold};
use std::{ffi::c_double, fs};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_withheld_symbol_is_gone_and_the_others_work", withheld),
        trial("withholding_what_is_not_there_is_an_error", missing),
    ]
}

type Function = unsafe extern "C" fn(c_double) -> c_double;

/// Loads the system's mathematics library from `path`, or by its name.
fn load(path: &str) -> Library {
    // SAFETY: its initialisers do nothing that a second copy could disturb.
    unsafe { Library::open(Some(path), RTLD_NOW) }.unwrap()
}

fn has(library: &Library, symbol: &str) -> bool {
    // SAFETY: the symbol is only looked up.
    unsafe { library.get::<Function>(symbol) }.is_ok()
}

/// Where the loader found it.
fn system_library() -> Vec<u8> {
    let library = load("libm.so.6");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| format!("/{path}"))
        .find(|path| path.contains("libm.so") || path.contains("libm-"))
        .unwrap();
    drop(library);
    fs::read(path).unwrap()
}

fn withheld() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libm-withheld.so");
    let symbols = ["cos".to_owned(), "exp".to_owned()];
    fs::write(&path, withhold(system_library(), &symbols).unwrap()).unwrap();
    // First, or its name would find the copy, which calls itself the same.
    let original = load("libm.so.6");
    let copy = load(path.to_str().unwrap());
    for (symbol, expected) in [
        ("cos", false),
        ("exp", false),
        ("sin", true),
        ("acos", true),
        ("cosf", true),
        ("cosh", true),
    ] {
        assert_eq!(has(&copy, symbol), expected, "{symbol}");
        assert!(has(&original, symbol), "{symbol}");
    }
    // SAFETY: the function has this type, and the library stays loaded.
    let sine = unsafe { copy.get::<Function>("sin") }.unwrap();
    // SAFETY: any number may be passed.
    let value = unsafe { sine(1.0) };
    assert!((value - 1f64.sin()).abs() < 1e-12);
}

fn missing() {
    assert_eq!(
        withhold(system_library(), &["cuInit".into()]),
        Err(WithheldError::Missing("cuInit".into()))
    );
}

//! What each variable takes and refuses, and that errors name variable, value and remedy.

use super::*;
use crate::error::{Error, ErrorKind};
use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const GRANULE: u64 = 256 << 10;

fn expected_io_threads() -> usize {
    std::thread::available_parallelism()
        .unwrap()
        .get()
        .clamp(2, 12)
}

fn with(variables: &[(&str, &str)]) -> Result<Settings, Error> {
    Settings::builder()
        .environment_from(|name| {
            variables
                .iter()
                .find(|(given, _)| *given == name)
                .map(|(_, value)| OsString::from(value))
        })
        .build()
}

fn assert_invalid(result: Result<Settings, Error>, variable: &str, value: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
    let Error::InvalidSetting {
        variable: named,
        value: shown,
        remedy,
    } = error
    else {
        unreachable!("the kind says so");
    };
    assert_eq!((named, shown.as_str()), (variable, value));
    assert!(remedy.starts_with("give"), "{remedy}");
}

#[test]
fn an_empty_environment_leaves_the_defaults() {
    let settings = with(&[]).unwrap();
    assert_eq!(settings.device().to_string(), "cuda:0");
    assert_eq!(settings.directory(), std::env::temp_dir());
    assert_eq!(settings.staging_bytes(), 48 * MIB);
    assert_eq!(settings.io_threads(), expected_io_threads());
    let slots = 2 * expected_io_threads() as u64;
    assert_eq!(settings.slot_bytes(), 48 * MIB / slots / GRANULE * GRANULE);
    assert_eq!(settings.threshold(), Threshold::Off);
    assert_eq!(settings.ram_limit_bytes(), None);
    assert_eq!(settings.file_tier(), FileTier::Mapped);
    assert_eq!(settings.tmpfs(), TmpfsPolicy::Refuse);
    assert!(!settings.durable());
    assert_eq!(settings.file_io(), FileIo::Auto);
    assert_eq!(settings.cufile(), CuFileUse::Auto);
    assert_eq!(settings.cufile_open_bound(), Duration::from_secs(5));
}

#[test]
fn every_variable_overrides_what_the_builder_was_given() {
    let settings = Settings::builder()
        .device("cuda:1")
        .directory("/a")
        .staging_bytes(MIB)
        .io_threads(1)
        .threshold(Threshold::Off)
        .ram_limit_bytes(Some(1))
        .file_tier(FileTier::Mapped)
        .tmpfs(TmpfsPolicy::Refuse)
        .durable(false)
        .file_io(FileIo::Auto)
        .cufile(CuFileUse::Auto)
        .environment_from(|name| {
            let value = match name {
                "OFFLOAD_DEVICE" => "cuda:3",
                "OFFLOAD_DIR" => "/b",
                "OFFLOAD_STAGING_MB" => "10",
                "OFFLOAD_IO_THREADS" => "3",
                "MMAP_MEM_THRESHOLD_GB" => "2",
                "OFFLOAD_RAM_LIMIT_GB" => "0.25",
                "OFFLOAD_FILE_TIER" => "file",
                "OFFLOAD_TMPFS" => "count",
                "OFFLOAD_DURABLE" => "1",
                "OFFLOAD_FILE_IO" => "cached",
                "OFFLOAD_CUFILE" => "off",
                other => panic!("{other} is not documented"),
            };
            Some(value.into())
        })
        .build()
        .unwrap();
    assert_eq!(settings.device().ordinal(), 3);
    assert_eq!(settings.directory(), Path::new("/b"));
    assert_eq!(settings.staging_bytes(), 10 * MIB);
    assert_eq!(settings.io_threads(), 3);
    assert_eq!(settings.slot_bytes(), 3 * MIB / 2);
    assert_eq!(settings.threshold(), Threshold::Below(2 * GIB));
    assert_eq!(settings.ram_limit_bytes(), Some(GIB / 4));
    assert_eq!(settings.file_tier(), FileTier::Closed);
    assert_eq!(settings.tmpfs(), TmpfsPolicy::CountAsRam);
    assert!(settings.durable());
    assert_eq!(settings.file_io(), FileIo::Cached);
    assert_eq!(settings.cufile(), CuFileUse::Off);
}

#[test]
fn thresholds_count_fractions_exactly_and_saturate() {
    for (text, threshold) in [
        ("0", Threshold::Off),
        ("0.0", Threshold::Off),
        ("0e9", Threshold::Off),
        ("0.5", Threshold::Below(GIB / 2)),
        (".5", Threshold::Below(GIB / 2)),
        ("1.", Threshold::Below(GIB)),
        ("1.5", Threshold::Below(3 * GIB / 2)),
        ("0.000000001", Threshold::Below(2)),
        ("1e-30", Threshold::Below(1)),
        ("512", Threshold::Below(512 * GIB)),
        ("5e+2", Threshold::Below(500 * GIB)),
        ("17179869183", Threshold::Below(u64::MAX - GIB + 1)),
        ("17179869184", Threshold::Below(u64::MAX)),
        ("1e30", Threshold::Below(u64::MAX)),
        ("1e999", Threshold::Below(u64::MAX)),
    ] {
        let settings = with(&[("MMAP_MEM_THRESHOLD_GB", text)]).unwrap();
        assert_eq!(settings.threshold(), threshold, "{text}");
    }
}

#[test]
fn sizes_that_are_no_numbers_are_refused_by_name_and_value() {
    for variable in [
        "MMAP_MEM_THRESHOLD_GB",
        "OFFLOAD_RAM_LIMIT_GB",
        "OFFLOAD_STAGING_MB",
    ] {
        for value in [
            "", " ", "nan", "NaN", "inf", "-inf", "infinity", "-1", "-0", "+1", "12x", "x12", "1 ",
            " 1", "1,5", "0x10", "1e", "1e-400", "e5", ".", "1.2.3", "1GB", "½", "١",
        ] {
            assert_invalid(with(&[(variable, value)]), variable, value);
        }
    }
}

#[test]
fn words_other_than_the_listed_ones_are_refused() {
    for (variable, values) in [
        ("OFFLOAD_FILE_TIER", ["", "Mapped", "ram"]),
        ("OFFLOAD_TMPFS", ["", "ram", "1"]),
        ("OFFLOAD_DURABLE", ["", "true", "2"]),
        ("OFFLOAD_CUFILE", ["", "1", "compat"]),
        ("OFFLOAD_IO_THREADS", ["", "+2", "two"]),
        ("OFFLOAD_IO_THREADS", ["0", "257", "99999999999999999999"]),
        ("OFFLOAD_IO_THREADS", ["-1", "1.5", " 1"]),
    ] {
        for value in values {
            assert_invalid(with(&[(variable, value)]), variable, value);
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_except_in_a_path() {
    let odd = OsString::from_vec(vec![b'a', 0xff]);
    let build = |variable: &'static str| {
        Settings::builder()
            .environment_from(|name| (name == variable).then(|| odd.clone()))
            .build()
    };
    assert_invalid(build("OFFLOAD_DEVICE"), "OFFLOAD_DEVICE", "a\u{fffd}");
    let settings = build("OFFLOAD_DIR").unwrap();
    assert_eq!(settings.directory().as_os_str().as_bytes(), [b'a', 0xff]);
}

#[test]
fn an_empty_directory_is_refused_whoever_gave_it() {
    assert_invalid(with(&[("OFFLOAD_DIR", "")]), "OFFLOAD_DIR", "");
    assert_invalid(Settings::builder().directory("").build(), "directory", "");
}

#[test]
fn staging_gives_each_thread_at_least_a_mebibyte() {
    for (megabytes, threads, slot_bytes) in [
        ("1", "1", MIB / 2),
        ("4", "4", MIB / 2),
        ("7", "2", 7 * MIB / 4),
        ("1.001", "1", MIB / 2),
        ("1048576", "256", 2048 * MIB),
    ] {
        let settings = with(&[
            ("OFFLOAD_STAGING_MB", megabytes),
            ("OFFLOAD_IO_THREADS", threads),
        ]);
        assert_eq!(settings.unwrap().slot_bytes(), slot_bytes, "{megabytes}");
    }
    for (megabytes, threads) in [
        ("0", "1"),
        ("0.999", "1"),
        ("3.999", "4"),
        ("255", "256"),
        ("1048577", "4"),
    ] {
        let settings = with(&[
            ("OFFLOAD_STAGING_MB", megabytes),
            ("OFFLOAD_IO_THREADS", threads),
        ]);
        assert_invalid(settings, "OFFLOAD_STAGING_MB", megabytes);
    }
    assert_invalid(
        Settings::builder()
            .io_threads(4)
            .staging_bytes(4 * MIB - 1)
            .build(),
        "staging_bytes",
        "4194303",
    );
    assert_invalid(Settings::builder().io_threads(0).build(), "io_threads", "0");
}

#[test]
fn a_malformed_variable_is_told_even_when_the_builder_is_used_after_it() {
    let settings = Settings::builder()
        .environment_from(|name| (name == "MMAP_MEM_THRESHOLD_GB").then(|| "12x".into()))
        .threshold(Threshold::Off)
        .build();
    assert_invalid(settings, "MMAP_MEM_THRESHOLD_GB", "12x");
}

#[test]
fn only_cuda_devices_are_supported() {
    for (text, ordinal) in [
        ("cuda", 0),
        ("cuda:0", 0),
        ("cuda:7", 7),
        ("cuda:4294967295", u32::MAX),
    ] {
        assert_eq!(
            with(&[("OFFLOAD_DEVICE", text)])
                .unwrap()
                .device()
                .ordinal(),
            ordinal
        );
    }
    for text in [
        "",
        "cpu",
        "npu:0",
        "musa:0",
        "mps",
        "xpu",
        "hip:0",
        "cuda:",
        "cuda0",
        "cuda:-1",
        "cuda:+1",
        "cuda:x",
        "cuda:0x1",
        "CUDA:0",
        " cuda:0",
        "cuda:0 ",
        "cuda:4294967296",
        "cuda:0:1",
    ] {
        let error = with(&[("OFFLOAD_DEVICE", text)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedDevice, "{text}");
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

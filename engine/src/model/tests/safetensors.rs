//! Safetensors files: honest ones written by the reference implementation, and hostile headers, one lie each.

use super::contents;
use crate::{
    error::{Error, ErrorKind},
    model::{Dtype, from_safetensors},
};
use safetensors::tensor::{Dtype as TheirDtype, TensorView, serialize};
use std::{fs, os::unix::fs::FileExt, path::PathBuf, sync::mpsc, thread, time::Duration};
use tempfile::TempDir;

/// A file with this header and this many bytes of data.
fn file(header: &str, data_bytes: usize) -> (TempDir, PathBuf) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data_bytes).map(|byte| byte as u8));
    written(&bytes)
}

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[track_caller]
fn assert_invalid((_directory, path): (TempDir, PathBuf), parts: &[&str]) {
    let error = from_safetensors(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
    let message = error.to_string();
    assert!(message.starts_with(path.to_str().unwrap()), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

/// A header of one tensor `t`.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!("{{{}}}", entry("t", dtype, shape, offsets))
}

#[test]
fn what_the_reference_implementation_writes_loads_byte_for_byte() {
    let data: Vec<u8> = (0..=255).collect();
    let kinds = [
        ("f64", TheirDtype::F64, Dtype::F64, vec![2, 1]),
        ("f32", TheirDtype::F32, Dtype::F32, vec![3]),
        ("f16", TheirDtype::F16, Dtype::F16, vec![1, 5]),
        ("bf16", TheirDtype::BF16, Dtype::Bf16, vec![]),
        ("e4m3", TheirDtype::F8_E4M3, Dtype::F8E4m3, vec![7]),
        ("e5m2", TheirDtype::F8_E5M2, Dtype::F8E5m2, vec![1]),
        ("e8m0", TheirDtype::F8_E8M0, Dtype::F8E8m0, vec![3]),
        ("f4", TheirDtype::F4, Dtype::F4E2m1, vec![2, 3]),
        ("i64", TheirDtype::I64, Dtype::I64, vec![1]),
        ("i32", TheirDtype::I32, Dtype::I32, vec![2]),
        ("i16", TheirDtype::I16, Dtype::I16, vec![3]),
        ("i8", TheirDtype::I8, Dtype::I8, vec![9]),
        ("u64", TheirDtype::U64, Dtype::U64, vec![2]),
        ("u32", TheirDtype::U32, Dtype::U32, vec![1]),
        ("u16", TheirDtype::U16, Dtype::U16, vec![2]),
        ("u8", TheirDtype::U8, Dtype::U8, vec![11]),
        ("bool", TheirDtype::BOOL, Dtype::Bool, vec![2]),
        ("c64", TheirDtype::C64, Dtype::C64, vec![2]),
        ("none", TheirDtype::F32, Dtype::F32, vec![0, 8]),
    ];
    let bytes_of = |index: usize| {
        let (_, their, _, shape) = &kinds[index];
        let bytes = shape.iter().product::<usize>() * their.bitsize() / 8;
        &data[index..index + bytes]
    };
    let views = kinds
        .iter()
        .enumerate()
        .map(|(index, (name, their, _, shape))| {
            let view = TensorView::new(*their, shape.clone(), bytes_of(index)).unwrap();
            (*name, view)
        });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let (_directory, path) = written(&serialize(views, Some(metadata)).unwrap());
    let (layout, source) = from_safetensors(&path).unwrap();
    assert_eq!(layout.tensors.len(), kinds.len());
    assert_eq!(
        layout.blocks.len(),
        kinds.len() - 1,
        "the empty one has none"
    );
    for (index, (name, _, dtype, shape)) in kinds.iter().enumerate() {
        let tensor = layout
            .tensors
            .iter()
            .find(|tensor| tensor.name == *name)
            .unwrap();
        assert_eq!(tensor.dtype, *dtype);
        assert_eq!(
            tensor.shape,
            shape.iter().map(|size| *size as u64).collect::<Vec<_>>()
        );
        assert_eq!(contents(&layout, &source, name), bytes_of(index), "{name}");
    }
}

#[test]
fn tensors_are_visited_in_the_order_of_their_bytes_and_each_is_a_block() {
    let header = format!(
        "{{{},{},{},{}}}",
        entry("z", "U8", "[2]", "[0,2]"),
        entry("empty2", "U8", "[0]", "[2,2]"),
        entry("empty1", "U8", "[0]", "[2,2]"),
        entry("a", "U8", "[3]", "[2,5]"),
    );
    let (_directory, path) = file(&header, 5);
    let (layout, source) = from_safetensors(&path).unwrap();
    let names: Vec<&str> = layout
        .tensors
        .iter()
        .map(|tensor| &tensor.name[..])
        .collect();
    assert_eq!(names, ["z", "empty2", "empty1", "a"]);
    let blocks: Vec<_> = layout
        .blocks
        .iter()
        .map(|block| (block.bytes, block.file_offset))
        .collect();
    assert_eq!(blocks, [(2, 0), (3, 4096)]);
    assert_eq!(contents(&layout, &source, "a"), [2, 3, 4]);
    let mut part = [0; 2];
    source.read(1, 1, &mut part).unwrap();
    assert_eq!(part, [3, 4], "a window of a block");
}

#[test]
fn a_length_bomb_is_refused_before_anything_is_read() {
    for length in [(16 << 20) + 1, 100_000_000, 1 << 40, u64::MAX - 7, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        assert_invalid(
            written(&bytes),
            &[&format!("claims {length} bytes"), "at most 16777216"],
        );
    }
    let mut bytes = 3u64.to_le_bytes().to_vec();
    bytes.extend(b"{}");
    assert_invalid(written(&bytes), &["claims 3 bytes", "2 follow"]);
}

#[test]
fn a_file_too_short_for_a_header_is_refused() {
    assert_invalid(written(b""), &["it has 0 bytes"]);
    assert_invalid(written(&[2, 0, 0, 0, 0, 0, 0]), &["it has 7 bytes"]);
    assert_invalid(written(&0u64.to_le_bytes()), &["header is not valid"]);
}

#[test]
fn a_header_that_is_not_the_documented_json_is_refused() {
    for header in [
        "[]",
        "{",
        "{}x",
        "\u{feff}{}",
        r#"{"t":1}"#,
        r#"{"t":{"dtype":"U8","shape":[1]}}"#,
        r#"{"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0]}}"#,
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1e3]}}"#,
        r#"{"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"__metadata__":{"a":{"b":"c"}}}"#,
    ] {
        assert_invalid(file(header, 1), &["header is not valid"]);
    }
    let deep = format!(r#"{{"t":{}"#, "[".repeat(100_000));
    assert_invalid(file(&deep, 1), &["header is not valid"]);
    let mut bytes = 4u64.to_le_bytes().to_vec();
    bytes.extend([b'{', 0xff, 0xfe, b'}']);
    assert_invalid(written(&bytes), &["header is not valid"]);
}

#[test]
fn offsets_that_run_backwards_or_leave_the_data_are_refused() {
    assert_invalid(
        file(&one("U8", "[1]", "[1,0]"), 1),
        &["\"t\"", "1..0 run backwards"],
    );
    assert_invalid(
        file(&one("U8", "[9]", "[0,9]"), 8),
        &["\"t\"", "0..9 leave the 8 bytes"],
    );
    let max = u64::MAX;
    assert_invalid(
        file(&one("U8", "[1]", &format!("[{},{max}]", max - 1)), 8),
        &["\"t\"", "leave the 8 bytes"],
    );
    assert_invalid(
        file(&one("U8", "[1]", "[0,18446744073709551616]"), 8),
        &["not valid"],
    );
}

#[test]
fn overlapping_and_gapped_offsets_are_told_apart() {
    let two = |first: &str, second: &str| {
        format!(
            "{{{},{}}}",
            entry("a", "U8", "[4]", first),
            entry("b", "U8", "[4]", second)
        )
    };
    assert_invalid(
        file(&two("[0,4]", "[3,7]"), 7),
        &["\"b\"", "overlap", "ends at 4"],
    );
    assert_invalid(file(&two("[0,4]", "[0,4]"), 4), &["overlap"]);
    assert_invalid(
        file(&two("[4,8]", "[1,5]"), 8),
        &["\"b\"", "leave a gap after byte 0"],
    );
    assert_invalid(
        file(&two("[0,4]", "[5,9]"), 9),
        &["\"b\"", "leave a gap after byte 4"],
    );
    assert_invalid(file(&two("[0,4]", "[4,8]"), 9), &["end at byte 8 of 9"]);
    let (_directory, path) = file(&two("[4,8]", "[0,4]"), 8);
    assert!(
        from_safetensors(&path).is_ok(),
        "any order of names is allowed"
    );
}

#[test]
fn sizes_that_do_not_match_dtype_and_shape_are_refused() {
    for (dtype, shape, offsets) in [
        ("F32", "[2]", "[0,4]"),
        ("U8", "[]", "[0,4]"),
        ("U8", "[0]", "[0,4]"),
        ("F4", "[9]", "[0,4]"),
    ] {
        assert_invalid(
            file(&one(dtype, shape, offsets), 4),
            &["\"t\"", dtype, "give 4"],
        );
    }
    for shape in ["[18446744073709551615,2]", "[18446744073709551615]"] {
        assert_invalid(
            file(&one("F64", shape, "[0,4]"), 4),
            &["\"t\"", "overflows"],
        );
    }
}

#[test]
fn dtypes_that_cannot_be_represented_are_refused_by_name() {
    for dtype in [
        "F6_E2M3",
        "F6_E3M2",
        "F8_E4M3FNUZ",
        "F8_E5M2FNUZ",
        "f32",
        "I4",
        "",
    ] {
        assert_invalid(
            file(&one(dtype, "[4]", "[0,4]"), 4),
            &["\"t\"", &format!("dtype {dtype:?} is not supported")],
        );
    }
}

#[test]
fn a_name_used_twice_is_refused() {
    let header = format!(
        "{{{},{}}}",
        entry("t", "U8", "[1]", "[0,1]"),
        entry("t", "U8", "[1]", "[1,2]")
    );
    assert_invalid(file(&header, 2), &["\"t\"", "twice"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let header = one("U8", "[8]", "[0,8]");
    let (_directory, path) = file(&header, 8);
    assert!(from_safetensors(&path).is_ok());
    assert_invalid(file(&header, 7), &["leave the 7 bytes"]);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [
        fifo,
        directory.path().to_owned(),
        PathBuf::from("/dev/zero"),
    ] {
        // Elsewhere, so that waiting for a FIFO's writer is a failure and not a hang.
        let (answer, answered) = mpsc::channel();
        thread::spawn(move || answer.send(from_safetensors(&path).map(|_| ())));
        let error = answered
            .recv_timeout(Duration::from_secs(10))
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
    let missing = directory.path().join("missing");
    let error = from_safetensors(&missing).unwrap_err();
    assert!(
        matches!(&error, Error::Io { operation: "open", path, .. } if *path == missing),
        "{error}"
    );
}

#[test]
fn a_file_that_shrinks_after_its_header_was_read_is_corrupt() {
    let (_directory, path) = file(&one("U8", "[8]", "[0,8]"), 8);
    let (_, source) = from_safetensors(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xaa], fs::metadata(&path).unwrap().len() - 8)
        .unwrap();
    let mut out = [0; 8];
    source.read(0, 0, &mut out).unwrap();
    assert_eq!(
        out,
        [0xaa, 1, 2, 3, 4, 5, 6, 7],
        "the bytes come from the file"
    );
    file.set_len(fs::metadata(&path).unwrap().len() - 1)
        .unwrap();
    source.read(0, 0, &mut out[..7]).unwrap();
    let error = source.read(0, 0, &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

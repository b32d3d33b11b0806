//! Manifests with one defect each, and the blocks of those without.

use super::contents;
use crate::{
    error::{Error, ErrorKind},
    model::{Dtype, Fill, Layout, Manifest, from_manifest},
};

/// A manifest of one 64-byte storage `s` and the given tensors.
fn manifest(tensors: &str) -> Result<Manifest, Error> {
    Manifest::from_json(&format!(
        r#"{{"storages":[{{"name":"s","bytes":64,"fill":{{"seed":1}}}}],"tensors":[{tensors}]}}"#
    ))
}

fn tensor(fields: &str) -> Result<Manifest, Error> {
    manifest(&format!(r#"{{"name":"t","storage":"s",{fields}}}"#))
}

/// A storage of 2048 bytes: room for blocks with gaps between them.
fn roomy_manifest(tensors: &str) -> Manifest {
    let text = format!(
        r#"{{"storages":[{{"name":"s","bytes":2048,"fill":{{"seed":1}}}}],"tensors":[{tensors}]}}"#
    );
    Manifest::from_json(&text).unwrap()
}

fn layout(manifest: &Manifest) -> Layout {
    from_manifest(manifest).unwrap().0
}

/// The blocks as (bytes, file offset, tensors).
fn blocks(layout: &Layout) -> Vec<(u64, u64, &[usize])> {
    layout
        .blocks
        .iter()
        .map(|block| (block.bytes, block.file_offset, &block.tensors[..]))
        .collect()
}

#[track_caller]
fn assert_invalid(result: Result<Manifest, Error>, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let max = u64::MAX;
    for fields in [
        format!(r#""dtype":"f32","shape":[{max},2]"#),
        format!(r#""dtype":"f32","shape":[{max}]"#),
        format!(r#""dtype":"u8","shape":[{0},{0}]"#, 1u64 << 32),
        format!(r#""dtype":"u8","shape":[1],"byte_offset":{max}"#),
        format!(r#""dtype":"u8","shape":[3],"strides":[{max}]"#),
        format!(r#""dtype":"c64","shape":[2],"strides":[{}]"#, 1u64 << 61),
    ] {
        assert_invalid(tensor(&fields), &["\"t\"", "overflow"]);
    }
    for fields in [
        r#""dtype":"u8","shape":[18446744073709551616]"#,
        r#""dtype":"u8","shape":[-1]"#,
        r#""dtype":"u8","shape":[1.5]"#,
        r#""dtype":"u8","shape":4"#,
        r#""dtype":"u8","shape":[4],"strides":[-1]"#,
    ] {
        assert_invalid(tensor(fields), &["manifest is not valid"]);
    }
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    assert!(tensor(r#""dtype":"f32","shape":[16]"#).is_ok());
    for fields in [
        r#""dtype":"f32","shape":[17]"#,
        r#""dtype":"f32","shape":[16],"byte_offset":1"#,
        r#""dtype":"u8","shape":[0],"byte_offset":65"#,
        r#""dtype":"u8","shape":[2,2],"strides":[63,2]"#,
        r#""dtype":"u4","shape":[129]"#,
    ] {
        assert_invalid(tensor(fields), &["\"t\"", "ends at byte", "64"]);
    }
}

#[test]
fn strides_that_do_not_fit_are_refused() {
    assert_invalid(
        tensor(r#""dtype":"u8","shape":[2,2],"strides":[2]"#),
        &["2 sizes and 1 strides"],
    );
    assert_invalid(
        tensor(r#""dtype":"u4","shape":[2,2],"strides":[1,2]"#),
        &["packed elements must be contiguous"],
    );
}

#[test]
fn repeated_and_unknown_names_are_refused() {
    let t = r#"{"name":"t","dtype":"u8","shape":[1],"storage":"s"}"#;
    assert_invalid(manifest(&format!("{t},{t}")), &["\"t\"", "twice"]);
    assert_invalid(
        manifest(r#"{"name":"t","dtype":"u8","shape":[1],"storage":"nope"}"#),
        &["\"t\"", "\"nope\""],
    );
    let s = r#"{"name":"s","bytes":1,"fill":{"seed":1}}"#;
    assert_invalid(
        Manifest::from_json(&format!(r#"{{"storages":[{s},{s}],"tensors":[]}}"#)),
        &["\"s\"", "twice"],
    );
}

#[test]
fn unknown_dtypes_and_fields_and_malformed_fills_are_refused() {
    assert_invalid(tensor(r#""dtype":"f6","shape":[1]"#), &["`f6`"]);
    assert_invalid(tensor(r#""dtype":"F32","shape":[1]"#), &["`F32`"]);
    assert_invalid(tensor(r#""dtype":"u8","shape":[1],"bits":8"#), &["`bits`"]);
    assert_invalid(tensor(r#""shape":[1]"#), &["missing field `dtype`"]);
    assert_invalid(
        tensor(r#""dtype":"u8","shape":[1],"dtype":"u8""#),
        &["duplicate field `dtype`"],
    );
    for fill in [
        r#"{"repeat":""}"#,
        r#"{"repeat":"0g"}"#,
        r#"{"repeat":"012"}"#,
        r#"{"seed":-1}"#,
        r#"{"seed":1,"repeat":"00"}"#,
        r#"{"zeros":1}"#,
        "null",
    ] {
        let text =
            format!(r#"{{"storages":[{{"name":"s","bytes":1,"fill":{fill}}}],"tensors":[]}}"#);
        assert_invalid(Manifest::from_json(&text), &["manifest is not valid"]);
    }
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "[]",
        "{}",
        r#"{"storages":[],"tensors":[],"x":1}"#,
        deep.as_str(),
    ] {
        assert_invalid(Manifest::from_json(text), &["manifest is not valid"]);
    }
}

#[test]
fn a_model_that_fits_in_no_file_is_refused() {
    let bytes = 1u64 << 60;
    let model = |count: u32| {
        let storages: Vec<String> = (0..count)
            .map(|name| format!(r#"{{"name":"{name}","bytes":{bytes},"fill":{{"seed":1}}}}"#))
            .collect();
        let tensors: Vec<String> = (0..count)
            .map(|name| {
                format!(r#"{{"name":"{name}","dtype":"u8","shape":[{bytes}],"storage":"{name}"}}"#)
            })
            .collect();
        format!(
            r#"{{"storages":[{}],"tensors":[{}]}}"#,
            storages.join(","),
            tensors.join(",")
        )
    };
    assert!(Manifest::from_json(&model(7)).is_ok());
    assert_invalid(Manifest::from_json(&model(8)), &["do not fit in one file"]);
}

#[test]
fn every_dtype_of_the_protocol_parses_to_itself() {
    let protocol = "f64 64 f32 32 f16 16 bf16 16 f8_e4m3 8 f8_e5m2 8 f8_e8m0 8 f4_e2m1 4 i64 64 i32 32 \
                    i16 16 i8 8 i4 4 u64 64 u32 32 u16 16 u8 8 u4 4 bool 8 c64 64";
    let words: Vec<&str> = protocol.split_whitespace().collect();
    assert_eq!(words.len() / 2, Dtype::ALL.len());
    for (pair, dtype) in words.chunks(2).zip(Dtype::ALL) {
        assert_eq!((pair[0], pair[1].parse()), (dtype.name(), Ok(dtype.bits())));
        assert_eq!(Dtype::parse(pair[0]), Some(*dtype));
        let parsed = tensor(&format!(r#""dtype":"{}","shape":[3]"#, pair[0])).unwrap();
        assert_eq!(parsed.tensors[0].dtype, *dtype);
        let bytes = (3 * dtype.bits()).div_ceil(8);
        assert_eq!(layout(&parsed).tensors[0].span_bytes, bytes);
    }
    assert_eq!(Dtype::parse("f6"), None);
}

#[test]
fn tied_and_touching_tensors_are_one_block_and_a_gap_makes_two() {
    let manifest = roomy_manifest(
        r#"{"name":"late","dtype":"u8","shape":[4],"storage":"s","byte_offset":1024},
           {"name":"tied","dtype":"f32","shape":[2],"storage":"s","byte_offset":258},
           {"name":"twin","dtype":"u8","shape":[8],"storage":"s","byte_offset":258},
           {"name":"touch","dtype":"u8","shape":[1],"storage":"s","byte_offset":266},
           {"name":"overlap","dtype":"u8","shape":[4],"storage":"s","byte_offset":256},
           {"name":"gap","dtype":"u8","shape":[1],"storage":"s","byte_offset":512}"#,
    );
    let layout = layout(&manifest);
    assert_eq!(
        blocks(&layout),
        [
            (4, 0, &[0usize][..]),
            (11, 4096, &[1, 2, 3, 4]),
            (1, 8192, &[5])
        ]
    );
    assert_eq!(layout.file_bytes, 3 * 4096);
    let places: Vec<_> = layout
        .tensors
        .iter()
        .map(|tensor| (tensor.block.unwrap(), tensor.offset_bytes))
        .collect();
    assert_eq!(places, [(0, 0), (1, 2), (1, 2), (1, 10), (1, 0), (2, 0)]);
}

#[test]
fn a_tensor_keeps_the_alignment_that_it_has_in_its_storage() {
    let manifest = roomy_manifest(
        r#"{"name":"odd","dtype":"u8","shape":[3],"storage":"s","byte_offset":517},
           {"name":"even","dtype":"f32","shape":[3],"storage":"s","byte_offset":1040}"#,
    );
    let layout = layout(&manifest);
    assert_eq!(blocks(&layout), [(8, 0, &[0usize][..]), (28, 4096, &[1])]);
    let offsets: Vec<u64> = layout
        .tensors
        .iter()
        .map(|tensor| tensor.offset_bytes)
        .collect();
    assert_eq!(offsets, [517 % 256, 1040 % 256]);
}

#[test]
fn a_small_view_of_a_huge_storage_is_a_small_block() {
    let manifest = Manifest::from_json(
        r#"{"storages":[{"name":"huge","bytes":18446744073709551615,"fill":{"seed":1}}],
            "tensors":[{"name":"v","dtype":"f32","shape":[2],"storage":"huge","byte_offset":9223372036854775808}]}"#,
    )
    .unwrap();
    assert_eq!(blocks(&layout(&manifest)), [(8, 0, &[0usize][..])]);
}

#[test]
fn empty_tensors_have_no_block_and_do_not_join_others() {
    let manifest = roomy_manifest(
        r#"{"name":"e","dtype":"f32","shape":[0,4],"storage":"s"},
           {"name":"a","dtype":"u8","shape":[2],"storage":"s"},
           {"name":"m","dtype":"u8","shape":[0],"storage":"s","byte_offset":3},
           {"name":"b","dtype":"u8","shape":[2],"storage":"s","byte_offset":512}"#,
    );
    let layout = layout(&manifest);
    assert_eq!(blocks(&layout), [(2, 0, &[1usize][..]), (2, 4096, &[3])]);
    assert_eq!(
        (layout.tensors[0].block, layout.tensors[2].block),
        (None, None)
    );
    assert_eq!(layout.tensors[0].span_bytes, 0);
}

#[test]
fn blocks_lie_at_multiples_of_a_page_with_their_padding_after_them() {
    let sizes = [1u64, 4095, 4096, 4097, 8192];
    let storages: Vec<String> = sizes
        .iter()
        .map(|bytes| format!(r#"{{"name":"{bytes}","bytes":{bytes},"fill":{{"seed":1}}}}"#))
        .collect();
    let tensors: Vec<String> = sizes
        .iter()
        .map(|bytes| {
            format!(r#"{{"name":"{bytes}","dtype":"u8","shape":[{bytes}],"storage":"{bytes}"}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"storages":[{}],"tensors":[{}]}}"#,
        storages.join(","),
        tensors.join(",")
    );
    let layout = layout(&Manifest::from_json(&text).unwrap());
    let offsets: Vec<u64> = layout
        .blocks
        .iter()
        .map(|block| block.file_offset)
        .collect();
    assert_eq!(offsets, [0, 4096, 8192, 12288, 20480]);
    assert_eq!(layout.file_bytes, 28672);
    let padded: Vec<u64> = layout
        .blocks
        .iter()
        .map(|block| block.file_bytes())
        .collect();
    assert_eq!(padded, [4096, 4096, 4096, 8192, 8192]);
}

#[test]
fn a_manifest_built_in_code_is_checked_too() {
    let mut manifest = tensor(r#""dtype":"u8","shape":[1]"#).unwrap();
    manifest.tensors[0].byte_offset = 64;
    assert!(matches!(
        from_manifest(&manifest),
        Err(Error::InvalidModel(_))
    ));
}

#[test]
fn a_block_is_read_from_its_own_place_in_the_storage() {
    let manifest = manifest(
        r#"{"name":"a","dtype":"u8","shape":[3],"storage":"s","byte_offset":21},
           {"name":"b","dtype":"u8","shape":[5],"storage":"s","byte_offset":19}"#,
    )
    .unwrap();
    let (layout, source) = from_manifest(&manifest).unwrap();
    let mut storage = vec![0; 64];
    Fill::Seed(1).write(0, &mut storage);
    assert_eq!(contents(&layout, &source, "a"), storage[21..24]);
    assert_eq!(contents(&layout, &source, "b"), storage[19..24]);
}

//! Real weights as a case's model: the harness reads a `.safetensors` file itself, so that what is
//! expected does not come from the engine under test.

use crate::case::{Model, ModelFile, TensorDigests};
use serde_json::Value;
use spillproof_protocol::{DigestAlgorithm, Dtype, Fill, Manifest, ManifestError, Storage, Tensor};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Longest header that is read, bytes: the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why a file cannot be a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is not a safetensors file.
    #[error("{path} is not a usable safetensors file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl From<ManifestError> for Malformation {
    fn from(error: ManifestError) -> Self {
        Self(error.to_string())
    }
}

/// The part of [`ModelFileError::Malformed`] that does not know the path.
struct Malformation(String);

/// Reads names, dtypes, shapes and digests of a file, in the order of its data.
///
/// # Errors
/// A file that cannot be read or is not of the format.
pub fn read(name: &str, path: &Path) -> Result<Model, ModelFileError> {
    let unreadable = |source| ModelFileError::Unreadable {
        path: path.into(),
        source,
    };
    let malformed = |what: Malformation| ModelFileError::Malformed {
        path: path.into(),
        reason: what.0,
    };
    // Subjects run in directories of their own.
    let path = &path.canonicalize().map_err(unreadable)?;
    let file = File::open(path).map_err(unreadable)?;
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(unreadable)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(malformed(Malformation(format!(
            "its header claims {header_bytes} bytes"
        ))));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact_at(&mut header, 8).map_err(unreadable)?;
    let rows = rows(&header).map_err(malformed)?;
    let mut manifest = Manifest {
        storages: Vec::new(),
        tensors: Vec::new(),
    };
    let mut digests = Vec::new();
    for (tensor, start, end) in rows {
        // Read once: which of them a subject names is known when it is started.
        let mut sha256 = DigestAlgorithm::Sha256.hasher();
        let mut xxh3_128 = DigestAlgorithm::Xxh3_128.hasher();
        let mut window = vec![0; (end - start).min(1 << 20) as usize];
        let mut at = start;
        while at < end {
            let len = (end - at).min(window.len() as u64) as usize;
            file.read_exact_at(&mut window[..len], 8 + header_bytes + at)
                .map_err(unreadable)?;
            sha256.update(&window[..len]);
            xxh3_128.update(&window[..len]);
            at += len as u64;
        }
        digests.push(TensorDigests {
            sha256: sha256.finish(),
            xxh3_128: xxh3_128.finish(),
        });
        // The fill is never expanded: the contents are the file's.
        let storage = Storage {
            name: tensor.name.clone(),
            bytes: end - start,
            fill: Fill::Seed(0),
        };
        manifest.storages.push(storage);
        manifest.tensors.push(tensor);
    }
    manifest.check().map_err(|error| malformed(error.into()))?;
    Ok(Model {
        name: name.into(),
        manifest,
        file: Some(ModelFile {
            path: path.clone(),
            digests,
        }),
    })
}

fn rows(header: &[u8]) -> Result<Vec<(Tensor, u64, u64)>, Malformation> {
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(header).map_err(|error| Malformation(error.to_string()))?;
    let mut rows = Vec::new();
    for (name, row) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let wrong = |what: &str| Malformation(format!("tensor {name:?}: {what}"));
        let dtype = row["dtype"]
            .as_str()
            .and_then(dtype)
            .ok_or_else(|| wrong("unknown dtype"))?;
        let shape =
            serde_json::from_value(row["shape"].clone()).map_err(|_| wrong("malformed shape"))?;
        let offsets: [u64; 2] = serde_json::from_value(row["data_offsets"].clone())
            .map_err(|_| wrong("malformed data_offsets"))?;
        let [start, end] = offsets;
        let tensor = Tensor {
            name: name.clone(),
            dtype,
            shape,
            strides: None,
            storage: name.clone(),
            byte_offset: 0,
        };
        if end.checked_sub(start) != Some(tensor.span_bytes()?) {
            return Err(wrong("data_offsets do not fit its shape"));
        }
        rows.push((tensor, start, end));
    }
    rows.sort_by_key(|(_, start, end)| (*start, *end));
    Ok(rows)
}

fn dtype(name: &str) -> Option<Dtype> {
    let lower = name.to_lowercase();
    let wanted = match lower.as_str() {
        "f4" => "f4_e2m1",
        other => other,
    };
    Dtype::ALL
        .iter()
        .copied()
        .find(|dtype| dtype.name() == wanted)
}

#[cfg(test)]
mod tests {
    //! Small files with known contents, and files that are not of the format.
    use super::*;

    fn file(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            data,
        ]
        .concat();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn digests_are_those_of_the_bytes_between_the_offsets() {
        let header = r#"{"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},"__metadata__":{"k":"v"},
            "a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]}}"#;
        let file = file(header, b"0123456");
        let model = read("m", file.path()).unwrap();
        let names: Vec<_> = model
            .manifest
            .tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let digests = model.file.unwrap().digests;
        for algorithm in DigestAlgorithm::ALL {
            let found: Vec<_> = digests.iter().map(|one| one.by(*algorithm)).collect();
            let wanted = [&b"0123"[..], b"456"].map(|bytes| algorithm.digest(bytes));
            assert_eq!(found, [&wanted[0], &wanted[1]]);
        }
    }

    #[test]
    fn files_of_another_form_are_refused() {
        let short = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            read("m", short.path()),
            Err(ModelFileError::Unreadable { .. })
        ));
        for (header, data) in [
            ("{", &b""[..]),
            (
                r#"{"a":{"dtype":"X","shape":[],"data_offsets":[0,1]}}"#,
                b"0",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}"#,
                b"01",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#,
                b"01",
            ),
        ] {
            let file = file(header, data);
            assert!(
                matches!(
                    read("m", file.path()),
                    Err(ModelFileError::Malformed { .. })
                ),
                "{header}"
            );
        }
        let truncated = file(
            r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#,
            b"0",
        );
        assert!(matches!(
            read("m", truncated.path()),
            Err(ModelFileError::Unreadable { .. })
        ));
    }
}

//! `.safetensors` files: an 8-byte little-endian header length, a JSON header, then the tensors' bytes without gaps.
//!
//! The header is parsed here rather than by the `safetensors` crate, whose parser wants the whole file in memory,
//! lets the last of two equal names win and orders empty tensors by hash. Its rules are kept; the tests write
//! their files with it. Format: <https://github.com/huggingface/safetensors#format>.

use super::{
    dtype::Dtype,
    layout::{Layout, PlacedTensor},
    shape::span_bytes,
    source::Source,
};
use crate::error::Error;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Checked before anything of the header is read. The format allows 100 MB; parsing takes several times the header's
/// size outside of the staging budget (E30), and real headers, of some 100 bytes a tensor, stay far below this.
const MAX_HEADER_BYTES: u64 = 16 << 20;

const LENGTH_BYTES: u64 = 8;

/// One tensor of a header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A header: its entries in the order of the text, repeated names included.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Option<HashMap<String, String>>>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads and checks the header of a safetensors file and lays its tensors out, each one a block.
///
/// # Errors
/// [`Error::InvalidModel`] naming the file, the value and what is wrong with it; [`Error::Io`] when the file
/// cannot be opened or read.
pub(crate) fn from_safetensors(path: &Path) -> Result<(Layout, Source), Error> {
    let invalid = |what: String| Error::InvalidModel(format!("{}: {what}", path.display()));
    // Not blocking: a FIFO would otherwise wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| Error::from_call("open", path, 0, source))?;
    let metadata = file
        .metadata()
        .map_err(|source| Error::from_call("fstat", path, 0, source))?;
    if !metadata.is_file() {
        return Err(invalid("it is not a regular file".into()));
    }
    let header_bytes = header_length(&file, path, metadata.len())?;
    let data_start = LENGTH_BYTES + header_bytes;
    let mut text = vec![0; header_bytes as usize];
    read_header(&file, path, &mut text, LENGTH_BYTES)?;
    let Header(mut entries) = serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("its header is not valid: {error}")))?;
    drop(text);
    // Stable: tensors without bytes keep the order of the text.
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let placed = place(entries, metadata.len() - data_start).map_err(invalid)?;
    let file_starts: Vec<u64> = placed
        .iter()
        .map(|tensor| data_start + tensor.start)
        .collect();
    // Each tensor is a storage of its own, so that each is one block although they touch in the file.
    let own_storages = placed
        .into_iter()
        .enumerate()
        .map(|(storage, tensor)| PlacedTensor {
            storage,
            start: 0,
            ..tensor
        })
        .collect();
    let (layout, origins) = Layout::of_placed(own_storages).map_err(|error| match error {
        Error::InvalidModel(what) => invalid(what),
        other => other,
    })?;
    let starts = origins
        .iter()
        .map(|origin| file_starts[origin.storage])
        .collect();
    let path = path.to_owned();
    Ok((layout, Source::File { file, path, starts }))
}

/// The header's length, once it is known to be inside the file and the limit.
fn header_length(file: &File, path: &Path, file_bytes: u64) -> Result<u64, Error> {
    let invalid = |what: String| Error::InvalidModel(format!("{}: {what}", path.display()));
    if file_bytes < LENGTH_BYTES {
        return Err(invalid(format!(
            "it has {file_bytes} bytes, a safetensors file has at least {LENGTH_BYTES}"
        )));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    read_header(file, path, &mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "its header claims {length} bytes, at most {MAX_HEADER_BYTES} are allowed"
        )));
    }
    if length > file_bytes - LENGTH_BYTES {
        return Err(invalid(format!(
            "its header claims {length} bytes, {} follow",
            file_bytes - LENGTH_BYTES
        )));
    }
    Ok(length)
}

fn read_header(file: &File, path: &Path, out: &mut [u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(out, offset)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::InvalidModel(format!(
                "{}: it became shorter while its header was read",
                path.display()
            )),
            _ => Error::from_call("read", path, out.len() as u64, source),
        })
}

/// Checks entries, sorted by offset, against each other and against the `data_bytes` that follow the header.
fn place(entries: Vec<(String, Entry)>, data_bytes: u64) -> Result<Vec<PlacedTensor>, String> {
    let mut end_so_far = 0;
    let mut placed = Vec::with_capacity(entries.len());
    for (storage, (name, entry)) in entries.into_iter().enumerate() {
        let (start, end) = entry.data_offsets;
        let tensor = format!("tensor {name:?}");
        let dtype = Dtype::from_safetensors(&entry.dtype)
            .ok_or_else(|| format!("{tensor}: dtype {:?} is not supported", entry.dtype))?;
        if end < start {
            return Err(format!(
                "{tensor}: its offsets {start}..{end} run backwards"
            ));
        }
        if end > data_bytes {
            return Err(format!(
                "{tensor}: its offsets {start}..{end} leave the {data_bytes} bytes of data"
            ));
        }
        if start < end_so_far {
            return Err(format!(
                "{tensor}: its offsets {start}..{end} overlap the tensor before it, which ends at {end_so_far}"
            ));
        }
        if start > end_so_far {
            return Err(format!(
                "{tensor}: its offsets {start}..{end} leave a gap after byte {end_so_far}"
            ));
        }
        let bytes =
            span_bytes(dtype, &entry.shape, None).map_err(|error| format!("{tensor}: {error}"))?;
        if bytes != end - start {
            return Err(format!(
                "{tensor}: dtype {} and shape {:?} take {bytes} bytes, its offsets {start}..{end} give {}",
                entry.dtype,
                entry.shape,
                end - start
            ));
        }
        end_so_far = end;
        placed.push(PlacedTensor {
            name,
            dtype,
            shape: entry.shape,
            strides: None,
            storage,
            start,
            span_bytes: bytes,
        });
    }
    if end_so_far != data_bytes {
        return Err(format!(
            "its tensors end at byte {end_so_far} of {data_bytes} bytes of data"
        ));
    }
    Ok(placed)
}

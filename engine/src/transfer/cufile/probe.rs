//! Trying cuFile out: registering a handle proves little, only bytes that came back do.

use super::{CuFile, Direction, Unusable};
use crate::{
    Error,
    cancellation::Stop,
    cuda::{Context, DeviceBuffer},
    model::Fill,
    spill::SpillDirectory,
    transfer::{DeviceSpan, FileRange, ModelFile, Staged, file_range::padded_bytes},
};
use std::sync::Arc;

/// Its name ends as that of every spill file, so that one left by a killed process is reaped.
const NAME: &str = "probe.spill";

/// A multiple of 4096, and one page with an odd number of bytes behind it. Each is written and read in one call.
const BLOCKS: [u64; 2] = [64 << 10, 4096 + 123];

/// Makes the file that the probe writes; it goes when it is dropped.
pub(super) fn file(directory: &SpillDirectory) -> Result<Arc<ModelFile>, Error> {
    let bytes = BLOCKS.iter().copied().map(padded_bytes).sum();
    let file = Arc::new(ModelFile::new(directory.create(NAME, bytes)?));
    // Nothing is written to it later, so holes need not be punched.
    file.abandon();
    Ok(file)
}

/// Writes every block from device memory, looks at the file, reads it back to other device memory and compares.
///
/// # Errors
/// The reason why cuFile cannot be used.
pub(super) fn run(cufile: &CuFile, file: &Arc<ModelFile>) -> Result<(), Unusable> {
    let mut offset = 0;
    for (index, bytes) in BLOCKS.into_iter().enumerate() {
        let range = FileRange::take(file, index, offset, bytes)?
            .ok_or_else(|| here("the probe's file is new and yet in use"))?;
        round_trip(cufile, &Arc::new(range), index as u64)?;
        offset += padded_bytes(bytes);
    }
    Ok(())
}

fn round_trip(cufile: &CuFile, range: &Arc<FileRange>, seed: u64) -> Result<(), Unusable> {
    let mut expected = vec![0; range.file_bytes() as usize];
    let bytes = range.bytes() as usize;
    Fill::Seed(seed).write(0, &mut expected[..bytes]);
    let (context, staged) = (&cufile.context, &*cufile.staged);
    let source = filled(context, staged, &expected[..bytes])?;
    let inverse: Vec<u8> = expected[..bytes].iter().map(|byte| !byte).collect();
    let target = filled(context, staged, &inverse)?;

    context.synchronize()?;
    let done = moved(cufile, span(&source), range, Direction::ToFile)?;
    let checksums = staged.store_rest(span(&source), range, done, &Stop::never())?;
    let mut written = vec![0; expected.len()];
    range.read_exact_at(&mut written, 0)?;
    if written != expected {
        return Err(here(
            "cuFileWrite left other bytes in the file than the device held",
        ));
    }

    let done = moved(cufile, span(&target), range, Direction::ToDevice)?;
    staged
        .load_rest(range, &checksums, span(&target), done, &Stop::never())
        .map_err(|error| {
            here(&format!(
                "cuFileRead delivered other bytes than the file held: {error}"
            ))
        })?;
    let mut read = vec![0; bytes];
    staged.read_device(target.address(), &mut read)?;
    if read != expected[..bytes] {
        return Err(here("cuFileRead delivered other bytes than the file held"));
    }
    source.release()?;
    target.release()?;
    Ok(())
}

fn moved(
    cufile: &CuFile,
    span: DeviceSpan,
    range: &FileRange,
    direction: Direction,
) -> Result<u64, Unusable> {
    cufile
        .move_pages(span, range, direction, &Stop::never())?
        .ok_or_else(|| here("the driver was lost while it was tried out"))
}

/// Device memory with these contents.
fn filled(context: &Arc<Context>, staged: &Staged, contents: &[u8]) -> Result<DeviceBuffer, Error> {
    let buffer = DeviceBuffer::new(context, contents.len() as u64)?;
    let mut given = |offset: u64, out: &mut [u8]| {
        let start = offset as usize;
        out.copy_from_slice(&contents[start..start + out.len()]);
        Ok(())
    };
    staged.write_device(span(&buffer), &mut given, &Stop::never())?;
    Ok(buffer)
}

fn span(buffer: &DeviceBuffer) -> DeviceSpan {
    DeviceSpan {
        address: buffer.address(),
        bytes: buffer.bytes(),
    }
}

fn here(reason: &str) -> Unusable {
    Unusable::Here(reason.into())
}

//! CUDA that is not there, or not usable: a typed answer from `open`, in bounded time, and nothing left behind.

use crate::steps::case;
use spillproof_harness::case::{Case, CuFile, Expect, Gpu, MIB};
use spillproof_protocol::ErrorKind;

/// Symbols whose absence an engine must notice before its first call: one each for memory, context and copies.
const WITHHELD: [&str; 3] = ["cuMemAlloc_v2", "cuCtxSetCurrent", "cuMemcpyDtoHAsync_v2"];

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let present = |devices, cuinit_result, withheld: &[&'static str]| Gpu::Present {
        devices,
        vram_bytes: 32 * MIB,
        cuinit_result,
        withheld: withheld.to_vec(),
        cufile: CuFile::Absent,
    };
    let absent = |name: String, gpu: Gpu, kind: ErrorKind| Case {
        gpu,
        open: Expect::Error(kind),
        ..case("absence", name, 32, Vec::new())
    };
    let named = |name: &str, device: &str, kind: ErrorKind| Case {
        device_name: Some(device.into()),
        ..absent(name.into(), present(2, 0, &[]), kind)
    };
    let mut cases = vec![
        absent("no_library".into(), Gpu::Absent, ErrorKind::CudaMissing),
        absent(
            "cuinit_100".into(),
            present(1, 100, &[]),
            ErrorKind::NoDevice,
        ),
        absent(
            "cuinit_999".into(),
            present(1, 999, &[]),
            ErrorKind::CudaInit,
        ),
        absent(
            "zero_devices".into(),
            present(0, 0, &[]),
            ErrorKind::NoDevice,
        ),
        named("ordinal_out_of_range", "cuda:2", ErrorKind::NoDevice),
        named("not_a_cuda_device", "npu:0", ErrorKind::UnsupportedDevice),
        named(
            "not_a_device_name",
            "cuda:first",
            ErrorKind::UnsupportedDevice,
        ),
    ];
    for symbol in WITHHELD {
        let name = format!("old_library_without_{symbol}");
        cases.push(absent(
            name,
            present(1, 0, &[symbol]),
            ErrorKind::CudaTooOld,
        ));
    }
    cases
}

//! Who is measured.

use super::Arguments;
use spillproof::bench::{Judged, fixtures};
use spillproof_harness::{
    bench::Contender, device::DeviceKind, run::Bench, subject::SubjectCommand,
};
use spillproof_protocol::TransferPath;
use std::{env, ffi::OsString};

/// What the names of PyTorch's rows begin with.
pub(super) const TORCH: &str = "torch-";

/// Lets PyTorch's subjects stand on the CPU for a GPU, to try them out.
const TORCH_DEVICE: &str = "SPILLPROOF_TORCH_DEVICE";

/// Handed to Python where it is set: packages may lie beside it.
const PYTHON_PATH: &str = "PYTHONPATH";

/// The judged engine, in each of its ways, and PyTorch.
pub(super) fn contenders(
    judged: &Judged,
    bench: &Bench,
    device: &DeviceKind,
    arguments: &Arguments,
) -> Vec<Contender> {
    let (name, is_ours) = match judged {
        Judged::Engine => ("engine".to_owned(), true),
        Judged::Specimen(id) => (format!("specimen-{id}"), true),
        Judged::Other(_) => ("subject".to_owned(), false),
    };
    let engine = |suffix: &str, cufile: &str, paths: &[TransferPath]| Contender {
        name: format!("{name}{suffix}"),
        command: bench.subject.clone(),
        settings: settings(&[("MMAP_MEM_THRESHOLD_GB", "512"), ("OFFLOAD_CUFILE", cufile)]),
        paths: paths.to_vec(),
        may_refuse: false,
        huge_pages: false,
        keeps_ram: true,
        is_concurrent: *judged == Judged::Engine,
        unavailable: None,
    };
    let mut all = vec![engine("", "off", &[])];
    if is_ours {
        let paths = [TransferPath::CuFile, TransferPath::CuFileCompat];
        all.push(engine("-cufile", "on", &paths));
    }
    let python = |name: &str, script: &str, may_refuse: bool| Contender {
        name: format!("{TORCH}{name}"),
        command: SubjectCommand {
            program: arguments.python.clone(),
            args: vec![
                OsString::from("-B"),
                fixtures("subjects/python").join(script).into(),
            ],
            env: env::var_os(PYTHON_PATH)
                .map(|path| (PYTHON_PATH.into(), path))
                .into_iter()
                .collect(),
        },
        settings: settings(&[("MMAP_MEM_THRESHOLD_GB", "512")]),
        paths: Vec::new(),
        may_refuse,
        huge_pages: true,
        keeps_ram: !may_refuse,
        is_concurrent: false,
        unavailable: without_gpu(device, arguments),
    };
    all.push(python("cpu", "torch_cpu.py", false));
    all.push(python("gds", "torch_gds.py", true));
    all
}

fn without_gpu(device: &DeviceKind, arguments: &Arguments) -> Option<String> {
    let stands_in = arguments.env.iter().any(|(name, _)| name == TORCH_DEVICE);
    match device {
        DeviceKind::Emulated if !stands_in => Some(format!(
            "PyTorch needs a real GPU; {TORCH_DEVICE}=cpu tries its subject out on the CPU"
        )),
        DeviceKind::Emulated | DeviceKind::Cuda { .. } => None,
    }
}

fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

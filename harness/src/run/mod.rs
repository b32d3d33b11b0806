//! Runs one case: a subject process, its steps, and a reading of everything around each of them.

mod abilities;
mod calls;
mod disturb;
mod readings;
mod session;
mod step;

use crate::{
    case::{Case, Gpu},
    device::{CudaGpu, DeviceKind, DeviceUnderTest, EmulatedGpu, EmulatorOptions},
    error::HarnessError,
    observation::{Aftermath, Outcome, Run},
    probe,
    sandbox::Sandbox,
    subject::{Ended, Limits, Subject, SubjectCommand},
};
pub use abilities::abilities;

use session::Session;
use spillproof_board::{BoardConfig, BoardDevice};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

/// What every run needs: programs and places.
#[derive(Clone, Debug)]
pub struct Bench {
    /// How to start the subject.
    pub subject: SubjectCommand,
    /// The program that holds device memory beside it.
    pub ballast: PathBuf,
    /// The library that serves as libcuda on emulated devices.
    pub emulator: PathBuf,
    /// Where sandboxes are made.
    pub work_dir: PathBuf,
}

/// Runs a case on a device of this kind.
///
/// What the subject does wrong is in the run; what the harness could not do is in its `infrastructure`.
#[must_use]
pub fn run_case(case: &Case, kind: &DeviceKind, bench: &Bench) -> Run {
    let mut run = Run {
        case: case.clone(),
        staging_bytes: 0,
        open: Outcome::NotRun,
        open_wall: Duration::ZERO,
        baseline: None,
        steps: Vec::new(),
        settled: None,
        ended: None,
        aftermath: None,
        offload_dir: PathBuf::new(),
        doubts: Vec::new(),
        asides: Vec::new(),
        skipped: None,
        infrastructure: None,
    };
    if let Err(error) = run_in_sandbox(&mut run, kind, bench) {
        run.infrastructure = Some(error.to_string());
    }
    run
}

fn run_in_sandbox(run: &mut Run, kind: &DeviceKind, bench: &Bench) -> Result<(), HarnessError> {
    let sandbox = Sandbox::create(&bench.work_dir, &run.case.id())?;
    run.offload_dir = sandbox.offload_dir();
    if sandbox.is_tmpfs() {
        let reason = format!(
            "{} is on a tmpfs, offload files belong on a disk; set SPILLPROOF_DIR",
            bench.work_dir.display()
        );
        return Err(HarnessError::Case(reason));
    }
    let device = prepare(kind, &run.case.gpu, bench, &sandbox)?;
    let mut command = bench.subject.clone();
    let settings = run
        .case
        .settings
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    command.env.extend(settings);
    let subject = Subject::spawn(&command, &sandbox, device.environment(), Limits::default())?;
    let mut session = Session {
        run,
        subject,
        device: &device,
        sandbox: &sandbox,
        bench,
        ballast: None,
        shadows: BTreeMap::new(),
        justified_bytes: 0,
    };
    let result = session.drive();
    let Session { run, subject, .. } = session;
    let deadline = run.case.limits.call;
    let ended: Ended = subject.finish(deadline);
    run.aftermath = Some(Aftermath {
        offload_files: probe::files(&sandbox.offload_dir())?,
        device: device.reading(&[])?,
    });
    run.ended = Some(ended);
    result
}

/// The device that the case asks for.
fn prepare(
    kind: &DeviceKind,
    gpu: &Gpu,
    bench: &Bench,
    sandbox: &Sandbox,
) -> Result<DeviceUnderTest, HarnessError> {
    let libraries = sandbox.root().join("libraries");
    match (kind, gpu) {
        (_, Gpu::Absent) => DeviceUnderTest::absent(&libraries),
        (
            DeviceKind::Emulated,
            Gpu::Present {
                devices,
                vram_bytes,
                cuinit_result,
                withheld,
            },
        ) => {
            let device = |index| BoardDevice {
                capacity_bytes: *vram_bytes,
                name: format!("emulated GPU {index}"),
            };
            let config = BoardConfig {
                devices: (0..*devices).map(device).collect(),
            };
            let options = EmulatorOptions {
                cuinit_result: (*cuinit_result != 0).then_some(*cuinit_result),
                withheld: withheld.iter().map(ToString::to_string).collect(),
            };
            let gpu = EmulatedGpu::create(&config, &bench.emulator, &libraries, options)?;
            Ok(DeviceUnderTest::Emulated(gpu))
        }
        (DeviceKind::Cuda { ordinal }, Gpu::Present { vram_bytes, .. }) => {
            let gpu = CudaGpu::open(*ordinal)?;
            gpu.wait_until_clean(*vram_bytes)?;
            Ok(DeviceUnderTest::Cuda(gpu))
        }
    }
}

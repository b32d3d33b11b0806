//! Runs one case: a subject process, its steps, and a reading of everything around each of them.

mod abilities;
mod attack;
mod beside;
mod calls;
mod crash;
mod disturb;
mod events;
mod injection;
mod reach;
mod readings;
mod runner;
mod session;
mod step;
mod together;
mod views;

use crate::{
    case::{Action, Case, CuFile, Gpu},
    device::{CudaGpu, DeviceKind, DeviceUnderTest, EmulatedGpu, EmulatorOptions},
    error::HarnessError,
    observation::{Aftermath, Run, total},
    probe,
    sandbox::Sandbox,
    shadow::Shadow,
    subject::{Ended, Limits, Subject, SubjectCommand},
    world::Volume,
};
pub use abilities::{abilities, bears_the_interposer};

use attack::Spoils;
use injection::Injection;
use nix::sys::statvfs::statvfs;
use session::Session;
use spillproof_board::{BoardConfig, BoardDevice};
use spillproof_protocol::DigestAlgorithm;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Disk space that a run takes beside its models: the warm-up, logs.
const OTHER_DISK_BYTES: u64 = 32 << 20;

/// Device memory that a round takes beside its models.
const OTHER_DEVICE_BYTES: u64 = 16 << 20;

/// What every run needs: programs and places.
#[derive(Clone, Debug)]
pub struct Bench {
    /// How to start the subject.
    pub subject: SubjectCommand,
    /// The program that holds device memory beside it.
    pub ballast: PathBuf,
    /// The library that makes calls of a subject fail.
    pub interposer: PathBuf,
    /// Whether it is in every subject and keeps the ledger there, not only where calls are to fail.
    pub keeps_ledger: bool,
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
    let mut run = Run::new(case, PathBuf::new());
    if let Err(error) = run_in_sandbox(&mut run, kind, bench) {
        run.infrastructure = Some(error.to_string());
    }
    run
}

fn run_in_sandbox(run: &mut Run, kind: &DeviceKind, bench: &Bench) -> Result<(), HarnessError> {
    let mut sandbox = Sandbox::create_in(&run.case.world, &bench.work_dir, &run.case.id())?;
    run.offload_dir = sandbox.offload_dir();
    run.work_dir = sandbox.work_dir();
    if sandbox.is_tmpfs() {
        let reason = format!(
            "{} is on a tmpfs, offload files belong on a disk; set SPILLPROOF_DIR",
            bench.work_dir.display()
        );
        return Err(HarnessError::Case(reason));
    }
    if run.case.world.volume == Volume::Disk {
        refuse_a_full_disk(&run.case, &sandbox.offload_dir())?;
    }
    let device = prepare(kind, &run.case.gpu, bench, &sandbox)?;
    if let (DeviceUnderTest::Emulated(gpu), Some(_)) = (&device, run.case.world.memory_bytes) {
        gpu.populate(addressed_bytes(&run.case))?;
    }
    let mut command = bench.subject.clone();
    let settings = run
        .case
        .settings
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    command.env.extend(settings);
    let limits = subject_limits(&run.case);
    // In a user namespace of its own, which a private volume may need, a process may not open what the harness holds: the ledger
    // alone is not worth that.
    let keeps_ledger = bench.keeps_ledger && !run.case.world.volume.is_private();
    let is_wanted = run.case.faults.is_some() || keeps_ledger;
    let injection = is_wanted.then(|| {
        let faults = run.case.faults.as_ref();
        Injection::create(faults, run.case.pace, bench, &sandbox)
    });
    let injection = injection.transpose()?;
    let environment = with_faults(device.environment(), injection.as_ref());
    let subject = Subject::spawn(&command, &sandbox, environment, limits)?;
    sandbox.look_through(subject.pid())?;
    let mut session = Session {
        run,
        command,
        subject,
        algorithm: DigestAlgorithm::default(),
        device: &device,
        sandbox: &sandbox,
        bench,
        injection: injection.as_ref(),
        is_interposed: false,
        receipts: 0,
        case_step: 0,
        ballast: device.kept_ballast(),
        neighbour: None,
        limited: Vec::new(),
        shadows: BTreeMap::new(),
        views: BTreeMap::new(),
        spoils: Spoils::default(),
        justified_bytes: 0,
    };
    let result = session.drive();
    // Where driving stopped early it is still there, with files that are nobody's fault.
    session.end_neighbour();
    // Before the directory is read for the last time, also where a subject's death ended its case early.
    session.spoils.give_permissions_back();
    // Also where the subject ended the case: without the ballast it was another case.
    let result = result.and(session.check_ballast());
    let Session {
        run,
        subject,
        ballast,
        ..
    } = session;
    let deadline = run.case.limits.call;
    let ended: Ended = subject.finish(deadline);
    run.aftermath = Some(Aftermath {
        offload_files: probe::files(&sandbox.offload_view())?,
        device: device.reading(&[])?,
    });
    run.ended = Some(ended);
    run.group = sandbox.group_account();
    run.rules = injection.as_ref().map_or_else(Vec::new, Injection::account);
    if let Some(injection) = &injection {
        let (calls, doubt) = injection.calls();
        run.calls = calls;
        run.doubts.extend(doubt);
    }
    if let (DeviceUnderTest::Cuda(gpu), Some(ballast)) = (&device, ballast) {
        gpu.keep(ballast);
    }
    result
}

fn with_faults(
    mut environment: Vec<(OsString, OsString)>,
    injection: Option<&Injection>,
) -> Vec<(OsString, OsString)> {
    environment.extend(injection.into_iter().flat_map(Injection::environment));
    environment
}

/// A disk that is full before anything began is nobody's fault that is judged here.
fn refuse_a_full_disk(case: &Case, directory: &Path) -> Result<(), HarnessError> {
    let models = case.models.iter().map(Shadow::new);
    let bytes = models.filter_map(|model| model.file_bytes().ok());
    let wanted = total(bytes).saturating_add(OTHER_DISK_BYTES);
    let space = statvfs(directory).map_err(HarnessError::system("statvfs"))?;
    let available = space.blocks_available() as u64 * space.fragment_size() as u64;
    if available < wanted {
        return Err(HarnessError::Case(format!(
            "{available} bytes are free at {}, the case needs {wanted}; make room or set SPILLPROOF_DIR",
            directory.display()
        )));
    }
    Ok(())
}

/// Device addresses that a run may take, warm-up and second round included.
fn addressed_bytes(case: &Case) -> u64 {
    let bytes_of = |name: &str| {
        let model = case.model(name);
        model
            .and_then(|model| Shadow::new(model).file_bytes().ok())
            .unwrap_or(0)
    };
    let brought = case.steps.iter().map(|step| match &step.action {
        Action::Load { model } => bytes_of(model),
        Action::Request {
            model,
            workspace_bytes,
            ..
        } => bytes_of(model) + workspace_bytes,
        _ => 0,
    });
    // Between two allocations there are addresses that nobody has.
    2 * total(brought) + 2 * OTHER_DEVICE_BYTES
}

/// What a subject may use from its start.
fn subject_limits(case: &Case) -> Limits {
    Limits {
        file_bytes: case.world.file_bytes,
        ..Limits::default()
    }
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
                cufile,
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
                cufile: match cufile {
                    CuFile::Absent => None,
                    CuFile::AsFound => Some(CuFile::DIRECT.to_string()),
                    CuFile::Present { .. } => Some(cufile.to_string()),
                },
            };
            let gpu = EmulatedGpu::create(&config, &bench.emulator, &libraries, options)?;
            Ok(DeviceUnderTest::Emulated(gpu))
        }
        (
            DeviceKind::Cuda { ordinal },
            Gpu::Present {
                vram_bytes, cufile, ..
            },
        ) => {
            let mut gpu = CudaGpu::open(*ordinal)?;
            gpu.wait_until_clean(*vram_bytes)?;
            if *cufile == CuFile::Absent {
                gpu = gpu.without_cufile(&libraries)?;
            }
            Ok(DeviceUnderTest::Cuda(gpu))
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is refused before a subject is started.
    use super::*;
    use crate::case::{Expect, Model};

    #[test]
    fn a_disk_without_room_for_the_models_is_nobodys_fault() {
        let directory = tempfile::tempdir().unwrap();
        let case = |bytes: u64| {
            let manifest = serde_json::json!({
                "storages": [{"name": "t", "bytes": bytes, "fill": {"seed": 1}}],
                "tensors": [{"name": "t", "dtype": "u8", "shape": [bytes], "storage": "t"}],
            });
            Case {
                family: "f",
                name: "n".into(),
                models: vec![Model {
                    name: "m".into(),
                    manifest: serde_json::from_value(manifest).unwrap(),
                    file: None,
                }],
                gpu: Gpu::with_vram(1 << 20),
                device_name: None,
                settings: Vec::new(),
                open: Expect::Ok,
                steps: Vec::new(),
                limits: crate::case::Limits::default(),
                requires: Vec::new(),
                world: crate::world::World::default(),
                path: None,
                faults: None,
                pace: crate::case::Pace::default(),
            }
        };
        refuse_a_full_disk(&case(4096), directory.path()).unwrap();
        let error = refuse_a_full_disk(&case(1 << 60), directory.path()).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
    }
}

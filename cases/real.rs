//! Real weights: `SPILLPROOF_MODEL=file.safetensors` adds this family, over that file.

use crate::steps::{CaseWords as _, case, free, load, read_back, request};
use spillproof_harness::{
    case::{Amount, Case, Destinations, MIB},
    model_file::{self, ModelFileError},
    shadow::Shadow,
};
use spillproof_protocol::{Capability, Tier};
use std::path::PathBuf;

/// The variable that names the file.
pub const MODEL_VARIABLE: &str = "SPILLPROOF_MODEL";

/// The family: empty without the variable.
///
/// # Errors
/// The file cannot be used.
pub fn cases() -> Result<Vec<Case>, ModelFileError> {
    let Some(path) = std::env::var_os(MODEL_VARIABLE).map(PathBuf::from) else {
        return Ok(Vec::new());
    };
    let model = model_file::read("m", &path)?;
    let bytes = Shadow::new(&model).referenced_bytes().unwrap_or(0);
    let model_mib = bytes.div_ceil(MIB);
    let real = |name: &str, vram_mib: u64| {
        case("real", name, vram_mib, vec![model.clone()]).needs(Capability::Safetensors)
    };
    let roomy = model_mib * 2 + 16;
    let journey = |to: Destinations| {
        let free_all = || free(Amount::float(1e30), to.clone());
        [
            load("m"),
            request("m"),
            free_all(),
            read_back("m"),
            request("m"),
            free_all(),
            request("m"),
        ]
    };
    Ok(vec![
        real("forced_1e30", roomy).steps(journey(Destinations::All(Tier::Mapped))),
        real("forced_1e30_file_only", roomy)
            .file_only()
            .steps(journey(Destinations::All(Tier::File))),
        real("forced_1e30_in_ram", roomy)
            .set("MMAP_MEM_THRESHOLD_GB", "0")
            .in_ram(bytes)
            .steps(journey(Destinations::All(Tier::Ram))),
        real("partial_half", roomy).steps([
            load("m"),
            free(Amount::whole(bytes / 2), Destinations::All(Tier::Mapped)),
            read_back("m"),
            request("m"),
        ]),
        real("larger_than_vram", (model_mib * 3 / 4).max(24)).steps([
            load("m"),
            request("m"),
            request("m"),
        ]),
    ])
}

//! The directory and its files against real filesystems, other processes and planted names.

mod child;
mod cleaned;
mod directories;
mod files;
mod maps;
mod orphans;

use super::SpillDirectory;
use crate::{
    error::Error,
    settings::{Settings, TmpfsPolicy},
};
use std::{fs, path::Path};

/// Settings with this directory, whatever it lives on.
fn settings(directory: &Path) -> Settings {
    Settings::builder()
        .directory(directory)
        .tmpfs(TmpfsPolicy::CountAsRam)
        .build()
        .unwrap()
}

fn open(directory: &Path) -> Result<SpillDirectory, Error> {
    SpillDirectory::open(&settings(directory))
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

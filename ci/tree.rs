//! Rules about the tree: arrows between crates, lengths of files, goldens without a case, names at the top.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, lines.
const MAX_LINES: usize = 500;

/// What each crate may depend on, of this repository.
const ARROWS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("harness/board", &[]),
    ("harness/faults", &[]),
    ("harness/interposer", &["spillproof-faults"]),
    ("harness/protocol", &[]),
    (
        "harness",
        &[
            "spillproof-board",
            "spillproof-faults",
            "spillproof-protocol",
        ],
    ),
    ("fixtures/cuda-emulator", &["spillproof-board"]),
    (
        "fixtures/subjects",
        &["spillproof-engine", "spillproof-protocol"],
    ),
    (
        ".",
        &[
            "spillproof-harness",
            "spillproof-protocol",
            "spillproof-subjects",
        ],
    ),
];

/// What tests may depend on beyond that.
const TEST_ARROWS: &[(&str, &[&str])] = &[
    // Its own tests load it as a library from disk, so cargo must build it for them.
    ("fixtures/cuda-emulator", &["spillproof-cuda-emulator"]),
    (
        "harness/interposer",
        &[
            "spillproof-board",
            "spillproof-cuda-emulator",
            "spillproof-interposer",
        ],
    ),
    (
        "fixtures/subjects",
        &["spillproof-board", "spillproof-cuda-emulator"],
    ),
    (".", &["spillproof-cuda-emulator", "spillproof-interposer"]),
];

const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "clippy.toml",
    "engine",
    "harness",
    "fixtures",
    "cases",
    "golden",
    "ci",
    ".ci",
    ".git",
    ".gitignore",
    "target",
];

fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Files below the root with one of these endings, by path within it; build output and hidden folders left out.
fn sources(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("the tree can be listed") {
            let path = entry.expect("the tree can be listed").path();
            let name = path
                .file_name()
                .expect("an entry has a name")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    pending.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

/// The crates of this repository under one heading of a manifest.
fn own_dependencies(manifest: &str, heading: &str) -> BTreeSet<String> {
    let section = manifest
        .split("\n[")
        .find(|section| section.starts_with(&format!("{heading}]")));
    let lines = section
        .into_iter()
        .flat_map(|section| section.lines().skip(1));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    names
        .filter(|name| name.starts_with("spillproof-"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn arrows_between_crates_run_one_way() {
    for (folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
        assert_eq!(
            own_dependencies(&manifest, "dependencies"),
            allowed,
            "dependencies of {folder}"
        );
        let tests = TEST_ARROWS
            .iter()
            .find(|(name, _)| name == folder)
            .map_or(&[][..], |(_, tests)| tests);
        let tests: BTreeSet<String> = tests.iter().map(ToString::to_string).collect();
        assert_eq!(
            own_dependencies(&manifest, "dev-dependencies"),
            tests,
            "test dependencies of {folder}"
        );
    }
}

#[test]
fn every_crate_has_its_arrows_stated() {
    let manifests = sources(&["Cargo.toml"]);
    let folders: BTreeSet<PathBuf> = manifests
        .iter()
        .map(|path| path.parent().unwrap().to_owned())
        .collect();
    let stated: BTreeSet<PathBuf> = ARROWS
        .iter()
        .map(|(folder, _)| {
            Path::new(folder)
                .components()
                .filter(|c| c.as_os_str() != ".")
                .collect()
        })
        .collect();
    assert_eq!(folders, stated);
}

#[test]
fn source_files_stay_short() {
    let mut long = BTreeMap::new();
    for path in sources(&[".rs", ".py", ".c", ".sh"]) {
        let lines = fs::read_to_string(root().join(&path))
            .unwrap()
            .lines()
            .count();
        if lines > MAX_LINES {
            long.insert(path, lines);
        }
    }
    assert!(
        long.is_empty(),
        "longer than {MAX_LINES} lines, split them by purpose: {long:?}"
    );
}

#[test]
fn every_golden_has_its_case_and_every_case_its_golden() {
    let goldens: BTreeSet<String> = sources(&[".snap"])
        .iter()
        .filter_map(|path| path.strip_prefix("golden").ok())
        .map(|path| path.with_extension("").to_string_lossy().replace('/', "::"))
        .collect();
    let cases = spillproof::catalogue().unwrap();
    let cases: BTreeSet<String> = cases
        .iter()
        .filter(|case| case.family != "real")
        .map(|case| case.id())
        // What `spillproof bench` counts, in one.
        .chain(["bench::counts".to_owned()])
        .collect();
    let orphans: Vec<_> = goldens.difference(&cases).collect();
    let missing: Vec<_> = cases.difference(&goldens).collect();
    assert!(
        orphans.is_empty(),
        "goldens without a case, delete them: {orphans:?}"
    );
    assert!(
        missing.is_empty(),
        "cases without a golden, run the suite with INSTA_UPDATE=always and read them: {missing:?}"
    );
}

#[test]
fn the_top_level_holds_what_it_should() {
    let known: BTreeSet<&str> = TOP_LEVEL.iter().copied().collect();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        // Folders that a person's own git excludes are not part of the tree.
        let hidden = name.starts_with('.');
        assert!(
            hidden || known.contains(name.as_str()),
            "{name} is new at the top level; find its folder"
        );
    }
}

#[test]
fn case_names_are_unique() {
    let mut names = BTreeSet::new();
    for case in spillproof::catalogue().unwrap() {
        assert!(names.insert(case.id()), "{} is defined twice", case.id());
    }
}

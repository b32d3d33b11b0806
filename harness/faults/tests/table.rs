//! The table against what others say: the C library of this machine, cudarc's bindings, the emulated CUDA libraries; and
//! each row against itself.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use spillproof_faults::{
    After, Domain, ERRORS, Effect, Failure, FaultError, Key, Library, MAX_ARITY, SITES, SPELLINGS,
    Short, Site, SiteId, Size, SpellingId, Target,
};

/// What the sites of CUDA and cuFile must cover, by the start of an exported name.
const COVERED: &[&str] = &[
    "cuInit",
    "cuDeviceGetCount",
    "cuDevicePrimaryCtxRetain",
    "cuCtxCreate_v",
    "cuCtxSynchronize",
    "cuMemAlloc",
    "cuMemFree",
    "cuMemPool",
    "cuMemGetInfo",
    "cuMemAddress",
    "cuMemCreate",
    "cuMemRelease",
    "cuMemUnmap",
    "cuMemSetAccess",
    "cuMemHostAlloc",
    "cuMemHostRegister",
    "cuMemHostUnregister",
    "cuMemcpy",
    "cuStreamCreate",
    "cuStreamDestroy",
    "cuStreamSynchronize",
    "cuEvent",
    "cuFileDriverOpen",
    "cuFileDriverClose",
    "cuFileDriverGetProperties",
    "cuFileHandle",
    "cuFileBuf",
    "cuFileRead",
    "cuFileWrite",
    "cuFileBatch",
    "cuFileStream",
    "cuFileGetVersion",
    "cuFileSetParameter",
];

fn is_covered(name: &str) -> bool {
    name == "cuMemMap" || COVERED.iter().any(|start| name.starts_with(start))
}

fn spellings(library: Library) -> impl Iterator<Item = (&'static str, &'static Site)> {
    let rows = SPELLINGS.iter().map(|row| (row.name, row.site.site()));
    rows.filter(move |(_, site)| site.library == library)
}

fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR");
    own.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
        .join("../..")
}

/// Function → number of arguments, as cudarc declares them for any version of CUDA.
fn bindings() -> BTreeMap<String, usize> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file can be read");
    let package = lock
        .split("[[package]]")
        .find(|p| p.contains("name = \"cudarc\""));
    let version = package.and_then(|p| p.split("version = \"").nth(1)?.split('"').next());
    let version = version.expect("Cargo.lock names cudarc's version");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.expect("a home directory").join("registry/src");
    let sources: Vec<PathBuf> = fs::read_dir(&registries)
        .unwrap_or_else(|error| panic!("{}: {error}; run cargo fetch", registries.display()))
        .map(|entry| {
            entry
                .expect("a registry can be listed")
                .path()
                .join(format!("cudarc-{version}"))
        })
        .filter(|folder| folder.is_dir())
        .collect();
    let source = sources.first();
    let source = source.unwrap_or_else(|| panic!("cudarc {version} is not there; run cargo fetch"));
    let mut found = BTreeMap::new();
    for file in ["src/driver/sys/mod.rs", "src/cufile/sys/mod.rs"] {
        let text = fs::read_to_string(source.join(file)).expect("the bindings can be read");
        for declaration in text.split("pub unsafe fn ").skip(1) {
            let (name, rest) = declaration
                .split_once('(')
                .expect("a declaration has arguments");
            let arguments = rest.split_once(')').expect("arguments end").0;
            // No argument is a function pointer, so no closing parenthesis lies inside.
            let count = arguments
                .split(',')
                .filter(|part| part.contains(':'))
                .count();
            let earlier = found.insert(name.to_owned(), count);
            assert!(earlier.is_none_or(|earlier| earlier == count), "{name}");
        }
    }
    assert!(
        found.len() > 400,
        "cudarc's bindings look otherwise: {}",
        found.len()
    );
    found
}

/// A name without the suffix of its per-thread twin.
fn base(name: &str) -> &str {
    let twin = name
        .strip_suffix("_ptsz")
        .or_else(|| name.strip_suffix("_ptds"));
    twin.unwrap_or(name)
}

#[test]
fn arity_is_that_of_cudarcs_bindings() {
    let bindings = bindings();
    // Its bindings have only the current version of some functions.
    let unbound = ["cuDevicePrimaryCtxRelease"];
    for (name, site) in spellings(Library::Cuda).chain(spellings(Library::CuFile)) {
        match bindings.get(base(name)) {
            Some(arity) => assert_eq!(usize::from(site.arity), *arity, "{name}"),
            None => assert!(unbound.contains(&name), "cudarc does not know {name}"),
        }
    }
    let missing: Vec<_> = bindings
        .keys()
        .filter(|name| is_covered(name) && SpellingId::find(name.as_bytes()).is_none())
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn what_the_emulated_libraries_export_is_in_the_table() {
    let mut pending = vec![root().join("fixtures/cuda-emulator/src")];
    let mut exported = BTreeSet::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let is_list = path.ends_with("unsupported.rs");
            let words: Vec<&str> = line
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .collect();
            for (index, word) in words.iter().enumerate() {
                let is_declared = index > 0 && matches!(words[index - 1], "fn" | "twin");
                let is_name = word.starts_with("cu") && word[2..].starts_with(char::is_uppercase);
                if is_name && (is_declared || is_list) {
                    exported.insert((*word).to_owned());
                }
            }
        }
    }
    for known in [
        "cuMemcpy_ptds",
        "cuMemMap",
        "cuFileBatchIODestroy",
        "cuFileReadv",
    ] {
        assert!(
            exported.contains(known),
            "{known} was not found in the emulator's sources"
        );
    }
    let missing: Vec<_> = exported
        .iter()
        .filter(|name| is_covered(name) && SpellingId::find(name.as_bytes()).is_none())
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn the_c_library_exports_every_spelling_of_its_own() {
    for (name, _) in spellings(Library::Libc) {
        let symbol = std::ffi::CString::new(name).unwrap();
        // SAFETY: the name is a string that ends in 0, and the default handle needs no library open.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) };
        assert!(!address.is_null(), "{name} is not in the C library");
    }
}

#[test]
fn what_must_be_wrapped_of_the_c_library_is_in_the_table() {
    let both = "open openat creat pread pwrite preadv pwritev lseek ftruncate fallocate posix_fallocate mmap stat fstat \
        statfs sendfile fcntl mkstemp";
    let plain = "read write readv writev preadv2 pwritev2 fsync fdatasync sync_file_range close munmap msync madvise rename \
        renameat renameat2 unlink unlinkat mkdir rmdir link statx copy_file_range splice flock dup dup2 dup3 syscall \
        preadv64v2 pwritev64v2";
    let twins = both.split_whitespace().map(|name| format!("{name}64"));
    let all = both.split_whitespace().chain(plain.split_whitespace());
    for name in all.map(str::to_owned).chain(twins) {
        let found = SpellingId::find(name.as_bytes());
        let found = found.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(found.site().site().library, Library::Libc);
    }
}

#[test]
fn no_name_is_listed_twice() {
    let mut words = BTreeSet::new();
    let mut symbols = BTreeSet::new();
    for site in &SITES {
        assert!(words.insert(site.name), "{} is two sites", site.name);
    }
    for (index, row) in SPELLINGS.iter().enumerate() {
        assert!(symbols.insert(row.name), "{} is spelled twice", row.name);
        assert_eq!(SpellingId::named(row.name), SpellingId(index as u16));
        assert!(row.site.site().spellings.contains(&row.name));
        // A word may be an older spelling of another signature, but never another site's spelling.
        let meant = SiteId::find(row.name).unwrap();
        assert_eq!(meant, row.site, "{} means two sites", row.name);
    }
}

/// Every argument that a row refers to.
fn arguments(site: &Site) -> Vec<u8> {
    let mut all = Vec::from_iter(site.offset_arg);
    match site.short {
        Short::None => {}
        Short::Count { size_arg } => all.push(size_arg),
        Short::Vector { iov_arg, count_arg } => all.extend([iov_arg, count_arg]),
    }
    match site.size {
        Size::None => {}
        Size::Arg(arg) | Size::Pointed(arg) => all.push(arg),
        Size::Vector { iov_arg, count_arg } => all.extend([iov_arg, count_arg]),
        Size::PitchTimes {
            pitch_arg,
            rows_arg,
        } => all.extend([pitch_arg, rows_arg]),
    }
    match site.target {
        Target::None => {}
        Target::Path(arg) | Target::Fd(arg) | Target::Mapping { address_arg: arg } => all.push(arg),
        Target::PathAt { dir_arg, path_arg } => all.extend([dir_arg, path_arg]),
        Target::TwoPaths(first, second) | Target::TwoFds(first, second) => {
            all.extend([first, second])
        }
        Target::TwoPathsAt {
            first_dir_arg,
            first_path_arg,
            second_dir_arg,
            second_path_arg,
        } => all.extend([
            first_dir_arg,
            first_path_arg,
            second_dir_arg,
            second_path_arg,
        ]),
        Target::FdRange {
            first_arg,
            last_arg,
        } => all.extend([Some(first_arg), last_arg].into_iter().flatten()),
    }
    match site.effect {
        Effect::Nothing | Effect::Opens | Effect::Maps | Effect::Names => {}
        Effect::Duplicates | Effect::DuplicatesByCommand => all.push(0),
        Effect::Makes { key, .. } | Effect::Ends { key, .. } => match key {
            Key::Returned => {}
            Key::Out(arg) | Key::Arg(arg) => all.push(arg),
        },
        Effect::Closes(arg) | Effect::Unmaps { address_arg: arg } => all.push(arg),
        Effect::ClosesRange {
            first_arg,
            last_arg,
        } => all.extend([Some(first_arg), last_arg].into_iter().flatten()),
    }
    all
}

#[test]
fn each_row_agrees_with_itself() {
    for site in &SITES {
        let name = site.name;
        assert!(usize::from(site.arity) <= MAX_ARITY, "{name}");
        for argument in arguments(site) {
            assert!(argument < site.arity, "{name} has no argument {argument}");
        }
        let cannot_fail = matches!(site.failure, Failure::Void | Failure::RawSyscall);
        assert_eq!(site.errors.is_empty(), cannot_fail, "{name}");
        let distinct: BTreeSet<_> = site.errors.iter().collect();
        assert_eq!(
            distinct.len(),
            site.errors.len(),
            "{name} lists an error twice"
        );
        for error in site.errors {
            let fits = match site.failure {
                Failure::MinusOne | Failure::MapFailed | Failure::ReturnsErrno => {
                    error.domain == Domain::Errno
                }
                Failure::CudaResult => error.domain == Domain::Cuda,
                Failure::CuFileError => error.domain == Domain::CuFile,
                Failure::CuFileBytes => error.domain != Domain::Cuda,
                Failure::RawSyscall | Failure::Void => false,
            };
            assert!(fits, "{name} cannot say {error}");
        }
        let makes = matches!(
            site.effect,
            Effect::Makes { .. }
                | Effect::Opens
                | Effect::Maps
                | Effect::Duplicates
                | Effect::DuplicatesByCommand
        );
        assert!(
            !makes || site.after == After::Never,
            "{name} makes something that nobody could give back"
        );
        let has_file = site.library == Library::Libc && site.failure != Failure::RawSyscall;
        assert_eq!(site.target != Target::None, has_file, "{name}");
    }
}

#[test]
fn errors_have_the_numbers_of_the_headers() {
    let mut names = BTreeSet::new();
    for (name, error) in ERRORS {
        assert!(names.insert(name), "{name} is listed twice");
        assert_eq!(FaultError::named(name), Some(*error));
        assert_eq!(error.name(), *name);
        assert_eq!(
            FaultError::checked(error.domain as u64, error.code as u64),
            Some(*error)
        );
    }
    for (name, error) in ERRORS
        .iter()
        .filter(|(_, error)| error.domain == Domain::Errno)
    {
        let known = strerrorname_np(error.code);
        assert!(!known.is_null(), "{name} has the number {}", error.code);
        // SAFETY: it is not null, so it is a static string that ends in 0.
        let known = unsafe { std::ffi::CStr::from_ptr(known) };
        let known = if known == c"ENOTSUP" {
            c"EOPNOTSUPP"
        } else {
            known
        };
        assert_eq!(known.to_str().unwrap(), *name);
    }
}

unsafe extern "C" {
    safe fn strerrorname_np(code: i32) -> *const std::ffi::c_char;
}

//! Looking up a symbol in one loaded library by its own tables.
//!
//! `dlsym` itself is wrapped here, so the first address cannot come from it; and which spelling an address belongs to can only be
//! told by asking the library that holds it. The loader's calls would also leave their mark on `dlerror`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;

/// The head of glibc's `struct link_map` (link.h).
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
    next: *mut LinkMap,
    previous: *mut LinkMap,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: u64,
}

const DT_NULL: i64 = 0;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
/// Set in a symbol's version where another version is the default one.
const VERSION_HIDDEN: u16 = 0x8000;
const STT_FUNC: u8 = 2;
/// `RTLD_DL_LINKMAP` of `dladdr1`.
const LINK_MAP_WANTED: i32 = 2;

/// A loaded library (or the program).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    map: *const LinkMap,
}

impl Object {
    /// The object that holds an address.
    pub(crate) fn holding(address: usize) -> Option<Object> {
        // SAFETY: all fields of the plain C struct may be zero.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        let mut map: *mut c_void = null_mut();
        // SAFETY: both results are writable, and the address is only looked up.
        let found = unsafe {
            libc::dladdr1(
                address as *const c_void,
                &raw mut info,
                &raw mut map,
                LINK_MAP_WANTED,
            )
        };
        (found != 0 && !map.is_null()).then_some(Object { map: map.cast() })
    }

    /// This library.
    pub(crate) fn own() -> Option<Object> {
        Object::holding(Object::own as *const () as usize)
    }

    /// The objects that were loaded before it, beginning with the last one, and itself.
    pub(crate) fn and_before(self) -> impl Iterator<Item = Object> {
        std::iter::successors(Some(self), |object| {
            // SAFETY: the loader keeps the entries of loaded objects, and those before a library that is never unloaded are
            // the program and libraries loaded with it, which are not unloaded either.
            let previous = unsafe { (*object.map).previous };
            (!previous.is_null()).then_some(Object { map: previous })
        })
    }

    /// All objects, in the order of loading. To be asked at start, before anything can be unloaded.
    pub(crate) fn everybody(self) -> impl Iterator<Item = Object> {
        let first = self.and_before().last();
        std::iter::successors(first, |object| {
            // SAFETY: the loader keeps the entries of loaded objects.
            let next = unsafe { (*object.map).next };
            (!next.is_null()).then_some(Object { map: next })
        })
    }

    /// The file's name without its folders; empty for the program.
    pub(crate) fn file_name(self) -> &'static [u8] {
        // SAFETY: the loader's name of a loaded object is a terminated string or null.
        let path = unsafe {
            let name = (*self.map).name;
            if name.is_null() {
                return b"";
            }
            CStr::from_ptr(name).to_bytes()
        };
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
    }

    /// The address of a function that the object exports, in its default version.
    pub(crate) fn function(self, name: &str) -> Option<usize> {
        // SAFETY: the object is loaded, so its dynamic section and the tables it names are mapped and well formed: the loader
        // has bound its symbols through the same ones.
        unsafe { self.tables()?.find(name) }
    }

    /// # Safety
    /// The object must be loaded.
    unsafe fn tables(self) -> Option<Tables> {
        // SAFETY: as above.
        unsafe {
            let base = (*self.map).base;
            let mut tables = Tables {
                base,
                strings: 0,
                symbols: 0,
                hash: 0,
                versions: 0,
            };
            let mut entry = (*self.map).dynamic;
            if entry.is_null() {
                return None;
            }
            while (*entry).tag != DT_NULL {
                // glibc turns these into addresses in place, except where the section is read-only.
                let value = (*entry).value;
                let address = if value < base { base + value } else { value };
                match (*entry).tag {
                    DT_STRTAB => tables.strings = address,
                    DT_SYMTAB => tables.symbols = address,
                    DT_GNU_HASH => tables.hash = address,
                    DT_VERSYM => tables.versions = address,
                    _ => {}
                }
                entry = entry.add(1);
            }
            (tables.strings != 0 && tables.symbols != 0 && tables.hash != 0).then_some(tables)
        }
    }
}

/// Addresses of an object's tables; 0 where it has none.
struct Tables {
    base: usize,
    strings: usize,
    symbols: usize,
    hash: usize,
    versions: usize,
}

impl Tables {
    /// Walks the chain of the name's bucket (the GNU hash table; its Bloom filter is passed over).
    ///
    /// # Safety
    /// The tables must be those of a loaded object.
    unsafe fn find(&self, name: &str) -> Option<usize> {
        let wanted = gnu_hash(name.as_bytes());
        // SAFETY: the layout is the one that the loader reads: four words, the filter, the buckets, the chains; a chain ends
        // with an odd hash.
        unsafe {
            let header = self.hash as *const u32;
            let (buckets, offset, filter) = (*header, *header.add(1), *header.add(2) as usize);
            if buckets == 0 {
                return None;
            }
            let first_bucket = (self.hash + 16 + filter * 8) as *const u32;
            let chains = first_bucket.add(buckets as usize);
            let mut index = *first_bucket.add((wanted % buckets) as usize);
            if index < offset {
                return None;
            }
            loop {
                let hash = *chains.add((index - offset) as usize);
                if hash | 1 == wanted | 1
                    && let Some(address) = self.matching(index as usize, name)
                {
                    return Some(address);
                }
                if hash & 1 == 1 {
                    return None;
                }
                index += 1;
            }
        }
    }

    /// # Safety
    /// As [`Tables::find`], with an index out of a chain.
    unsafe fn matching(&self, index: usize, name: &str) -> Option<usize> {
        // SAFETY: the index is one of the table's, and names are terminated strings.
        unsafe {
            let symbol = (self.symbols as *const Symbol).add(index);
            let spelled = CStr::from_ptr((self.strings + (*symbol).name as usize) as *const c_char);
            let is_default = self.versions == 0
                || *(self.versions as *const u16).add(index) & VERSION_HIDDEN == 0;
            let is_function = (*symbol).section != 0 && (*symbol).info & 0xf == STT_FUNC;
            (is_function && is_default && spelled.to_bytes() == name.as_bytes())
                .then(|| self.base + (*symbol).value)
        }
    }
}

fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    })
}

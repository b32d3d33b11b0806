//! The one table of sites. Each library has a macro that hands its rows to another macro, because the interposer needs
//! the exported symbols as identifiers:
//!
//! ```
//! macro_rules! count {
//!     ($library:ident; $($name:ident [$($spelling:ident)+] = $row:expr;)+) => {
//!         [$($(stringify!($spelling)),+),+].len()
//!     };
//! }
//! assert!(spillproof_faults::for_each_libc_site!(count) > 50);
//! ```
//!
//! A row reads `word [exported symbols] = what the site is`. The word is what plans say; functions of different signatures
//! are different sites, and where a name alone does not tell them apart, the word carries the version too.

mod cuda;
mod cufile;
mod libc;
mod row;

use crate::site::{Site, SiteId, Spelling};

const LIBC: &[Site] = libc::SITES;
const CUDA: &[Site] = cuda::SITES;
const CUFILE: &[Site] = cufile::SITES;

/// Rows of the table.
pub const SITE_COUNT: usize = LIBC.len() + CUDA.len() + CUFILE.len();
/// Exported symbols of all rows.
pub const SPELLING_COUNT: usize = spellings(LIBC) + spellings(CUDA) + spellings(CUFILE);

/// Every site. libc's come first, then CUDA's, then cuFile's.
pub static SITES: [Site; SITE_COUNT] = {
    let mut all = [LIBC[0]; SITE_COUNT];
    let parts = [LIBC, CUDA, CUFILE];
    let (mut part, mut next) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[next] = parts[part][index];
            next += 1;
            index += 1;
        }
        part += 1;
    }
    all
};

/// Every exported symbol, in the order of the sites.
pub static SPELLINGS: [Spelling; SPELLING_COUNT] = {
    let none = Spelling {
        name: "",
        site: SiteId(0),
        nth: 0,
        is_last: false,
    };
    let mut all = [none; SPELLING_COUNT];
    let (mut site, mut next) = (0, 0);
    while site < SITE_COUNT {
        let names = SITES[site].spellings;
        let mut index = 0;
        while index < names.len() {
            all[next] = Spelling {
                name: names[index],
                site: SiteId(site as u16),
                nth: index as u8,
                is_last: index + 1 == names.len(),
            };
            next += 1;
            index += 1;
        }
        site += 1;
    }
    all
};

/// Exported symbols of the site that has most.
pub(crate) const MAX_SPELLINGS: usize = {
    let (mut most, mut site) = (0, 0);
    while site < SITE_COUNT {
        let count = SITES[site].spellings.len();
        if count > most {
            most = count;
        }
        site += 1;
    }
    most
};

const fn spellings(sites: &[Site]) -> usize {
    let (mut count, mut index) = (0, 0);
    while index < sites.len() {
        count += sites[index].spellings.len();
        index += 1;
    }
    count
}

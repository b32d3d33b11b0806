//! Fault sites, fault plans, and the memory that the harness shares with the interposer inside each subject.

mod error;
mod nearest;
mod site;
mod table;

pub use error::{Domain, ERRORS, FaultError, names};
pub use site::{
    After, Effect, Failure, Key, Kind, Library, MAX_ARITY, Short, Site, SiteId, Size, Spelling,
    SpellingId, Target,
};
pub use table::{SITE_COUNT, SITES, SPELLING_COUNT, SPELLINGS};

//! The directory and its files against real filesystems.

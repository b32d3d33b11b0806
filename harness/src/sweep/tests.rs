//! Which runs a sweep makes, where it ends, and what it tells.

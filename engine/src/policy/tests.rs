//! Boundaries, one table each; the properties follow in `properties`.

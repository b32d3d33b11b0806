//! The catalogue of cases.

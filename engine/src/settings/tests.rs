//! What each variable takes and refuses, and that errors name variable, value and remedy.

//! How the library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Addresses that this library takes of its own wrappers must be its own, whatever else defines the name.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
    // Wrappers may run until the very end of the process.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

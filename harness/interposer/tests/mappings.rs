//! Where something is mapped: the module by itself, because the library joins a harness when it is loaded.

#[path = "../src/maps.rs"]
mod maps;
#[path = "../src/raw.rs"]
mod raw;

#[test]
fn the_program_is_found_at_an_address_of_its_own() {
    let own = std::env::current_exe().unwrap();
    let address = the_program_is_found_at_an_address_of_its_own as *const () as usize;
    let path = maps::find(address, |_, path| path.to_vec()).unwrap();
    assert_eq!(path, own.as_os_str().as_encoded_bytes());
}

use libtest_mimic::Trial;
pub(crate) fn tests() -> Vec<Trial> {
    vec![]
}
pub(crate) fn play(_: &str) {}

//! How a test hands a figure to `tests/evidence.sh`, and how often it is asked to repeat itself.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "who includes this uses its part of it, and is a library or a test"
)]

/// How many times to do something: in a plain test run, in a quick evidence run, in a full one.
pub fn count(plain: u64, quick: u64, full: u64) -> u64 {
    match std::env::var("STRONGROOM_EVIDENCE").as_deref() {
        Ok("full") => full,
        Ok("quick") => quick,
        _ => plain,
    }
}

/// Prints one figure. Which relation to the goal makes it good is judged by the table, not here.
pub fn report(
    id: &str,
    what: &str,
    figure: impl std::fmt::Display,
    relation: &str,
    goal: impl std::fmt::Display,
) {
    println!("evidence {id} | {what} | {figure} | {relation} | {goal}");
}

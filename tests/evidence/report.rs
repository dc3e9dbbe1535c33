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

/// Prints one figure that a clock made, and its goal.
///
/// A quick run is built without optimisation across crates, on a machine that it may share: four processes for each core
/// have been seen to take 40 % off a ratio of medians. So its goals are easier, and find what became slow at
/// once; what grows slowly is found by counting instructions, which no neighbour disturbs (goal I1).
pub fn timed(id: &str, what: &str, figure: f64, relation: &str, goal: f64) {
    let quick = std::env::var("STRONGROOM_EVIDENCE").as_deref() == Ok("quick");
    let goal = match (quick, relation) {
        (true, ">=") => goal / lenience(id),
        (true, _) => goal * lenience(id),
        (false, _) => goal,
    };
    let three_digits = |number: f64| (number * 1000.0).round() / 1000.0;
    report(id, what, three_digits(figure), relation, three_digits(goal));
}

/// How many times easier a goal is in a quick run. What a second thread adds is taken from rounds that nobody
/// disturbed, and a lock that all threads share halves it: three times easier would not find that.
fn lenience(id: &str) -> f64 {
    if id == "P5" { 1.3 } else { 3.0 }
}

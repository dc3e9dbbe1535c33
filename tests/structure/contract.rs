//! The tables of docs/DESIGN.md that lead from a requirement, or from somebody's mistake, to the tests that show it.

use std::collections::BTreeSet;

use crate::{lexer, read};

const DESIGN: &str = include_str!("../../docs/DESIGN.md");
const MISTAKES: &str = "## 15. ";
const CONTRACT: &str = "## 18. ";

/// First letter, and the numbers from which to which.
const REQUIRED: &[(char, u8, u8)] = &[
    ('A', 1, 8),
    ('B', 1, 6),
    ('B', 8, 12),
    ('C', 1, 9),
    ('D', 1, 12),
    ('E', 1, 10),
    ('F', 1, 6),
    ('G', 1, 2),
    ('G', 4, 4),
    ('G', 7, 7),
    ('H', 1, 1),
    ('H', 5, 5),
];

/// The cells of every table row in the section that begins with `heading`, without the tables' heads.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    text.lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.len() == 3 && cells[2].contains('`'))
        .collect()
}

fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every function under a `#[test]`, and every one that `with_a_token!` makes a test of.
fn tests_that_exist() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["src", "tests"].into_iter().flat_map(read) {
        let tokens = lexer::tokens(&file.text);
        for (at, window) in tokens.windows(4).enumerate() {
            let [hash, open, test, close] = window else { continue };
            // `fn name(hsm`: what that macro takes is a test over a token.
            if hash.is_word("fn")
                && test.is_punct('(')
                && close.is_word("hsm")
                && file.text.contains("with_a_token! {")
            {
                found.extend(open.word().map(str::to_owned));
            }
            let opens = hash.is_punct('#') && open.is_punct('[');
            let plain = test.is_word("test") && close.is_punct(']');
            let asynchronous = test.is_word("tokio") && close.kind == lexer::Kind::PathSeparator;
            if opens && (plain || asynchronous) {
                let name = tokens[at..].windows(2).find(|pair| pair[0].is_word("fn"));
                found.extend(name.and_then(|pair| pair[1].word()).map(str::to_owned));
            }
        }
    }
    found
}

fn unknown_tests(text: &str, heading: &str, exist: &BTreeSet<String>) -> Vec<String> {
    let rows = rows(text, heading);
    let named = rows.iter().flat_map(|cells| names(cells[2]).map(|name| (cells[0], name)));
    named
        .filter(|(_, name)| !exist.contains(*name))
        .map(|(line, name)| format!("{line}: no test is called {name}"))
        .collect()
}

fn lines_without_a_test(text: &str) -> Vec<String> {
    let rows = rows(text, CONTRACT);
    let required =
        REQUIRED.iter().flat_map(|(part, from, to)| (*from..=*to).map(move |n| format!("{part}{n}")));
    required
        .filter(|id| !rows.iter().any(|cells| cells[0] == id && names(cells[2]).next().is_some()))
        .map(|id| format!("{id} names no test"))
        .collect()
}

#[test]
fn every_contract_line_names_a_test_that_exists() {
    let exist = tests_that_exist();
    assert!(exist.len() > 200 && exist.contains("every_contract_line_names_a_test_that_exists"));
    crate::none(&lines_without_a_test(DESIGN));
    crate::none(&unknown_tests(DESIGN, CONTRACT, &exist));
    crate::none(&unknown_tests(DESIGN, MISTAKES, &exist));
    assert!(rows(DESIGN, MISTAKES).len() >= 10, "the table of mistakes was found");
}

#[test]
fn a_missing_line_and_a_test_that_does_not_exist_are_found() {
    let exist = BTreeSet::from(["there".to_owned()]);
    let table = "## 18. T\n\n| line | what | tests |\n|---|---|---|\n| A1 | x | `there`, `gone` |\n| A2 | x | |\n## Next\n| A3 | x | `there` |\n";
    assert_eq!(unknown_tests(table, CONTRACT, &exist), ["A1: no test is called gone"]);
    let missing = lines_without_a_test(table);
    assert!(!missing.contains(&"A1 names no test".to_owned()));
    for id in ["A2", "A3", "F5"] {
        assert!(missing.contains(&format!("{id} names no test")), "{id}");
    }
}

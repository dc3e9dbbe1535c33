//! Which modules of the crate a file names: `use crate::..`, `use super::..` and paths in its code.

use crate::Source;
use crate::lexer::{self, Kind, Token, Without};

/// One path into this crate, from its root, and the line where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

/// Every path that `file` names outside tests and outside the feature `testing`.
pub(crate) fn named(file: &Source) -> Vec<Named> {
    let tokens = file.production(Without::TestsAndTesting);
    let children = children(&tokens);
    let mut out = Vec::new();
    for at in 0..tokens.len() {
        let continues = at > 0 && tokens[at - 1].kind == Kind::PathSeparator;
        let leads = tokens.get(at + 1).is_some_and(|next| next.kind == Kind::PathSeparator);
        let Some(word) = tokens[at].word() else { continue };
        let child = children.contains(&word) && !re_exports(&tokens, at);
        if continues || !leads || !(child || ROOTS.contains(&word)) {
            continue;
        }
        let mut paths = Vec::new();
        tree(&tokens, at, &[], &mut paths);
        let depth = inline_depth(&tokens, at);
        for path in paths {
            if let Some(path) = from_root(&file.module(), depth, &path) {
                out.push(Named { line: tokens[at].line, path });
            }
        }
    }
    out
}

/// The modules that the file declares as files of their own: their names begin paths too.
fn children(tokens: &[Token]) -> Vec<&str> {
    let declares = |window: &&[Token]| window[0].is_word("mod") && window[2].is_punct(';');
    tokens.windows(3).filter(declares).filter_map(|window| window[1].word()).collect()
}

/// Whether the path at `at` is that of a `pub use` or `pub(..) use`: a folder's face shows what its files hold.
fn re_exports(tokens: &[Token], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|at| &tokens[at]);
    before(1).is_some_and(|token| token.is_word("use"))
        && before(2).is_some_and(|token| token.is_word("pub") || token.is_punct(')'))
}

/// Reads one path or a `use` tree, and gives back where it ends.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at).map(|token| &token.kind) {
            Some(Kind::Word(word)) => {
                path.push(word.clone());
                at += 1;
            }
            Some(Kind::Punct('{')) => {
                let end = lexer::matching(tokens, at);
                at += 1;
                while at + 1 < end {
                    let next = tree(tokens, at, &path, out);
                    // Past `as name`, `*` and the comma.
                    at = next.max(at + 1);
                    while at + 1 < end && !tokens[at - 1].is_punct(',') {
                        at += 1;
                    }
                }
                return end;
            }
            _ => break,
        }
        if tokens.get(at).is_some_and(|token| token.kind == Kind::PathSeparator) {
            at += 1;
        } else {
            break;
        }
    }
    out.push(path);
    at
}

/// How many `mod x { .. }` of the file itself stand around the token at `at`.
fn inline_depth(tokens: &[Token], at: usize) -> usize {
    let opens = tokens.windows(3).enumerate().filter(|(_, window)| {
        window[0].is_word("mod") && window[1].word().is_some() && window[2].is_punct('{')
    });
    opens.filter(|(begin, _)| *begin < at && at < lexer::matching(tokens, begin + 2)).count()
}

/// The path from the crate's root, or nothing where it stays inside the file.
fn from_root(module: &[&str], inline: usize, path: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
    base.extend((0..inline).map(|depth| format!("<inline {depth}>")));
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        _ => {}
    }
    while rest.first().is_some_and(|word| word == "super") {
        base.pop();
        rest = &rest[1..];
    }
    if base.iter().any(|name| name.starts_with('<')) {
        return None;
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

const ROOTS: [&str; 3] = ["crate", "super", "self"];

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        named(&Source::new(path, text)).into_iter().map(|named| named.path.join("/")).collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        let at = "provider/local.rs";
        assert_eq!(
            paths(at, "use crate::{id::{A, B as C}, error::*, random};"),
            ["id/A", "id/B", "error", "random"]
        );
        assert_eq!(paths(at, "pub(crate) use super::preflight::check;"), ["provider/preflight/check"]);
        assert_eq!(
            paths(at, "use super::super::block; use self::file::F;"),
            ["block", "provider/local/file/F"]
        );
        assert_eq!(
            paths(at, "fn f() -> crate::id::A { $crate::block::seal::<u8>() }"),
            ["id/A", "block/seal"]
        );
        assert_eq!(
            paths(at, "mod m { use super::x; use crate::id::A; } use super::y;"),
            ["provider/local/x", "id/A", "provider/y"]
        );
        assert_eq!(paths(at, "// use crate::block;\n#[cfg(test)] mod t { use crate::block; }").len(), 0);
        assert_eq!(paths("lib.rs", "mod id; fn f() { id::g() }"), ["id/g"]);
        assert_eq!(paths("a/mod.rs", "mod b; pub use b::B; pub(crate) use b::c; use b::D;"), ["a/b/D"]);
    }
}

//! As much of Rust's grammar as the rules need: words, punctuation and strings, without comments,
//! and without what is compiled for tests only.

/// One token and the line it begins on, counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number.
    Word(String),
    /// One character of punctuation; `::` is one token of its own.
    Punct(char),
    PathSeparator,
    /// What stands between the quotes, escapes left as they are.
    Text(String),
}

impl Token {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(found) if found == word)
    }

    pub(crate) fn is_punct(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Which `cfg` takes an item out of what a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// `#[cfg(test)]` and `#[cfg(fuzzing)]` only.
    Tests,
    /// `#[cfg(test)]` and everything that needs the feature `testing`.
    TestsAndTesting,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, out: Vec::new() };
    lexer.run();
    lexer.out
}

/// The tokens outside items that a `cfg` reserves for tests.
pub(crate) fn production(all: &[Token], without: Without) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < all.len() {
        match attribute_end(all, at) {
            Some((_, true, args)) if reserved(args, without) => return out,
            Some((end, false, args)) if reserved(args, without) => at = item_end(all, end),
            _ => {
                out.push(all[at].clone());
                at += 1;
            }
        }
    }
    out
}

/// The names in `#[cfg(test)] mod NAME;`, or in the same for the feature `testing`: files that are not always compiled.
pub(crate) fn reserved_modules(all: &[Token], without: Without) -> Vec<String> {
    let mut out = Vec::new();
    for at in 0..all.len() {
        let Some((end, false, args)) = attribute_end(all, at) else { continue };
        if !reserved(args, without) {
            continue;
        }
        if let [keyword, name, semicolon, ..] = &all[past_visibility(all, end)..]
            && keyword.is_word("mod")
            && semicolon.is_punct(';')
        {
            out.extend(name.word().map(str::to_owned));
        }
    }
    out
}

/// For an attribute at `at`: where it ends, whether it is an inner one (`#![..]`), and what is inside.
fn attribute_end(all: &[Token], at: usize) -> Option<(usize, bool, &[Token])> {
    if !all.get(at)?.is_punct('#') {
        return None;
    }
    let inner = all.get(at + 1)?.is_punct('!');
    let open = at + 1 + usize::from(inner);
    if !all.get(open)?.is_punct('[') {
        return None;
    }
    let end = matching(all, open);
    Some((end, inner, &all[open + 1..end - 1]))
}

fn reserved(attribute: &[Token], without: Without) -> bool {
    let [cfg, open, args @ .., _] = attribute else { return false };
    if !(cfg.is_word("cfg") && open.is_punct('(')) {
        return false;
    }
    // What only the fuzzer compiles is a test.
    let tests = args.len() == 1 && (args[0].is_word("test") || args[0].is_word("fuzzing"));
    let testing = args.iter().any(|token| token.text() == Some("testing"))
        && !args.iter().any(|token| token.is_word("not"));
    match without {
        Without::Tests => tests,
        Without::TestsAndTesting => tests || testing,
    }
}

/// Just past the item, statement, field or match arm that begins at `at`.
fn item_end(all: &[Token], mut at: usize) -> usize {
    while let Some((end, false, _)) = attribute_end(all, at) {
        at = end;
    }
    let first = all.get(at).and_then(Token::word).unwrap_or_default();
    let is_item = ITEM_WORDS.contains(&first);
    // A brace ends a function or a type, not a `use` group and not a constant's value.
    let ends_at_brace = !["use", "const", "static", "let", "type"].contains(&item_word(all, at));
    while at < all.len() {
        match &all[at].kind {
            Kind::Punct('(' | '[' | '{') => {
                let brace = all[at].is_punct('{');
                at = matching(all, at);
                if brace && ends_at_brace {
                    return at + usize::from(all.get(at).is_some_and(|token| token.is_punct(',')));
                }
            }
            Kind::Punct(';') => return at + 1,
            Kind::Punct(',') if !is_item => return at + 1,
            Kind::Punct(')' | ']' | '}') => return at,
            _ => at += 1,
        }
    }
    at
}

/// The word that says what an item is, past `pub`, `pub(crate)` and `unsafe`.
fn item_word(all: &[Token], at: usize) -> &str {
    let at = past_visibility(all, at);
    // A `const fn` ends like a function.
    if all.get(at).is_some_and(|token| token.is_word("const"))
        && all.get(at + 1).is_some_and(|token| token.is_word("fn"))
    {
        return "fn";
    }
    all.get(at).and_then(Token::word).unwrap_or_default()
}

fn past_visibility(all: &[Token], at: usize) -> usize {
    let is = |at: usize, test: fn(&Token) -> bool| all.get(at).is_some_and(test);
    match at {
        at if !is(at, |token| token.is_word("pub")) => at,
        at if is(at + 1, |token| token.is_punct('(')) => matching(all, at + 1),
        at => at + 1,
    }
}

/// Just past the bracket that closes the one at `open`.
pub(crate) fn matching(all: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in all.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    all.len()
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    out: Vec<Token>,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.skip_while(|c| c != '\n'),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if self.raw_string(1) => {}
                ('b' | 'c', Some('r')) if self.raw_string(2) => {}
                ('b' | 'c', Some('"')) => {
                    self.bump();
                    self.string();
                }
                ('b', Some('\'')) => {
                    self.bump();
                    self.quote();
                }
                ('\'', _) => self.quote(),
                (':', Some(':')) => {
                    self.push(Kind::PathSeparator);
                    self.bump();
                    self.bump();
                }
                _ if c.is_alphanumeric() || c == '_' => self.word(),
                _ if c.is_whitespace() => {
                    self.bump();
                }
                _ => {
                    self.push(Kind::Punct(c));
                    self.bump();
                }
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn push(&mut self, kind: Kind) {
        self.out.push(Token { line: self.line, kind });
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&keep) {
            self.bump();
        }
    }

    fn word(&mut self) {
        let (begin, line) = (self.at, self.line);
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
        let word = self.chars[begin..self.at].iter().collect();
        self.out.push(Token { line, kind: Kind::Word(word) });
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.bump() {
            match (c, self.peek(0)) {
                ('/', Some('*')) => {
                    self.bump();
                    depth += 1;
                }
                ('*', Some('/')) => {
                    self.bump();
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        self.bump();
        let begin = self.at;
        while let Some(c) = self.peek(0) {
            if c == '"' {
                break;
            }
            self.bump();
            if c == '\\' {
                self.bump();
            }
        }
        let text = self.chars[begin..self.at].iter().collect();
        self.bump();
        self.out.push(Token { line, kind: Kind::Text(text) });
    }

    /// `r"..."`, `r#"..."#`; false, and nothing consumed, where it is a word after all (`r#type`).
    fn raw_string(&mut self, prefix: usize) -> bool {
        let mut hashes = 0;
        while self.peek(prefix + hashes) == Some('#') {
            hashes += 1;
        }
        if self.peek(prefix + hashes) != Some('"') {
            return false;
        }
        let line = self.line;
        for _ in 0..=prefix + hashes {
            self.bump();
        }
        let begin = self.at;
        let mut end = begin;
        while let Some(c) = self.bump() {
            if c == '"' && (0..hashes).all(|i| self.peek(i) == Some('#')) {
                break;
            }
            end = self.at;
        }
        for _ in 0..hashes {
            self.bump();
        }
        let text = self.chars[begin..end].iter().collect();
        self.out.push(Token { line, kind: Kind::Text(text) });
        true
    }

    /// A character (dropped: no rule looks at one) or a lifetime.
    fn quote(&mut self) {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.bump();
            self.bump();
            self.skip_while(|c| c != '\'');
            self.bump();
        } else if self.peek(1) == Some('\'') {
            self.bump();
            self.bump();
        } else {
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
        }
    }
}

const ITEM_WORDS: [&str; 15] = [
    "pub", "fn", "impl", "struct", "enum", "trait", "mod", "use", "const", "static", "type", "let", "unsafe",
    "async", "extern",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str, without: Without) -> Vec<String> {
        production(&tokens(source), without).iter().filter_map(|t| t.word().map(str::to_owned)).collect()
    }

    #[test]
    fn comments_strings_and_lifetimes_are_not_words() {
        let source = "a /* b /* c */ d */ // e\n\"f \\\" g\" 'h' '\\'' 'i r#\"j\"k\"# b\"l\" m";
        assert_eq!(words(source, Without::Tests), ["a", "m"]);
        let texts: Vec<_> = tokens(source).iter().filter_map(|t| t.text().map(str::to_owned)).collect();
        assert_eq!(texts, ["f \\\" g", "j\"k", "l"]);
        assert_eq!(tokens("a\n\"x\ny\"\nb").last().map(|t| t.line), Some(4));
    }

    #[test]
    fn what_is_for_tests_only_is_left_out() {
        for (source, left) in [
            ("a; #[cfg(test)] mod t { b } c", vec!["a", "c"]),
            ("#[cfg(test)] use x::{y, z}; c", vec!["c"]),
            ("#[cfg(test)] #[derive(D)] struct S<A, B>(A, B); c", vec!["c"]),
            ("#[cfg(test)] pub(crate) const fn f<A, B>() -> [u8; 2] { x } c", vec!["c"]),
            ("#[cfg(test)] pub(crate) const F: u8 = { x }; c", vec!["c"]),
            ("match m { #[cfg(test)] A(x) => y, B => c }", vec!["match", "m", "B", "c"]),
            ("f { #[cfg(test)] x: y }  c", vec!["f", "c"]),
            ("#![cfg(test)] a", vec![]),
            ("#[cfg(fuzzing)] mod f; c", vec!["c"]),
            ("#[cfg(not(test))] a", vec!["cfg", "not", "test", "a"]),
        ] {
            assert_eq!(words(source, Without::Tests), left, "{source}");
        }
        let source = "#[cfg(any(test, feature = \"testing\"))] fn f() {} c";
        assert_eq!(words(source, Without::TestsAndTesting), ["c"]);
        assert!(words(source, Without::Tests).contains(&"f".to_owned()));
        let modules = tokens(
            "#[cfg(test)] mod t; #[cfg(test)] mod u {} mod v; #[cfg(test)] pub(crate) mod w;
             #[cfg(any(test, feature = \"testing\"))] mod x;",
        );
        assert_eq!(reserved_modules(&modules, Without::Tests), ["t", "w"]);
        assert_eq!(reserved_modules(&modules, Without::TestsAndTesting), ["t", "w", "x"]);
    }
}

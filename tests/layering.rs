//! The rules of the source tree that no compiler and no linter checks.
//!
//! A module imports only modules of lower layers (the table in `src/lib.rs` says which is which),
//! only layer 5 knows Python, `unsafe` stays in its one file, each file says what it is in its
//! first line, and none grows too long to be read in one sitting.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that may contain `unsafe`.
const UNSAFE: [&str; 4] = [
    "src/py/fast_await.rs",
    "src/py/fast_call.rs",
    "src/py/halt.rs",
    "src/store/sqlite/wal_index.rs",
];

/// Imports within one layer, who and whom: a bad time to live is an error.
const SIDEWAYS: [(&str, &str); 1] = [("time", "error")];

/// Lines of one file, its tests aside.
const MAX_LINES: usize = 400;

/// A module's layer, by the module's name.
type Layers = BTreeMap<String, u8>;

#[test]
fn every_file_keeps_the_rules() {
    let files = read_sources().unwrap();
    let layers = read_layers(&files["src/lib.rs"]);
    let tests: Vec<String> = files
        .iter()
        .flat_map(|(path, it)| test_files(path, it))
        .collect();

    let mut found = Vec::new();
    for (path, source) in &files {
        found.extend(broken_rules(path, source, &layers));
        if !tests.contains(path) {
            found.extend(too_long(path, source));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_table_names_every_module_once() {
    let files = read_sources().unwrap();
    let layers = read_layers(&files["src/lib.rs"]);
    let mut modules: Vec<&str> = files.keys().filter_map(|path| top_module(path)).collect();
    modules.dedup();
    assert_eq!(
        modules,
        layers.keys().collect::<Vec<_>>(),
        "src/ and the table in src/lib.rs"
    );
}

#[test]
fn the_page_for_contributors_has_the_same_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONTRIBUTING.md");
    let files = read_sources().unwrap();
    assert_eq!(
        read_layers(&fs::read_to_string(page).unwrap()),
        read_layers(&files["src/lib.rs"])
    );
}

/// Every source file, by its path from the root of the repository.
fn read_sources() -> io::Result<BTreeMap<String, String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(relative(root, &path), fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}

/// The path of a file below `root`, with `/` on every platform.
fn relative(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).unwrap_or(path).components();
    parts
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// Reads the rows `| layer | modules | what |` of a table, in the crate's documentation or a page.
fn read_layers(text: &str) -> Layers {
    let mut layers = Layers::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!" | "", layer, modules, ..] = cells[..] else {
            continue;
        };
        let Ok(layer) = layer.parse() else { continue };
        // Between backquotes, that is at each odd place.
        let names = modules.split('`').skip(1).step_by(2);
        layers.extend(names.map(|name| (name.to_owned(), layer)));
    }
    layers
}

/// The module directly below the crate's root that a file belongs to; `None` for `lib.rs`.
fn top_module(path: &str) -> Option<&str> {
    module_path(path).first().copied()
}

/// `["store", "sqlite", "schema"]` for `src/store/sqlite/schema.rs`.
fn module_path(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/')
        .filter(|part| !["lib", "mod"].contains(part))
        .collect()
}

/// Everything but the length.
fn broken_rules(path: &str, source: &str, layers: &Layers) -> Vec<String> {
    let mut found = Vec::new();
    if !source.starts_with("//! ") {
        found.push(format!(
            "{path}:1: does not begin with a line `//! ` that says what it is"
        ));
    }
    let tokens = tokenize(source);
    for token in &tokens {
        let line = token.line;
        if token.text == "pyo3" && !path.starts_with("src/py/") {
            found.push(format!("{path}:{line}: names pyo3 outside of src/py/"));
        }
        if token.text == "unsafe" && !UNSAFE.contains(&path) {
            found.push(format!(
                "{path}:{line}: is unsafe outside of {}",
                UNSAFE.join(", ")
            ));
        }
    }
    let Some(own) = top_module(path) else {
        return found;
    };
    for Token { text: target, line } in imported_modules(&tokens, module_path(path).len()) {
        let allowed = match (layers.get(own), layers.get(target)) {
            _ if own == target || SIDEWAYS.contains(&(own, target)) => true,
            (Some(own), Some(target)) => target < own,
            _ => false,
        };
        if !allowed {
            found.push(format!(
                "{path}:{line}: {own} may not use {target}: not a lower layer"
            ));
        }
    }
    found
}

/// Complains about a file that is too long, without the tests at its end.
fn too_long(path: &str, source: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let length = tests.unwrap_or(lines.len());
    (length > MAX_LINES).then(|| format!("{path}: {length} lines, more than {MAX_LINES}"))
}

/// The files that `path` declares with `#[cfg(test)] mod name;`: all of it is tests.
fn test_files(path: &str, source: &str) -> Vec<String> {
    let modules: PathBuf = ["src"].into_iter().chain(module_path(path)).collect();
    let lines: Vec<&str> = source.lines().collect();
    let names = lines.windows(2).filter_map(|pair| match pair {
        ["#[cfg(test)]", next] => next.strip_prefix("mod ")?.strip_suffix(';'),
        _ => None,
    });
    names
        .map(|name| relative(Path::new(""), &modules.join(name).with_extension("rs")))
        .collect()
}

/// A word, a `::`, or one other character of the code.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// The modules below the crate's root that are named by a path from there: `crate::error`,
/// `crate::{error, time::Ttl}`, or `super::error` where `super` is the root.
fn imported_modules<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<Token<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut braces = Vec::new(); // of each open one: does it begin a module?
    for at in 0..tokens.len() {
        match text(at) {
            "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if text(at + 1) == "::" => found.extend(heads(&tokens[at + 2..])),
            "super" if at == 0 || text(at - 1) != "::" => {
                let mut end = at;
                let mut levels = 0;
                while text(end) == "super" && text(end + 1) == "::" {
                    levels += 1;
                    end += 2;
                }
                let inline = braces.iter().filter(|is_module| **is_module).count();
                if levels > 0 && levels == depth + inline {
                    found.extend(heads(&tokens[end..]));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first words of a path, or of each path in a group `{a::b, c}`.
fn heads<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    if tokens.first().is_none_or(|first| first.text != "{") {
        return tokens.iter().take(1).copied().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0;
    for pair in tokens.windows(2) {
        match pair[0].text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && ["{", ","].contains(&pair[0].text) && pair[1].text != "}" {
            found.push(pair[1]);
        }
    }
    found
}

/// Splits source into tokens, without comments and literals.
fn tokenize(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (length, is_token) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (comment_length(rest), false)
        } else if let Some(length) = raw_text_length(rest) {
            (length, false)
        } else if first == '"' {
            (quoted_length(rest, '"'), false)
        } else if first == '\'' {
            (character_length(rest), false)
        } else if is_word(first) {
            (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, after) = rest.split_at(length);
        if is_token {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of a `/* comment */`, in which others may be nested.
fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a literal like `r#"text"#`, if it is one.
fn raw_text_length(text: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        let after = text
            .strip_prefix(prefix)
            .unwrap_or("")
            .trim_start_matches('#');
        after.starts_with('"')
    })?;
    let hashes = text[prefix.len()..].find('"')?;
    let start = prefix.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// The length of a literal in quotes with `\` escapes.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return at + 1;
        }
        if character == '\\' {
            characters.next();
        }
    }
    text.len()
}

/// The length of a literal like `'a'`, or of the `'` before a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted_length(text, '\''),
        _ => 1,
    }
}

// What follows shows that the checks above can fail.

fn layers() -> Layers {
    read_layers(
        "//! | layer | modules | what |\n//! |---|---|---|\n\
         //! | 0 | [`error`], [`time`] | `this` is text |\n//! | 1 | [`entry`] | |\n\
         //! | 2 | [`memory`], [`store`] | |\n//! | 5 | `py` | |\n",
    )
}

fn complaints(path: &str, code: &str) -> Vec<String> {
    broken_rules(path, &format!("//! A module.\n{code}"), &layers())
}

#[test]
fn the_table_is_read() {
    let expected = [
        ("entry", 1),
        ("error", 0),
        ("memory", 2),
        ("py", 5),
        ("store", 2),
        ("time", 0),
    ];
    assert_eq!(
        layers(),
        expected
            .map(|(name, layer)| (name.to_owned(), layer))
            .into()
    );
}

#[test]
fn an_import_that_does_not_go_down_is_found() {
    for code in [
        "use crate::memory::MemoryTier;",
        "pub(crate) use crate::memory as tier;",
        "use crate::{error::Error, memory};",
        "use crate::{time::{Clock, Ttl}, memory::{self, Tier}};",
        "fn f() -> crate::memory::Removed { todo!() }",
        "macro_rules! m { () => { $crate::memory::Tier } }",
        "mod tests { use super::super::memory; }",
        "use super::memory::Tier;",
        "/* a */ use crate /* b */ :: /* c */ memory;",
        "use crate::entry::Entry; const C: char = '\"'; use crate::py; // \"",
        "use crate::nowhere;",
        "use crate::*;",
    ] {
        let found = complaints("src/entry.rs", code);
        assert_eq!(found.len(), 1, "{code}: {found:?}");
    }
    assert_eq!(
        complaints("src/time.rs", "use crate::error::Error;").len(),
        0
    );
    assert_eq!(complaints("src/error.rs", "use crate::time::Ttl;").len(), 1);
    // Sideways, and two levels down in a folder.
    assert_eq!(
        complaints("src/store/mod.rs", "use super::memory;").len(),
        1
    );
    assert_eq!(
        complaints(
            "src/store/sqlite/logs.rs",
            "use super::super::super::memory;"
        )
        .len(),
        1
    );
    assert_eq!(
        complaints("src/store/sqlite/logs.rs", "\n\nuse crate::py;"),
        ["src/store/sqlite/logs.rs:4: store may not use py: not a lower layer"]
    );
}

#[test]
fn what_is_allowed_is_not_found() {
    for code in [
        "use crate::error::Error;",
        "use crate::{entry::Entry, time::{Clock, Ttl}};",
        "use crate::store::Store;",
        "use super::memory;",
        "mod tests { use super::super::memory; }",
        "mod tests { fn f() { { use super::super::memory; } } }",
        "pub(super) fn f() {} pub(crate) fn g() {} pub(in crate::store) fn h() {}",
        "// use crate::py; unsafe pyo3",
        "/// See [`crate::py`].\nfn f() {}",
        "/* use crate::py; /* unsafe */ use pyo3; */",
        "const A: &str = \"use crate::py; \\\" unsafe\";",
        "const B: &str = r#\"use crate::py; \" unsafe\"#;",
        "const C: &[u8] = br\"pyo3\\\"; const D: char = '\\''; const E: char = '\"';",
        "fn f<'a>(it: &'a str) -> &'a str { it } // 'unsafe",
        "#![expect(unsafe_code)]",
        "use std::time::Duration;",
    ] {
        let found = complaints("src/store/sqlite/mod.rs", code);
        assert!(found.is_empty(), "{code}: {found:?}");
    }
}

#[test]
fn python_and_unsafe_in_the_wrong_place_are_found() {
    assert_eq!(
        complaints("src/memory/mod.rs", "use pyo3::prelude::*;").len(),
        1
    );
    assert_eq!(
        complaints("src/memory/mod.rs", "fn f(it: &pyo3::PyAny) {}").len(),
        1
    );
    assert_eq!(complaints("src/lib.rs", "extern crate pyo3;").len(), 1);
    assert_eq!(
        complaints("src/py/value/mod.rs", "use pyo3::prelude::*;").len(),
        0
    );
    assert_eq!(
        complaints("src/memory/mod.rs", "fn f() { unsafe { g() } }").len(),
        1
    );
    assert_eq!(
        complaints("src/py/mod.rs", "unsafe impl Send for T {}").len(),
        1
    );
    assert_eq!(complaints(UNSAFE[0], "fn f() { unsafe { g() } }").len(), 0);
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_found() {
    for source in [
        "",
        "use std::fs;\n",
        "\n//! Late.\n",
        "// Not for the documentation.\n",
    ] {
        assert_eq!(
            broken_rules("src/entry.rs", source, &layers()).len(),
            1,
            "{source:?}"
        );
    }
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let long = "fn f() {}\n".repeat(MAX_LINES);
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(too_long("src/entry.rs", &long), None);
    assert_eq!(too_long("src/entry.rs", &format!("{long}{tests}")), None);
    assert!(too_long("src/entry.rs", &format!("{long}fn g() {{}}\n{tests}")).is_some());
    // Only what follows them is tests: not a module that is declared here and lives elsewhere.
    assert!(too_long("src/entry.rs", &format!("#[cfg(test)]\nmod tests;\n{long}")).is_some());
}

#[test]
fn a_file_of_tests_is_known_by_its_declaration() {
    let source = "#[cfg(test)]\nmod tests;\nmod json;\n";
    assert_eq!(
        test_files("src/codec/mod.rs", source),
        ["src/codec/tests.rs"]
    );
    assert_eq!(test_files("src/codec.rs", source), ["src/codec/tests.rs"]);
    assert_eq!(test_files("src/lib.rs", source), ["src/tests.rs"]);
}

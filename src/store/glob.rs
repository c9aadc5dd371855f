//! Patterns of keys, as Python's `fnmatch.fnmatchcase` reads them; the same for every backend.
//!
//! `*` is any run of characters, `?` any one, `[abc]` one of these, `[a-z]` one of a range, `[!abc]`
//! one that is none of these. Everything else is itself; `[*]` is a star. Case counts.

/// What one character has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum One {
    Any,
    This(char),
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl One {
    fn admits(&self, character: char) -> bool {
        match self {
            Self::Any => true,
            Self::This(wanted) => *wanted == character,
            Self::Set { negated, ranges } => {
                let inside = |(first, last): &(char, char)| (*first..=*last).contains(&character);
                ranges.iter().any(inside) != *negated
            }
        }
    }
}

/// A pattern, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// Runs of characters with a star between any two of them: the first begins where the key
    /// does, the last ends where it ends.
    runs: Vec<Vec<One>>,
}

impl Glob {
    /// Reads a pattern. There are no wrong ones: a `[` that nothing closes is itself.
    pub fn parse(pattern: &str) -> Self {
        let characters: Vec<char> = pattern.chars().collect();
        let (mut runs, mut run) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(character) = characters.get(at) {
            at += 1;
            match character {
                '*' => runs.push(std::mem::take(&mut run)),
                '?' => run.push(One::Any),
                '[' => match read_set(&characters[at..]) {
                    Some((set, length)) => {
                        run.push(set);
                        at += length;
                    }
                    None => run.push(One::This('[')),
                },
                character => run.push(One::This(*character)),
            }
        }
        runs.push(run);
        Self { runs }
    }

    /// All keys that begin with a text.
    pub fn prefixed(prefix: &str) -> Self {
        let runs = vec![prefix.chars().map(One::This).collect(), Vec::new()];
        Self { runs }
    }

    /// Whether the pattern is the whole of this key.
    pub fn matches(&self, key: &str) -> bool {
        let key: Vec<char> = key.chars().collect();
        let starts = |run: &[One], at: usize| {
            key.get(at..at + run.len())
                .is_some_and(|part| run.iter().zip(part).all(|(one, c)| one.admits(*c)))
        };
        let [first, middle @ ..] = self.runs.as_slice() else {
            return false;
        };
        let Some((last, middle)) = middle.split_last() else {
            return first.len() == key.len() && starts(first, 0);
        };
        if !starts(first, 0) {
            return false;
        }
        // The leftmost place for each run leaves most room for the next: no way back is needed.
        let mut at = first.len();
        for run in middle {
            let Some(found) = (at..=key.len()).find(|at| starts(run, *at)) else {
                return false;
            };
            at = found + run.len();
        }
        key.len() >= at + last.len() && starts(last, key.len() - last.len())
    }

    /// The text that every key begins with.
    pub fn prefix(&self) -> String {
        let first = self.runs.first().map_or(&[][..], Vec::as_slice);
        let literal = first.iter().map_while(|one| match one {
            One::This(character) => Some(*character),
            _ => None,
        });
        literal.collect()
    }
}

/// Reads what follows a `[`: the set, and how many characters it takes with its `]`.
fn read_set(rest: &[char]) -> Option<(One, usize)> {
    let negated = rest.first() == Some(&'!');
    let start = usize::from(negated);
    // One that comes first is a member.
    let end = (start + 1..rest.len()).find(|at| rest[*at] == ']')?;
    let mut ranges = Vec::new();
    let mut members = &rest[start..end];
    loop {
        members = match members {
            [] => break,
            [first, '-', last, others @ ..] => {
                ranges.push((*first, *last));
                others
            }
            [member, others @ ..] => {
                ranges.push((*member, *member));
                others
            }
        };
    }
    Some((One::Set { negated, ranges }, end + 1))
}

/// The first text, in the order of bytes, that comes after every text with this prefix; `None`
/// where there is no such text.
pub fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // The order of bytes in UTF-8 is that of the characters' numbers.
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_it_says_and_nothing_else() {
        for (pattern, matching, others) in [
            ("", &[""][..], &["a"][..]),
            ("a", &["a"], &["", "b", "aa", "A"]),
            ("*", &["", "a", "a\nb"], &[]),
            ("?", &["a", "\n", "\u{1f980}"], &["", "ab"]),
            ("user:*", &["user:", "user:1"], &["user", "xuser:1"]),
            ("*:1", &[":1", "user:1", "1:1:1"], &["1", "user:12"]),
            ("a*b*c", &["abc", "aXbYbc"], &["ac", "acb", "ab"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*ab*ab*", &["abab", "xabxabx"], &["ab", "aab"]),
            ("**", &["", "a"], &[]),
            ("[abc]", &["a", "c"], &["d", "[abc]", ""]),
            ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
            ("[!a-c]", &["d", "!", "-"], &["a", "b"]),
            ("[^a]", &["^", "a"], &["b"]),
            ("[]]", &["]"], &["[", "[]]"]),
            ("[!]]", &["a", "["], &["]"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[-a]", &["a", "-"], &["b"]),
            ("[c-a]", &[], &["a", "b", "c", "-"]),
            ("[!c-a]", &["a", "-"], &[]),
            ("[*]", &["*"], &["a", ""]),
            ("[", &["["], &["", "a"]),
            ("[a", &["[a"], &["a"]),
            ("[]", &["[]"], &["]"]),
            ("[!", &["[!"], &["!"]),
            ("a\\*", &["a\\", "a\\b"], &["a*"]),
            ("\u{e9}*", &["\u{e9}", "\u{e9}t\u{e9}"], &["e"]),
        ] {
            let glob = Glob::parse(pattern);
            for key in matching {
                assert!(glob.matches(key), "{pattern:?} {key:?}");
            }
            for key in others {
                assert!(!glob.matches(key), "{pattern:?} {key:?}");
            }
        }
    }

    #[test]
    fn many_stars_take_no_more_time_than_few() {
        let glob = Glob::parse(&"a*".repeat(50));
        assert!(!glob.matches(&format!("{}b", "a".repeat(49))));
        assert!(glob.matches(&"a".repeat(5_000)));
    }

    #[test]
    fn the_prefix_ends_where_the_first_choice_begins() {
        for (pattern, prefix) in [
            ("user:*", "user:"),
            ("user:1", "user:1"),
            ("user:?1", "user:"),
            ("us[e]r", "us"),
            ("*a", ""),
            ("", ""),
            ("a[", "a["),
        ] {
            assert_eq!(Glob::parse(pattern).prefix(), prefix, "{pattern:?}");
        }
    }

    #[test]
    fn the_end_of_a_prefix_comes_right_after_all_that_have_it() {
        assert_eq!(after_prefix("a"), Some(String::from("b")));
        assert_eq!(after_prefix("a\u{10ffff}"), Some(String::from("b")));
        assert_eq!(after_prefix("\u{d7ff}"), Some(String::from("\u{e000}")));
        assert_eq!(after_prefix("\u{10ffff}"), None);
        assert_eq!(after_prefix(""), None);
    }
}

//! Event name patterns: LTTng's globs, where `*` stands for any run of characters anywhere in the
//! text and `\` makes the next character a plain one.
//!
//! Matching is linear in time for each star and needs no memory.

use alloc::string::String;
use core::fmt;

/// A glob over event names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern written as `text`.
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern(text.into())
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the pattern can match more than one name.
    pub fn has_star(&self) -> bool {
        let mut bytes = self.0.bytes();
        while let Some(b) = bytes.next() {
            match b {
                b'*' => return true,
                b'\\' => {
                    bytes.next();
                }
                _ => {}
            }
        }
        false
    }

    /// True if the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() || p < pattern.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            let plain = p + usize::from(p + 1 < pattern.len() && pattern[p] == b'\\');
            if n < name.len() && plain < pattern.len() && pattern[plain] == name[n] {
                p = plain + 1;
                n += 1;
                continue;
            }
            // The last star takes one more character of the name.
            match retry {
                Some((after_star, taken)) if taken < name.len() => {
                    p = after_star;
                    n = taken + 1;
                    retry = Some((after_star, taken + 1));
                }
                _ => return false,
            }
        }
        true
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_runs_and_a_backslash_makes_them_plain() {
        let cases = [
            ("*", "", true),
            ("*", "a:b", true),
            ("a:b", "a:b", true),
            ("a:b", "a:bc", false),
            ("a:*", "a:", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("*aab", "aaaab", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "aab", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("", "", true),
            ("", "x", false),
            ("x\\", "x\\", true),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(Pattern::new(pattern).matches(name), want, "{pattern} against {name}");
        }
        assert!(!Pattern::new("a\\*").has_star());
        assert!(Pattern::new("a\\**").has_star());
    }
}

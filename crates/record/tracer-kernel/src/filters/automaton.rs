//! A pattern with stars as a table: by state and byte, the next state.
//!
//! Between two stars the earliest match is taken, which leaves the most for what follows; the last part
//! must end the text, so its automaton goes on behind a match.

/// States that a pattern may need: they are bytes, and one is for texts that cannot match any more.
const STATES_MAX: usize = 255;

/// The table of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Automaton {
    table: Vec<u8>,
    accepting: u8,
}

impl Automaton {
    /// For these parts, with a star between each two; None if they are too long.
    pub(super) fn new(parts: &[&[u8]]) -> Option<Automaton> {
        let (first, rest) = parts.split_first()?;
        // Empty parts between stars say nothing.
        let last = rest.len().saturating_sub(1);
        let rest: Vec<&[u8]> = rest
            .iter()
            .enumerate()
            .filter(|(index, part)| *index == last || !part.is_empty())
            .map(|(_, part)| *part)
            .collect();
        let states = first.len() + rest.iter().map(|part| part.len()).sum::<usize>() + 1;
        if states > STATES_MAX {
            return None;
        }
        let dead = states;
        let rows = (states + 1).next_power_of_two();
        let mut table = vec![dead as u8; rows * 256];
        for (at, byte) in first.iter().enumerate() {
            table[at * 256 + usize::from(*byte)] = at as u8 + 1;
        }
        let mut base = first.len();
        for (index, part) in rest.iter().enumerate() {
            // The last part's match is a state of its own, from which the search goes on.
            let rows = if index + 1 == rest.len() { part.len() + 1 } else { part.len() };
            for matched in 0..rows {
                for byte in 0..=255u8 {
                    table[(base + matched) * 256 + usize::from(byte)] =
                        (base + follow(part, matched, byte)) as u8;
                }
            }
            base += part.len();
        }
        Some(Automaton { table, accepting: base as u8 })
    }

    /// By state and byte.
    pub(super) fn table(&self) -> &[u8] {
        &self.table
    }

    /// The state in which a text that matches ends.
    pub(super) fn accepting(&self) -> i32 {
        self.accepting.into()
    }

    /// What keeps states in the table.
    pub(super) fn state_mask(&self) -> i32 {
        self.table.len() as i32 / 256 - 1
    }

    #[cfg(test)]
    fn matches(&self, text: &[u8]) -> bool {
        let next = |state: u8, byte: &u8| self.table[usize::from(state) * 256 + usize::from(*byte)];
        text.iter().fold(0, next) == self.accepting
    }
}

/// Bytes of `part` that are matched behind one more byte: the longest that ends there.
fn follow(part: &[u8], matched: usize, byte: u8) -> usize {
    let seen: Vec<u8> = part[..matched].iter().copied().chain([byte]).collect();
    (0..=part.len().min(seen.len())).rev().find(|length| seen.ends_with(&part[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matches_what_the_pattern_matches() {
        let check = |pattern: &str, text: &str, want: bool| {
            let parts: Vec<&[u8]> = pattern.split('*').map(str::as_bytes).collect();
            let automaton = Automaton::new(&parts).unwrap();
            assert_eq!(automaton.matches(text.as_bytes()), want, "{pattern} {text}");
        };
        for (pattern, text, want) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*b*c", "axxbxxbc", true),
            ("a*b*c", "acb", false),
            ("*ab", "aab", true),
            ("*ab", "aabx", false),
            ("ab*ba", "aba", false),
            ("**x**", "axb", true),
            ("*aab*aa", "aaabaaa", true),
            ("/*/log*.gz", "/var/log/log.gz.gz", true),
        ] {
            check(pattern, text, want);
        }
    }

    #[test]
    fn too_long_patterns_are_refused() {
        assert_eq!(Automaton::new(&[&[b'a'; 200], &[b'b'; 100]]), None);
    }
}

//! Text with stars.

/// Text in which `*` stands for any text; literal stars are told from them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The literal parts between the stars: n stars make n + 1 parts.
    parts: Vec<Box<[u8]>>,
}

impl Pattern {
    /// A pattern of these literal parts, with a star between each two.
    pub(crate) fn new(parts: Vec<Box<[u8]>>) -> Self {
        Self { parts }
    }

    /// A pattern without stars.
    pub fn literal(text: &[u8]) -> Self {
        Self { parts: vec![text.into()] }
    }

    /// The text, if there is no star.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [text] => Some(text),
            _ => None,
        }
    }

    /// The literal parts between the stars.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &**part)
    }

    /// Whether all of the text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let Some((first, rest)) = self.parts.split_first() else {
            return text.is_empty();
        };
        let Some((last, middle)) = rest.split_last() else {
            return text == &**first;
        };
        let Some(mut left) = text.strip_prefix(&**first) else {
            return false;
        };
        // The earliest place for each part leaves the most for those after it.
        for part in middle {
            match find(left, part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars() {
        let check = |pattern: &str, text: &str, want: bool| {
            let parts = pattern.split('*').map(|part| part.as_bytes().into()).collect();
            assert_eq!(Pattern::new(parts).matches(text.as_bytes()), want, "{pattern} {text}");
        };
        check("abc", "abc", true);
        check("abc", "abcd", false);
        check("*", "", true);
        check("a*", "a", true);
        check("a*b*c", "axxbxxbc", true);
        check("a*b*c", "acb", false);
        check("*ab", "aab", true);
        check("ab*ba", "aba", false);
        check("**x**", "axb", true);
    }
}

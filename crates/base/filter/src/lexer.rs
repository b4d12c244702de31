//! Text to tokens with columns.

use crate::error::FilterError;
use crate::pattern::Pattern;
use crate::tree::Binary;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Integer(i64),
    Real(f64),
    Text(Pattern),
    Name(String),
    /// `$NAME`
    Dollar(String),
    Operator(Binary),
    Minus,
    Plus,
    Not,
    Invert,
    Open,
    Close,
    OpenIndex,
    CloseIndex,
    Dot,
    Colon,
    End,
}

impl Token {
    /// The token in words, for errors.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Integer(value) => format!("`{value}`"),
            Self::Real(value) => format!("`{value}`"),
            Self::Text(_) => "text".into(),
            Self::Name(name) => format!("`{name}`"),
            Self::Dollar(name) => format!("`${name}`"),
            Self::Operator(operator) => format!("`{}`", operator.symbol()),
            Self::Minus => "`-`".into(),
            Self::Plus => "`+`".into(),
            Self::Not => "`!`".into(),
            Self::Invert => "`~`".into(),
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
            Self::OpenIndex => "`[`".into(),
            Self::CloseIndex => "`]`".into(),
            Self::Dot => "`.`".into(),
            Self::Colon => "`:`".into(),
            Self::End => "the end".into(),
        }
    }
}

/// A token and its column, from 1.
pub(crate) type Placed = (Token, usize);

/// All tokens of the text, `End` last.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>, FilterError> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0 };
    let mut out = Vec::new();
    loop {
        let placed = lexer.next()?;
        let end = placed.0 == Token::End;
        out.push(placed);
        if end {
            return Ok(out);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Result<Placed, FilterError> {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let column = self.at + 1;
        let Some(first) = self.peek(0) else {
            return Ok((Token::End, column));
        };
        let token = match first {
            '"' => self.text(column)?,
            '0'..='9' => self.number(column)?,
            '.' if self.peek(1).is_some_and(|c| c.is_ascii_digit()) && !self.follows_name() => {
                self.number(column)?
            }
            'a'..='z' | 'A'..='Z' | '_' => Token::Name(self.word()),
            '$' => {
                self.at += 1;
                Token::Dollar(self.word())
            }
            _ => self.symbol(first, column)?,
        };
        Ok((token, column))
    }

    /// Whether the character before belongs to a reference, so that a point is a member's.
    fn follows_name(&self) -> bool {
        self.at > 0 && matches!(self.chars[self.at - 1], 'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ']')
    }

    fn word(&mut self) -> String {
        let from = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    fn symbol(&mut self, first: char, column: usize) -> Result<Token, FilterError> {
        let (token, length) = match (first, self.peek(1)) {
            ('<', Some('<')) => (Token::Operator(Binary::ShiftLeft), 2),
            ('>', Some('>')) => (Token::Operator(Binary::ShiftRight), 2),
            ('<', Some('=')) => (Token::Operator(Binary::LessOrEqual), 2),
            ('>', Some('=')) => (Token::Operator(Binary::GreaterOrEqual), 2),
            ('=', Some('=')) => (Token::Operator(Binary::Equal), 2),
            ('!', Some('=')) => (Token::Operator(Binary::NotEqual), 2),
            ('&', Some('&')) => (Token::Operator(Binary::And), 2),
            ('|', Some('|')) => (Token::Operator(Binary::Or), 2),
            ('<', _) => (Token::Operator(Binary::Less), 1),
            ('>', _) => (Token::Operator(Binary::Greater), 1),
            ('&', _) => (Token::Operator(Binary::BitAnd), 1),
            ('^', _) => (Token::Operator(Binary::BitXor), 1),
            ('|', _) => (Token::Operator(Binary::BitOr), 1),
            ('-', _) => (Token::Minus, 1),
            ('+', _) => (Token::Plus, 1),
            ('!', _) => (Token::Not, 1),
            ('~', _) => (Token::Invert, 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            ('[', _) => (Token::OpenIndex, 1),
            (']', _) => (Token::CloseIndex, 1),
            ('.', _) => (Token::Dot, 1),
            (':', _) => (Token::Colon, 1),
            (found, _) => return Err(FilterError::Character { column, found }),
        };
        self.at += length;
        Ok(token)
    }

    fn number(&mut self, column: usize) -> Result<Token, FilterError> {
        let from = self.at;
        let hexadecimal = self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X'));
        let mut real = false;
        while let Some(c) = self.peek(0) {
            let sign_of_exponent =
                !hexadecimal && matches!(c, '+' | '-') && matches!(self.chars[self.at - 1], 'e' | 'E');
            if !(c.is_ascii_alphanumeric() || c == '.' || sign_of_exponent) || (c == '.' && hexadecimal) {
                break;
            }
            real |= c == '.' || (!hexadecimal && matches!(c, 'e' | 'E'));
            self.at += 1;
        }
        let word: String = self.chars[from..self.at].iter().collect();
        if real {
            let value = word.parse().ok().filter(|value: &f64| value.is_finite());
            return value.map(Token::Real).ok_or(FilterError::BadNumber { column, text: word });
        }
        // As in C, a number may say that it is long or unsigned.
        let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
        let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
            None => (digits, 10),
        };
        if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
            return Err(FilterError::BadNumber { column, text: word });
        }
        let value = u64::from_str_radix(digits, radix).map_err(|_| FilterError::NumberRange { column })?;
        // 2^63 and above are the negative numbers of the same bits, as fields of 64 bits are.
        Ok(Token::Integer(value.cast_signed()))
    }

    fn text(&mut self, column: usize) -> Result<Token, FilterError> {
        self.at += 1;
        let mut parts = vec![String::new()];
        loop {
            let Some(c) = self.peek(0) else {
                return Err(FilterError::OpenText { column });
            };
            self.at += 1;
            let last = parts.len() - 1;
            match c {
                '"' => break,
                '*' => {
                    // Stars beside one another are one.
                    if !(parts[last].is_empty() && last > 0) {
                        parts.push(String::new());
                    }
                }
                '\\' => {
                    let Some(c) = self.peek(0) else {
                        return Err(FilterError::OpenText { column });
                    };
                    self.at += 1;
                    parts[last].push(match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\x07',
                        'b' => '\x08',
                        'f' => '\x0c',
                        'v' => '\x0b',
                        '0' => '\0',
                        other => other,
                    });
                }
                c => parts[last].push(c),
            }
        }
        Ok(Token::Text(Pattern::new(parts.into_iter().map(|part| part.into_bytes().into()).collect())))
    }
}

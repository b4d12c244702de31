//! Tokens to a tree, by precedence, with the types checked on the way.

use crate::error::FilterError;
use crate::lexer::{Placed, Token, tokens};
use crate::tree::{Binary, Expression, Reference, Root, Step, Unary};

/// Deepest nesting of a tree.
const NESTING_MAX: usize = 64;

/// Reads a filter.
///
/// # Errors
/// The first fault, with its column.
pub fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    if parser.peek() == &Token::End {
        return Err(FilterError::Empty);
    }
    let column = parser.column();
    let expression = parser.expression(1)?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected("an operator"));
    }
    match expression {
        Expression::Text(_) => Err(FilterError::TextResult { column }),
        expression => Ok(expression),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

/// What can be said of a value before there is a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Integer,
    Real,
    Text,
    Pattern,
    /// A reference: only the record knows.
    Any,
}

fn type_of(expression: &Expression) -> Type {
    match expression {
        Expression::Integer(_) => Type::Integer,
        Expression::Real(_) => Type::Real,
        Expression::Text(pattern) if pattern.as_literal().is_some() => Type::Text,
        Expression::Text(_) => Type::Pattern,
        Expression::Reference(_) => Type::Any,
        Expression::Unary(Unary::Not | Unary::Invert, _) => Type::Integer,
        Expression::Unary(Unary::Minus | Unary::Plus, operand) => type_of(operand),
        Expression::Binary(..) => Type::Integer,
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn column(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, column)| *column)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn unexpected(&self, expected: &'static str) -> FilterError {
        FilterError::Unexpected { column: self.column(), expected, found: self.peek().describe() }
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(FilterError::TooDeep { column: self.column(), max: NESTING_MAX });
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Operators that bind at least as tight as `lowest`, from left to right.
    fn expression(&mut self, lowest: u8) -> Result<Expression, FilterError> {
        let mut left_column = self.column();
        let mut left = self.unary()?;
        let mut chain = 0;
        while let Token::Operator(operator) = *self.peek() {
            if operator.precedence() < lowest {
                break;
            }
            chain += 1;
            if chain > NESTING_MAX {
                // A long chain is a deep tree too.
                return Err(FilterError::TooDeep { column: self.column(), max: NESTING_MAX });
            }
            let column = self.column();
            self.at += 1;
            let right_column = self.column();
            let right = self.deeper(|parser| parser.expression(operator.precedence() + 1))?;
            check(operator, (&left, left_column), (&right, right_column), column)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
            left_column = column;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, FilterError> {
        let column = self.column();
        let operator = match self.peek() {
            Token::Minus => Unary::Minus,
            Token::Plus => Unary::Plus,
            Token::Not => Unary::Not,
            Token::Invert => Unary::Invert,
            _ => return self.primary(),
        };
        self.at += 1;
        let operand = self.deeper(Self::unary)?;
        match (operator, type_of(&operand)) {
            (_, Type::Text | Type::Pattern) => {
                Err(FilterError::TextOperand { column, operator: operator.symbol() })
            }
            (Unary::Invert, Type::Real) => Err(FilterError::RealOperand { column, operator: "~" }),
            _ => Ok(match (operator, operand) {
                (Unary::Minus, Expression::Integer(value)) => Expression::Integer(value.wrapping_neg()),
                (Unary::Minus, Expression::Real(value)) => Expression::Real(-value),
                (operator, operand) => Expression::Unary(operator, Box::new(operand)),
            }),
        }
    }

    fn primary(&mut self) -> Result<Expression, FilterError> {
        match self.peek() {
            Token::Integer(_) | Token::Real(_) | Token::Text(_) => Ok(match self.take() {
                Token::Integer(value) => Expression::Integer(value),
                Token::Real(value) => Expression::Real(value),
                Token::Text(pattern) => Expression::Text(pattern),
                _ => Expression::Integer(0),
            }),
            Token::Open => {
                self.at += 1;
                let inner = self.deeper(|parser| parser.expression(1))?;
                if self.peek() != &Token::Close {
                    return Err(self.unexpected("`)`"));
                }
                self.at += 1;
                Ok(inner)
            }
            Token::Name(_) | Token::Dollar(_) => self.reference().map(Expression::Reference),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn name(&mut self) -> Result<Box<str>, FilterError> {
        match self.peek() {
            Token::Name(_) => match self.take() {
                Token::Name(name) => Ok(name.into()),
                _ => Ok("".into()),
            },
            _ => Err(self.unexpected("a name")),
        }
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), FilterError> {
        if self.peek() != token {
            return Err(self.unexpected(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn reference(&mut self) -> Result<Reference, FilterError> {
        let column = self.column();
        let root = match self.take() {
            Token::Dollar(kind) => {
                if !["ctx", "app", "event"].contains(&kind.as_str()) {
                    return Err(FilterError::UnknownRoot { column, name: kind });
                }
                self.expect(&Token::Dot, "`.`")?;
                let name = self.name()?;
                match kind.as_str() {
                    "ctx" => Root::Context(name),
                    "event" => Root::Event(name),
                    _ => {
                        self.expect(&Token::Colon, "`:`")?;
                        Root::Application { provider: name, kind: self.name()? }
                    }
                }
            }
            Token::Name(name) => Root::Field(name.into()),
            _ => return Err(self.unexpected("a name")),
        };
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Token::Dot => {
                    self.at += 1;
                    steps.push(Step::Member(self.name()?));
                }
                Token::OpenIndex => {
                    self.at += 1;
                    let Token::Integer(index) = *self.peek() else {
                        return Err(self.unexpected("an index"));
                    };
                    self.at += 1;
                    steps.push(Step::Index(index.cast_unsigned()));
                    self.expect(&Token::CloseIndex, "`]`")?;
                }
                _ => return Ok(Reference { root, steps }),
            }
        }
    }
}

/// Whether the operator takes operands of these types.
fn check(
    operator: Binary,
    (left, left_column): (&Expression, usize),
    (right, right_column): (&Expression, usize),
    column: usize,
) -> Result<(), FilterError> {
    let symbol = operator.symbol();
    let sides = [(type_of(left), left_column), (type_of(right), right_column)];
    if !operator.is_comparison() {
        for (kind, column) in sides {
            match kind {
                Type::Text | Type::Pattern => {
                    return Err(FilterError::TextOperand { column, operator: symbol });
                }
                Type::Real if operator.is_bitwise() => {
                    return Err(FilterError::RealOperand { column, operator: symbol });
                }
                _ => {}
            }
        }
        return Ok(());
    }
    match (sides[0].0, sides[1].0) {
        (Type::Pattern, Type::Pattern) => Err(FilterError::TwoPatterns { column }),
        (Type::Pattern, _) | (_, Type::Pattern) if !matches!(operator, Binary::Equal | Binary::NotEqual) => {
            Err(FilterError::PatternOrder { column })
        }
        (Type::Text | Type::Pattern, Type::Integer | Type::Real)
        | (Type::Integer | Type::Real, Type::Text | Type::Pattern) => {
            Err(FilterError::TextWithNumber { column })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, want: Expect) {
        match parse(text) {
            Ok(tree) => {
                let shown = tree.to_string();
                assert_eq!(parse(&shown).as_ref(), Ok(&tree), "{shown}");
                want.assert_eq(&shown);
            }
            Err(error) => want.assert_eq(&error.with_source(text)),
        }
    }

    #[test]
    fn precedence() {
        check("a || b && c", expect!["(a || (b && c))"]);
        check("a == 1 && b != 2 || c < 3", expect!["(((a == 1) && (b != 2)) || (c < 3))"]);
        check("a & 1 == 1", expect!["((a & 1) == 1)"]);
        check("a | b ^ c & d << 2", expect!["(a | (b ^ (c & (d << 2))))"]);
        check("a < b == c > d", expect!["((a < b) == (c > d))"]);
        check("!a == ~b", expect!["(!(a) == ~(b))"]);
        check(
            "a - 1",
            expect![[r#"
            column 3: expected an operator, found `-`
              a - 1
                ^"#]],
        );
        check("-(a) >= - 0x10", expect!["(-(a) >= -16)"]);
        check("((a))", expect!["a"]);
        check("a >> 1 << 2", expect!["((a >> 1) << 2)"]);
    }

    #[test]
    fn values() {
        check("a == 017 || a == 0x1fUL || a == 0", expect!["(((a == 15) || (a == 31)) || (a == 0))"]);
        check("a == 18446744073709551615", expect!["(a == -1)"]);
        check("a > 1.5e-3 || a < .5 || a == 2.", expect!["(((a > 0.0015) || (a < 0.5)) || (a == 2.0))"]);
        check(r#"a == "x\"y\\z\*w*" "#, expect![[r#"(a == "x\"y\\z\*w*")"#]]);
        check(r#"a == "**""#, expect![[r#"(a == "*")"#]]);
    }

    #[test]
    fn references() {
        check("a.b[3].c[0] == 1", expect!["(a.b[3].c[0] == 1)"]);
        check(
            "$ctx.vpid == 1 && $app.prov:type.x == 2",
            expect!["(($ctx.vpid == 1) && ($app.prov:type.x == 2))"],
        );
        check(r#"$event.name == "sched_*""#, expect![[r#"($event.name == "sched_*")"#]]);
        check("_a1.e5 == 1", expect!["(_a1.e5 == 1)"]);
    }

    #[test]
    fn faults_have_their_column() {
        check("", expect!["the filter is empty"]);
        check(
            "a = 1",
            expect![[r#"
            column 3: unexpected character `=`
              a = 1
                ^"#]],
        );
        check(
            "a ==",
            expect![[r#"
            column 5: expected a value, found the end
              a ==
                  ^"#]],
        );
        check(
            "(a == 1",
            expect![[r#"
            column 8: expected `)`, found the end
              (a == 1
                     ^"#]],
        );
        check(
            r#"a == "x"#,
            expect![[r#"
            column 6: text without a closing quote
              a == "x
                   ^"#]],
        );
        check(
            r#""abc""#,
            expect![[r#"
            column 1: a filter must be a condition, not text
              "abc"
              ^"#]],
        );
        check(
            r#"a & "x""#,
            expect![[r#"
            column 5: operator `&` does not take text
              a & "x"
                  ^"#]],
        );
        check(
            "a << 1.5",
            expect![[r#"
            column 6: operator `<<` takes integers, not reals
              a << 1.5
                   ^"#]],
        );
        check(
            r#"1 == "x""#,
            expect![[r#"
            column 3: text can not be compared with a number
              1 == "x"
                ^"#]],
        );
        check(
            r#"a < "x*""#,
            expect![[r#"
            column 3: text with `*` can only be compared by `==` and `!=`
              a < "x*"
                ^"#]],
        );
        check(
            r#"!"x""#,
            expect![[r#"
            column 1: operator `!` does not take text
              !"x"
              ^"#]],
        );
        check(
            "$foo.x == 1",
            expect![[r#"
            column 1: unknown kind of reference `$foo`: use `$ctx.NAME`, `$app.PROVIDER:TYPE` or `$event.name`
              $foo.x == 1
              ^"#]],
        );
        check(
            "a == 99999999999999999999",
            expect![[r#"
            column 6: number does not fit 64 bits
              a == 99999999999999999999
                   ^"#]],
        );
        check(
            "a == 09",
            expect![[r#"
            column 6: `09` is no number
              a == 09
                   ^"#]],
        );
        check(
            "a[x] == 1",
            expect![[r#"
            column 3: expected an index, found `x`
              a[x] == 1
                ^"#]],
        );
    }

    #[test]
    fn depth_is_limited() {
        for text in [
            format!("{}a{}", "(".repeat(100), ")".repeat(100)),
            "!".repeat(100) + "a",
            "a&&".repeat(100) + "a",
        ] {
            assert!(matches!(parse(&text), Err(FilterError::TooDeep { .. })));
        }
    }
}

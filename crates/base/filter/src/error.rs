//! What is wrong with the text of a filter, and where.

use thiserror::Error;

/// A fault in the text of a filter; columns are counted in characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum FilterError {
    #[error("column {column}: unexpected character `{found}`")]
    Character { column: usize, found: char },
    #[error("column {column}: text without a closing quote")]
    OpenText { column: usize },
    #[error("column {column}: number does not fit 64 bits")]
    NumberRange { column: usize },
    #[error("column {column}: `{text}` is no number")]
    BadNumber { column: usize, text: String },
    #[error("column {column}: expected {expected}, found {found}")]
    Unexpected { column: usize, expected: &'static str, found: String },
    #[error(
        "column {column}: unknown kind of reference `${name}`: use `$ctx.NAME`, `$app.PROVIDER:TYPE` or `$event.name`"
    )]
    UnknownRoot { column: usize, name: String },
    #[error("column {column}: operator `{operator}` does not take text")]
    TextOperand { column: usize, operator: &'static str },
    #[error("column {column}: operator `{operator}` takes integers, not reals")]
    RealOperand { column: usize, operator: &'static str },
    #[error("column {column}: text can not be compared with a number")]
    TextWithNumber { column: usize },
    #[error("column {column}: text with `*` can only be compared by `==` and `!=`")]
    PatternOrder { column: usize },
    #[error("column {column}: two texts with `*` can not be compared")]
    TwoPatterns { column: usize },
    #[error("column {column}: a filter must be a condition, not text")]
    TextResult { column: usize },
    #[error("column {column}: nested more than {max} levels deep")]
    TooDeep { column: usize, max: usize },
    #[error("the filter is empty")]
    Empty,
}

impl FilterError {
    /// The column, from 1; 0 when the error is about the whole.
    pub fn column(&self) -> usize {
        match self {
            Self::Character { column, .. }
            | Self::OpenText { column }
            | Self::NumberRange { column }
            | Self::BadNumber { column, .. }
            | Self::Unexpected { column, .. }
            | Self::UnknownRoot { column, .. }
            | Self::TextOperand { column, .. }
            | Self::RealOperand { column, .. }
            | Self::TextWithNumber { column }
            | Self::PatternOrder { column }
            | Self::TwoPatterns { column }
            | Self::TextResult { column }
            | Self::TooDeep { column, .. } => *column,
            Self::Empty => 0,
        }
    }

    /// The error, the text and a caret under the fault, on three lines.
    pub fn with_source(&self, text: &str) -> String {
        match self.column() {
            0 => self.to_string(),
            column => format!("{self}\n  {text}\n  {:>column$}", "^"),
        }
    }
}

//! LTTng's filter language: text to a typed tree, and the tree over the fields of a record.
//!
//! ```text
//! fd >= 3 && filename == "/var/*.log" && $ctx.procname != "cron" || flags & 0x80
//! ```
//!
//! Fields by name with members and indexes (`a.b[3].c`), contexts (`$ctx.vpid`), contexts of
//! applications (`$app.PROVIDER:TYPE`), and what a reader knows of the event itself
//! (`$event.name`, `$event.loglevel`). Integers, reals, text with `*` for any text. Operators by
//! falling precedence: unary `- + ! ~`, shifts, `&`, `^`, `|`, relations, equality, `&&`, `||`; so
//! bits bind tighter than comparisons, unlike in C. Integers are of 64 bits with a sign.
//!
//! What has no value (a field that the record does not have, an index outside an array, a shift by
//! less than 0 or more than 63, an operation on text) makes the comparison that it is in false.
//! No I/O; evaluating does not allocate; every error has the column of the text it is about.

mod error;
mod eval;
mod lexer;
mod parser;
mod pattern;
mod tree;

pub use error::FilterError;
pub use eval::{Record, Value, matches};
pub use parser::parse;
pub use pattern::Pattern;
pub use tree::{Binary, Expression, Reference, Root, Step, Unary};

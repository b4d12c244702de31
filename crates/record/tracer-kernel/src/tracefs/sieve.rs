//! LTTng's filter language over the records of the kernel's own tracing: each is looked at when it is
//! transcoded, before it takes room in a ring.
//!
//! Values are those that the event's fields and the back end's contexts would have. What the kernel's own
//! filters can say too keeps records from being made at all ([`super::pushed`]); they have no arithmetic, and
//! let pass what they cannot say.

use super::pushed::Words;
use super::{context, transcode};
use crate::filters::{FilterRefusal, column_of};
use crate::recipe::{Field, Recipe, Type};
use sillage_filter::{Expression, Record, Reference, Root, Value, matches, parse};

/// Filters of one event, of which a record must pass one.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    filters: Vec<Expression>,
    /// What they name, and what is added to the numbers of it.
    fields: Vec<(Reference, Field, i64)>,
}

impl Sieve {
    /// Adds a filter for the event of this recipe.
    ///
    /// # Errors
    /// What is wrong with the text, or does not go with the event, with its column.
    pub fn add(&mut self, recipe: &Recipe, text: &str) -> Result<(), FilterRefusal> {
        let expression = parse(text)?;
        let mut references = Vec::new();
        collect(&expression, &mut references);
        let mut fields = Vec::new();
        for reference in references {
            let column = column_of(text, reference);
            let found = match &reference.root {
                Root::Field(name) => recipe.fields.iter().find(|field| field.name == **name).cloned(),
                Root::Context(name) => context(name),
                _ => None,
            };
            let missing = || FilterRefusal::Missing {
                column,
                event: recipe.name.to_string(),
                what: format!("{reference} (of contexts tracefs has {} alone)", super::context_names()),
            };
            let field = found.filter(|_| reference.steps.is_empty()).ok_or_else(missing)?;
            let is_value = matches!(field.ty, Type::Int(_) | Type::Enum(..) | Type::Text(_) | Type::String);
            if !is_value || !transcode::is_known(&field) {
                let what = format!("{reference} is neither a number nor a text of the record");
                return Err(FilterRefusal::Unfit { column, what });
            }
            fields.push((reference.clone(), field.clone(), transcode::plus(recipe, &field)));
        }
        self.filters.push(expression);
        self.fields.extend(fields);
        Ok(())
    }

    /// The same in the words of the kernel, for the record of this format, or what lets more pass; None if that
    /// would be everything.
    pub(super) fn pushed(&self, record: &Recipe) -> Option<String> {
        Words { record, fields: &self.fields }.any(&self.filters)
    }

    /// True if there is none, and every record passes.
    pub(super) fn is_open(&self) -> bool {
        self.filters.is_empty()
    }

    /// True if the record passes one of the filters, or there are none.
    pub(super) fn passes(&self, record: &[u8]) -> bool {
        let seen = Seen { sieve: self, record };
        self.is_open() || self.filters.iter().any(|filter| matches(filter, &seen))
    }
}

fn collect<'e>(expression: &'e Expression, found: &mut Vec<&'e Reference>) {
    match expression {
        Expression::Reference(reference) => found.push(reference),
        Expression::Unary(_, operand) => collect(operand, found),
        Expression::Binary(_, left, right) => {
            collect(left, found);
            collect(right, found);
        }
        Expression::Integer(_) | Expression::Real(_) | Expression::Text(_) => {}
    }
}

/// A record as filters see it.
struct Seen<'a> {
    sieve: &'a Sieve,
    record: &'a [u8],
}

impl Record for Seen<'_> {
    fn value(&self, reference: &Reference) -> Option<Value<'_>> {
        let (_, field, plus) = self.sieve.fields.iter().find(|(of, ..)| of == reference)?;
        match transcode::text(field, self.record) {
            Some(text) => Some(Value::Text(text)),
            None => Some(Value::Integer(transcode::number(field, *plus, self.record))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    const FORMAT: &str = "name: x\nID: 9\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int prio;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char comm[8];\toffset:12;\tsize:8;\tsigned:0;\n\
        \tfield:__data_loc char[] path;\toffset:20;\tsize:4;\tsigned:0;\n\
        \tfield:u8 small;\toffset:24;\tsize:1;\tsigned:1;\n";

    fn record() -> Vec<u8> {
        let mut record = vec![9, 0, 4, 0];
        record.extend([7u32, 90].map(u32::to_ne_bytes).concat());
        record.extend(b"dd\0\0\0\0\0\0");
        record.extend((28u32 | 5 << 16).to_ne_bytes());
        record.extend([0xff, 0, 0, 0]);
        record.extend(b"/a/b\0");
        record
    }

    fn passes(filters: &[&str]) -> bool {
        let recipe = format::recipe("sched", "x", FORMAT).unwrap();
        let mut sieve = Sieve::default();
        filters.iter().for_each(|text| sieve.add(&recipe, text).unwrap());
        sieve.passes(&record())
    }

    #[test]
    fn numbers_texts_and_contexts_are_those_of_the_event() {
        assert!(passes(&[]) && passes(&["prio == -10"]) && passes(&["comm == \"dd\"", "prio == 1"]));
        assert!(passes(&["path == \"/a*\" && small == -1"]) && passes(&["$ctx.tid == 7 || prio > 5"]));
        assert!(passes(&["$ctx.need_reschedule == 1 && $ctx.interruptible != 0"]));
        assert!(!passes(&["prio == 90"]) && !passes(&["comm == \"d\""]) && !passes(&["!(small & 1)"]));
    }

    #[test]
    fn what_a_record_has_not_is_refused_with_its_column() {
        let recipe = format::recipe("sched", "x", FORMAT).unwrap();
        let refusal = |text| Sieve::default().add(&recipe, text).unwrap_err().to_string();
        assert!(
            refusal("prio == 1 && pid == 2").starts_with("column 14: sched_x has no pid")
                || refusal("prio == 1 && pid == 2").starts_with("column 14: x has no pid")
        );
        assert!(refusal("$ctx.vtid == 1").contains("column 1:") && refusal("$ctx.vtid == 1").contains("tid"));
    }
}

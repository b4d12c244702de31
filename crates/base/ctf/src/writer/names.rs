//! Names in TSDL: identifiers, reserved words, quoted text, and the underscore in front.

use std::collections::HashSet;

use crate::model::{ClockClass, CtfVersion, Role, Scope, StructClass, TraceClass};

const KEYWORDS: [&str; 28] = [
    "align",
    "callsite",
    "char",
    "clock",
    "const",
    "double",
    "enum",
    "env",
    "event",
    "floating_point",
    "float",
    "int",
    "integer",
    "long",
    "short",
    "signed",
    "stream",
    "string",
    "struct",
    "trace",
    "typealias",
    "typedef",
    "unsigned",
    "variant",
    "void",
    "_Bool",
    "_Complex",
    "_Imaginary",
];

/// Whether the text may stand as a name in TSDL.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&text)
}

/// The text with everything that may not be in a name replaced by an underscore.
fn letters(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// The same, as a name that may stand alone.
pub(super) fn identifier(text: &str) -> String {
    let mut out = letters(text);
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) || KEYWORDS.contains(&out.as_str()) {
        out.insert(0, '_');
    }
    out
}

/// The text as a TSDL string, its quotes included.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Octal takes at most three digits, so what follows can not join it.
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                out.push_str(&format!("\\{:03o}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The name that the format reserves for a role, in a scope where it has it.
fn reserved(role: Role, scope: Scope) -> Option<&'static str> {
    Some(match (scope, role) {
        (Scope::PacketHeader, Role::PacketMagic) => "magic",
        (Scope::PacketHeader, Role::MetadataUuid) => "uuid",
        (Scope::PacketHeader, Role::StreamClassId) => "stream_id",
        (Scope::PacketHeader, Role::StreamId) => "stream_instance_id",
        (Scope::PacketContext, Role::PacketSize) => "packet_size",
        (Scope::PacketContext, Role::ContentSize) => "content_size",
        (Scope::PacketContext, Role::Timestamp) => "timestamp_begin",
        (Scope::PacketContext, Role::EndTimestamp) => "timestamp_end",
        (Scope::PacketContext, Role::EventsDiscarded) => "events_discarded",
        (Scope::PacketContext, Role::PacketSequence) => "packet_seq_num",
        (Scope::EventHeader, Role::EventClassId) => "id",
        (Scope::EventHeader, Role::Timestamp) => "timestamp",
        _ => return None,
    })
}

/// Names of the members of a structure, as they are written in a scope: those of CTF 1.8 as they
/// were, those of CTF 2 with an underscore in front or, for a role, the name that the format
/// reserves. No two are equal.
pub(super) fn members(class: &StructClass, version: CtfVersion, scope: Scope) -> Vec<String> {
    let mut used = HashSet::new();
    let names = class.members.iter().map(|member| {
        let reserved = super::encode::ROLES
            .iter()
            .filter(|role| member.class.roles().contains(**role))
            .find_map(|role| reserved(*role, scope));
        match (version, reserved) {
            (CtfVersion::V1_8, _) if is_identifier(&member.raw_name) => member.raw_name.clone(),
            (_, Some(name)) => name.to_owned(),
            // Trace Compass does not find the CPU by any other name.
            _ if scope == Scope::PacketContext && member.name == "cpu_id" => member.name.clone(),
            _ => {
                let name = format!("_{}", letters(&member.name));
                if is_identifier(&name) { name } else { format!("_{name}") }
            }
        }
    });
    names.map(|name| unique(name, &mut used)).collect()
}

/// The name, or with a number behind it the first that is not used yet.
pub(super) fn unique(name: String, used: &mut HashSet<String>) -> String {
    let mut candidate = name.clone();
    let mut number = 2;
    while !used.insert(candidate.clone()) {
        candidate = format!("{name}_{number}");
        number += 1;
    }
    candidate
}

/// Names of the clocks of a trace, by id.
pub(super) struct ClockNames(Vec<(String, String)>);

impl ClockNames {
    pub(super) fn of(class: &TraceClass) -> Self {
        let mut used = HashSet::new();
        let names = class.clocks.iter().map(|clock| {
            let name = clock.name.as_deref().filter(|name| is_identifier(name)).unwrap_or(&clock.id);
            (clock.id.clone(), unique(identifier(name), &mut used))
        });
        Self(names.collect())
    }

    /// The name of a clock of the trace.
    pub(super) fn get(&self, clock: &ClockClass) -> &str {
        let found = self.0.iter().find(|(id, _)| *id == clock.id);
        found.map_or("default", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_quotes() {
        assert_eq!(identifier("a b-c"), "a_b_c");
        assert_eq!(identifier("1x"), "_1x");
        assert_eq!(identifier("struct"), "_struct");
        assert_eq!(quoted("a\"b\\\n\u{1}2é"), "\"a\\\"b\\\\\\n\\0012é\"");
    }
}

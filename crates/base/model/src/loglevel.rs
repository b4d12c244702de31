//! The fifteen log levels of LTTng-UST's tracepoints, from `EMERG` (0) to `DEBUG` (14).
//!
//! A lower number is more severe. A tracepoint without a level has [`LogLevel::DEFAULT`].

use core::fmt;

/// A log level, 0 (most severe) to 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogLevel(u8);

/// Names as the command line takes and prints them, by number.
const NAMES: [&str; 15] = [
    "EMERG",
    "ALERT",
    "CRIT",
    "ERR",
    "WARNING",
    "NOTICE",
    "INFO",
    "DEBUG_SYSTEM",
    "DEBUG_PROGRAM",
    "DEBUG_PROCESS",
    "DEBUG_MODULE",
    "DEBUG_UNIT",
    "DEBUG_FUNCTION",
    "DEBUG_LINE",
    "DEBUG",
];

impl LogLevel {
    /// The level of a tracepoint that declares none.
    pub const DEFAULT: LogLevel = LogLevel(13);
    /// The least severe level.
    pub const DEBUG: LogLevel = LogLevel(14);

    /// The level with this number; numbers outside 0..=14 (a program may declare any) give the default.
    pub fn from_number(number: i64) -> LogLevel {
        match u8::try_from(number) {
            Ok(n) if n < 15 => LogLevel(n),
            _ => LogLevel::DEFAULT,
        }
    }

    /// The level called `name`, in any case, with or without LTTng's `TRACE_` prefix, or as a number 0..=14.
    pub fn parse(name: &str) -> Option<LogLevel> {
        if let Ok(n) = name.parse::<u8>() {
            return (n < 15).then_some(LogLevel(n));
        }
        let bare = match name.get(..6) {
            Some(p) if p.eq_ignore_ascii_case("TRACE_") => &name[6..],
            _ => name,
        };
        NAMES.iter().position(|n| n.eq_ignore_ascii_case(bare)).map(|i| LogLevel(i as u8))
    }

    /// 0 (most severe) to 14.
    pub fn number(self) -> u8 {
        self.0
    }

    /// `EMERG` … `DEBUG`, without prefix.
    pub fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_prefixes_are_the_same_level() {
        for (text, number) in [("TRACE_EMERG", 0), ("emerg", 0), ("trace_info", 6), ("Debug", 14), ("13", 13)]
        {
            assert_eq!(LogLevel::parse(text).map(LogLevel::number), Some(number), "{text}");
        }
        assert_eq!(LogLevel::parse("15"), None);
        assert_eq!(LogLevel::parse("TRACE_"), None);
        assert_eq!(LogLevel::from_number(-3), LogLevel::DEFAULT);
    }
}

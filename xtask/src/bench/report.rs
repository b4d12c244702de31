//! One section of `benches/RESULTS.md`: a table, with the machine and the day it was measured on.

use crate::build::root;
use std::fmt::Write;
use std::process::Command;

/// A benchmark's result.
pub struct Section {
    title: &'static str,
    text: String,
}

impl Section {
    /// An empty section with this title, which names it for ever.
    pub fn new(title: &'static str) -> Section {
        Section { title, text: String::new() }
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}\n");
    }

    /// A table.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let _ = writeln!(self.text, "| {} |", head.join(" | "));
        let _ = writeln!(self.text, "|{}", "---|".repeat(head.len()));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
        self.text.push('\n');
    }

    /// Prints the section and puts it in the place of the one before in the results.
    pub fn keep(self) -> anyhow::Result<()> {
        let body = format!("## {}\n\n{}\n{}", self.title, machine(), self.text);
        println!("{body}");
        let path = root().join("benches/RESULTS.md");
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_string());
        std::fs::write(&path, replace_section(&old, self.title, &body))?;
        Ok(())
    }
}

const HEAD: &str = "# Measured\n\nWritten by `cargo xtask bench`; each section by its own benchmark. Nanoseconds are medians unless said\notherwise; peers ran in the same run on the same machine.\n\n";

fn replace_section(document: &str, title: &str, body: &str) -> String {
    let heading = format!("## {title}\n");
    let Some(start) = document.find(&heading) else { return format!("{document}{body}") };
    let rest = &document[start + heading.len()..];
    let end = rest.find("\n## ").map_or(document.len(), |at| start + heading.len() + at + 1);
    format!("{}{body}{}", &document[..start], &document[end..])
}

/// CPU, kernel, clock and date in one line.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpu.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(": ")).map_or("?", |(_, v)| v)
    };
    let count = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let date = Command::new("date").arg("+%Y-%m-%d").output().map(|o| o.stdout).unwrap_or_default();
    format!(
        "{} × {} ({} MHz), Linux {}, clocksource {clock}, {}\n",
        count,
        field("model name"),
        field("cpu MHz"),
        read("/proc/sys/kernel/osrelease"),
        String::from_utf8_lossy(&date).trim(),
    )
}

/// The median of some measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty());
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::replace_section;

    #[test]
    fn a_section_takes_the_place_of_its_elder() {
        let document = "# M\n\n## a\n1\n\n## b\n2\n";
        assert_eq!(replace_section(document, "a", "## a\n9\n\n"), "# M\n\n## a\n9\n\n## b\n2\n");
        assert_eq!(replace_section(document, "b", "## b\n9\n"), "# M\n\n## a\n1\n\n## b\n9\n");
        assert_eq!(replace_section(document, "c", "## c\n3\n"), "# M\n\n## a\n1\n\n## b\n2\n## c\n3\n");
    }
}

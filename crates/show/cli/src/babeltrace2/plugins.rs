//! The component classes that are built in, as plugins.

use anyhow::{Result, bail};

use super::graph::{ClassName, Kind};

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    pub name: &'static str,
    description: &'static str,
    classes: &'static [Class],
}

/// A component class.
#[derive(Debug)]
pub struct Class {
    kind: Kind,
    name: &'static str,
    description: &'static str,
}

/// All plugins.
const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "text",
        description: "Plain text input and output",
        classes: &[
            Class {
                kind: Kind::Source,
                name: "dmesg",
                description: "Read Linux ring buffer lines (dmesg(1) output) from a file or from standard input.",
            },
            Class { kind: Kind::Sink, name: "details", description: "Print messages with details." },
            Class {
                kind: Kind::Sink,
                name: "pretty",
                description: "Pretty-print messages (`text` format of Babeltrace 1).",
            },
        ],
    },
    Plugin {
        name: "lttng-utils",
        description: "LTTng-specific graph utilities",
        classes: &[Class {
            kind: Kind::Filter,
            name: "debug-info",
            description: "Augment compatible events with debugging information.",
        }],
    },
    Plugin {
        name: "ctf",
        description: "CTF input and output",
        classes: &[
            Class {
                kind: Kind::Source,
                name: "lttng-live",
                description: "Connect to an LTTng relay daemon and receive CTF streams.",
            },
            Class { kind: Kind::Source, name: "fs", description: "Read CTF traces from the file system." },
            Class { kind: Kind::Sink, name: "fs", description: "Write CTF traces to the file system." },
        ],
    },
    Plugin {
        name: "utils",
        description: "Common graph utilities",
        classes: &[
            Class {
                kind: Kind::Filter,
                name: "muxer",
                description: "Sort messages from multiple input ports to a single output port by time.",
            },
            Class {
                kind: Kind::Filter,
                name: "trimmer",
                description: "Discard messages that occur outside a specific time range.",
            },
            Class {
                kind: Kind::Sink,
                name: "counter",
                description: "Count messages and print the statistics.",
            },
            Class { kind: Kind::Sink, name: "dummy", description: "Consume messages and discard them." },
        ],
    },
];

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Filter => "filter",
        Kind::Sink => "sink",
    }
}

impl Plugin {
    fn show(&self, out: &mut String) {
        out.push_str(&format!("{}:\n  Built-in\n  Description: {}\n", self.name, self.description));
        out.push_str("  License: MIT OR Apache-2.0\n");
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(move |class| class.kind == kind)
    }

    fn show_counts(&self, out: &mut String) {
        self.show(out);
        for (kind, title) in [(Kind::Source, "Source"), (Kind::Filter, "Filter"), (Kind::Sink, "Sink")] {
            out.push_str(&format!("  {title} component classes: {}\n", self.of_kind(kind).count()));
        }
    }

    fn show_class(&self, class: &Class, indent: &str, out: &mut String) {
        out.push_str(&format!("{indent}'{}.{}.{}'", word(class.kind), self.name, class.name));
    }
}

/// What `list-plugins` prints.
pub fn list() -> String {
    let classes: usize = PLUGINS.iter().map(|plugin| plugin.classes.len()).sum();
    let mut out = format!("Found {classes} component classes in {} plugins.\n", PLUGINS.len());
    for plugin in PLUGINS {
        out.push('\n');
        plugin.show(&mut out);
        for (kind, title) in [(Kind::Source, "Source"), (Kind::Filter, "Filter"), (Kind::Sink, "Sink")] {
            if plugin.of_kind(kind).count() == 0 {
                out.push_str(&format!("  {title} component classes: (none)\n"));
                continue;
            }
            out.push_str(&format!("  {title} component classes:\n"));
            for class in plugin.of_kind(kind) {
                plugin.show_class(class, "    ", &mut out);
                out.push_str(&format!(": {}\n", class.description));
            }
        }
    }
    out
}

/// What `help` prints for a plugin or `TYPE.PLUGIN.CLASS`.
///
/// # Errors
/// There is no such plugin or class.
pub fn help(text: &str) -> Result<String> {
    let mut out = String::new();
    if !text.contains('.') {
        find(text)?.show_counts(&mut out);
        return Ok(out);
    }
    let name = ClassName::parse(text)?;
    let plugin = find(&name.plugin)?;
    let class = class_of(plugin, &name)?;
    plugin.show_counts(&mut out);
    out.push('\n');
    plugin.show_class(class, "", &mut out);
    out.push_str(&format!("\n  Description: {}\n", class.description));
    Ok(out)
}

fn find(name: &str) -> Result<&'static Plugin> {
    match PLUGINS.iter().find(|plugin| plugin.name == name) {
        Some(plugin) => Ok(plugin),
        None => bail!("there is no plugin `{name}`: `babeltrace2 list-plugins` shows them"),
    }
}

fn class_of(plugin: &'static Plugin, name: &ClassName) -> Result<&'static Class> {
    match plugin.of_kind(name.kind).find(|class| class.name == name.class) {
        Some(class) => Ok(class),
        None => bail!("plugin `{}` has no {} class `{}`", plugin.name, word(name.kind), name.class),
    }
}

/// Whether a class exists.
///
/// # Errors
/// It does not.
pub fn check(name: &ClassName) -> Result<()> {
    class_of(find(&name.plugin)?, name).map(|_| ())
}

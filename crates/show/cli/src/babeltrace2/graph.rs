//! A graph of components as it is asked for: the arguments of `run`.

use anyhow::{Context, Result, bail};

use super::options::{Item, Reader, Spec, flag, value};
use super::params::{self, Params};

/// Type of a component class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Source,
    Filter,
    Sink,
}

/// `TYPE.PLUGIN.CLASS`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassName {
    pub kind: Kind,
    pub plugin: String,
    pub class: String,
}

impl ClassName {
    /// Reads `TYPE.PLUGIN.CLASS`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('.');
        let (Some(kind), Some(plugin), Some(class), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("`{text}` is not `TYPE.PLUGIN.CLASS`");
        };
        let kind = match kind {
            "source" | "src" => Kind::Source,
            "filter" | "flt" => Kind::Filter,
            "sink" => Kind::Sink,
            _ => bail!("`{kind}` is no type of component: use `source`, `filter` or `sink`"),
        };
        if plugin.is_empty() || class.is_empty() {
            bail!("`{text}` is not `TYPE.PLUGIN.CLASS`");
        }
        Ok(Self { kind, plugin: plugin.to_owned(), class: class.to_owned() })
    }
}

/// A component.
#[derive(Debug, Clone)]
pub struct Component {
    pub name: String,
    pub class: ClassName,
    pub params: Params,
}

/// `UPSTREAM[.PORT]:DOWNSTREAM[.PORT]`
#[derive(Debug, Clone)]
pub struct Connection {
    pub upstream: String,
    pub upstream_port: String,
    pub downstream: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Graph {
    pub components: Vec<Component>,
    pub connections: Vec<Connection>,
    pub retry_duration_us: Option<u64>,
    pub stream_intersection: bool,
    pub help: bool,
}

const SPECS: &[Spec] = &[
    value("base-params", Some('b')),
    value("component", Some('c')),
    value("connect", Some('x')),
    flag("help", Some('h')),
    value("log-level", Some('l')),
    value("allowed-mip-versions", Some('m')),
    value("params", Some('p')),
    flag("reset-base-params", Some('r')),
    value("retry-duration", None),
    value("plugin-path", None),
    flag("omit-home-plugin-path", None),
    flag("omit-system-plugin-path", None),
];

impl Graph {
    /// Reads the arguments of `run`.
    ///
    /// # Errors
    /// A fault of the arguments, a graph that can not be.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut graph = Self::default();
        let mut base = Params::new();
        let mut reader = Reader::new(SPECS, arguments);
        while let Some(item) = reader.next()? {
            let (name, value) = match item {
                Item::Option(name, value) => (name, value),
                Item::Argument(text) => bail!("unexpected argument `{text}`"),
            };
            match name {
                "base-params" => base = params::parse(&value)?,
                "reset-base-params" => base.clear(),
                "component" => {
                    let Some((name, class)) = split_name(&value) else {
                        bail!("component `{value}` has no name: use NAME:TYPE.PLUGIN.CLASS");
                    };
                    if graph.components.iter().any(|component| component.name == name) {
                        bail!("two components are named `{name}`");
                    }
                    let class = ClassName::parse(class)?;
                    graph.components.push(Component { name, class, params: base.clone() });
                }
                "params" => match graph.components.last_mut() {
                    Some(component) => params::extend(&mut component.params, params::parse(&value)?),
                    None => bail!("--params must follow the --component that it is for"),
                },
                "log-level" => {
                    check_log_level(&value)?;
                    if graph.components.is_empty() {
                        bail!("--log-level must follow the --component that it is for");
                    }
                }
                "connect" => graph.connections.push(Connection::parse(&value)?),
                "retry-duration" => graph.retry_duration_us = Some(parse_duration(&value)?),
                "help" => {
                    graph.help = true;
                    return Ok(graph);
                }
                _ => {}
            }
        }
        graph.check()?;
        Ok(graph)
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    fn check(&self) -> Result<()> {
        for (kind, what) in [(Kind::Source, "source"), (Kind::Sink, "sink")] {
            if !self.components.iter().any(|component| component.class.kind == kind) {
                bail!("no {what} component");
            }
        }
        for connection in &self.connections {
            let end = |name: &str| {
                self.component(name).with_context(|| format!("connection to unknown component `{name}`"))
            };
            let (up, down) = (end(&connection.upstream)?, end(&connection.downstream)?);
            if up.class.kind == Kind::Sink {
                bail!("component `{}` is a sink: it can not be upstream", up.name);
            }
            if down.class.kind == Kind::Source {
                bail!("component `{}` is a source: it can not be downstream", down.name);
            }
        }
        for component in &self.components {
            let connected = self.connections.iter().any(|connection| {
                connection.upstream == component.name || connection.downstream == component.name
            });
            if !connected {
                bail!("component `{}` is not connected", component.name);
            }
        }
        self.check_cycles()
    }

    /// Walking upstream must end.
    fn check_cycles(&self) -> Result<()> {
        for component in &self.components {
            let mut at: Vec<&str> = vec![&component.name];
            for _ in 0..=self.components.len() {
                at = self
                    .connections
                    .iter()
                    .filter(|connection| at.contains(&connection.downstream.as_str()))
                    .map(|connection| connection.upstream.as_str())
                    .collect();
                at.sort_unstable();
                at.dedup();
            }
            if !at.is_empty() {
                bail!("the connections of component `{}` form a cycle", component.name);
            }
        }
        Ok(())
    }
}

/// `NAME:CLASS`; the name may hold escaped characters.
pub fn split_name(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((unescape(&text[..at]), &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

impl Connection {
    fn parse(text: &str) -> Result<Self> {
        let mut parts: Vec<(char, String)> = vec![('\0', String::new())];
        let mut chars = text.chars();
        let mut downstream = false;
        while let Some(c) = chars.next() {
            let last = parts.len() - 1;
            match c {
                '\\' => {
                    // Ports are patterns: their escapes are kept.
                    let next = chars.next().unwrap_or('\\');
                    if parts[last].0 == '.' && matches!(next, '*' | '?' | '[' | '\\') {
                        parts[last].1.push('\\');
                    }
                    parts[last].1.push(next);
                }
                ':' if !downstream => {
                    downstream = true;
                    parts.push((':', String::new()));
                }
                '.' if parts[last].0 != '.' => parts.push(('.', String::new())),
                c => parts[last].1.push(c),
            }
        }
        let at = parts.iter().position(|(separator, _)| *separator == ':');
        let Some(at) = at else {
            bail!("`{text}` is no connection: use UPSTREAM[.PORT]:DOWNSTREAM[.PORT]");
        };
        let upstream = parts[0].1.clone();
        let downstream = parts[at].1.clone();
        if upstream.is_empty() || downstream.is_empty() {
            bail!("`{text}` is no connection: use UPSTREAM[.PORT]:DOWNSTREAM[.PORT]");
        }
        let upstream_port = if at > 1 { parts[1].1.clone() } else { "*".to_owned() };
        Ok(Self { upstream, upstream_port, downstream })
    }
}

/// Accepts the names of log levels.
///
/// # Errors
/// Any other text.
pub fn check_log_level(text: &str) -> Result<()> {
    let known = [
        "N", "NONE", "T", "TRACE", "D", "DEBUG", "I", "INFO", "W", "WARN", "WARNING", "E", "ERROR", "F",
        "FATAL",
    ];
    if known.contains(&text) {
        return Ok(());
    }
    bail!("`{text}` is no log level: use N, T, D, I, W, E or F")
}

/// Microseconds of `--retry-duration`.
///
/// # Errors
/// Not an unsigned number.
pub fn parse_duration(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("`{text}` is no duration in microseconds"))
}

/// Whether text matches a pattern in which `*` stands for any text.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let literal = match pattern.get(p) {
            Some('\\') => pattern.get(p + 1).map(|c| (*c, 2)),
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(c) => Some((*c, 1)),
            None => None,
        };
        match (literal, star) {
            (Some((c, step)), _) if c == text[t] => {
                p += step;
                t += 1;
            }
            (_, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn connections_and_their_faults() {
        let good = "-c a.b:source.ctf.fs -p x=1 -b y=2 -c m:filter.utils.muxer -c s:sink.utils.dummy";
        // A name with a dot is escaped where it is used, not where it is given.
        let arguments = words(&format!("{good} -x a\\.b.p*:m -x m:s"));
        let graph = Graph::parse(&arguments).expect("valid");
        assert_eq!(graph.connections[0].upstream, "a.b");
        assert_eq!(graph.connections[0].upstream_port, "p*");
        assert_eq!(graph.components[2].params.len(), 1);
        for (bad, want) in [
            ("-c a:source.ctf.fs", "no sink component"),
            ("-c a:source.ctf.fs -c s:sink.utils.dummy", "not connected"),
            ("-c a:source.ctf.fs -c s:sink.utils.dummy -x a:b", "unknown component `b`"),
            ("-c a:source.ctf.fs -c s:sink.utils.dummy -x s:a", "is a sink"),
            ("-c a:source.ctf.fs -c a:sink.utils.dummy", "two components"),
            (
                "-c a:source.ctf.fs -c f:filter.utils.muxer -c s:sink.utils.dummy -x f:f -x a:f -x f:s",
                "cycle",
            ),
        ] {
            let error = Graph::parse(&words(bad)).expect_err(bad).to_string();
            assert!(error.contains(want), "{bad}: {error}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}

//! The arguments of `convert`, turned into those of `run`.
//!
//! What is implicit (source, muxer, trimmer, debug info, text) becomes a component like any other,
//! so there is one way to build a graph.

use std::path::Path;

use anyhow::{Result, bail};

use super::graph::{ClassName, Kind, check_log_level, parse_duration, split_name};
use super::options::{Item, Reader, Spec, flag, value};
use super::params;

/// Options of `convert`.
pub const SPECS: &[Spec] = &[
    value("allowed-mip-versions", Some('m')),
    value("begin", Some('b')),
    flag("clock-cycles", None),
    flag("clock-date", None),
    flag("clock-force-correlate", None),
    flag("clock-gmt", None),
    value("clock-offset", None),
    value("clock-offset-ns", None),
    flag("clock-seconds", None),
    value("color", None),
    value("component", Some('c')),
    flag("debug", Some('d')),
    flag("debug-info", None),
    value("debug-info-dir", None),
    flag("debug-info-full-path", None),
    value("debug-info-target-prefix", None),
    value("end", Some('e')),
    value("fields", Some('f')),
    flag("help", Some('h')),
    value("input-format", Some('i')),
    value("log-level", Some('l')),
    value("names", Some('n')),
    flag("no-debug-info", None),
    flag("no-delta", None),
    flag("omit-home-plugin-path", None),
    flag("omit-system-plugin-path", None),
    value("output", Some('w')),
    value("output-format", Some('o')),
    value("params", Some('p')),
    value("plugin-path", None),
    value("retry-duration", None),
    flag("run-args", None),
    flag("run-args-0", None),
    flag("stream-intersection", None),
    value("timerange", Some('t')),
    flag("verbose", Some('v')),
];

/// What the arguments ask for.
#[derive(Debug)]
pub enum Request {
    Help,
    /// Print the arguments of `run`, with this between them, quoted for a shell or not.
    Print(Vec<String>, Quoting),
    /// Run this.
    Run {
        arguments: Vec<String>,
        stream_intersection: bool,
    },
    /// Print the metadata of a trace.
    Metadata(String),
}

/// How arguments are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    Shell,
    Nul,
}

/// How inputs become components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grouping {
    /// One component for all inputs of the same parameters: the source finds and groups traces.
    ByParams,
    /// One component per trace, as Babeltrace shows it.
    ByTrace,
}

/// An input that is no option, with what was said of it.
#[derive(Debug, Clone)]
struct Input {
    text: String,
    params: Vec<String>,
    log_level: Option<String>,
}

/// A component with its raw parameters.
#[derive(Debug, Clone)]
struct Part {
    name: String,
    class: &'static str,
    /// Joined with commas into one argument.
    words: Vec<String>,
    /// Arguments of their own.
    params: Vec<String>,
    log_level: Option<String>,
    wanted: bool,
}

impl Part {
    fn new(name: &str, class: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            class,
            words: Vec::new(),
            params: Vec::new(),
            log_level: None,
            wanted: false,
        }
    }

    fn word(&mut self, text: impl Into<String>) {
        self.words.push(text.into());
        self.wanted = true;
    }

    fn text(&mut self, name: &str, text: &str) {
        self.params.push(format!("{name}={}", quoted(text)));
        self.wanted = true;
    }
}

/// A component that was asked for by name.
#[derive(Debug, Clone)]
struct Explicit {
    name: String,
    class_text: String,
    kind: Kind,
    params: Vec<String>,
    log_level: Option<String>,
}

#[derive(Debug)]
struct Parts {
    explicit: Vec<Explicit>,
    inputs: Vec<Input>,
    ctf: Vec<(u8, String)>,
    live: bool,
    pretty: Part,
    sink_ctf: Part,
    dummy: Part,
    trimmer: Part,
    trimmer_gmt: bool,
    debug_info: Part,
    output: Option<String>,
    output_format: Option<String>,
    retry_duration: Option<String>,
    print: Option<Quoting>,
    stream_intersection: bool,
    help: bool,
}

/// Text in double quotes, for parameters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Reads the arguments of `convert`.
///
/// # Errors
/// A fault of the arguments, or nothing to convert.
pub fn parse(arguments: &[String]) -> Result<Request> {
    let mut parts = Parts::read(arguments)?;
    if parts.help {
        return Ok(Request::Help);
    }
    if parts.output_format.as_deref() == Some("ctf-metadata") {
        return match parts.inputs.as_slice() {
            [input] => Ok(Request::Metadata(input.text.clone())),
            _ => bail!("--output-format=ctf-metadata needs exactly one path"),
        };
    }
    parts.settle_sink()?;
    if let Some(quoting) = parts.print {
        if parts.stream_intersection {
            bail!("--stream-intersection can not be combined with --run-args or --run-args-0");
        }
        return Ok(Request::Print(parts.into_arguments(Grouping::ByTrace)?, quoting));
    }
    let stream_intersection = parts.stream_intersection;
    Ok(Request::Run { arguments: parts.into_arguments(Grouping::ByParams)?, stream_intersection })
}

impl Parts {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut parts = Self {
            explicit: Vec::new(),
            inputs: Vec::new(),
            ctf: Vec::new(),
            live: false,
            pretty: Part::new("pretty", "sink.text.pretty"),
            sink_ctf: Part::new("sink-ctf-fs", "sink.ctf.fs"),
            dummy: Part::new("dummy", "sink.utils.dummy"),
            trimmer: Part::new("trimmer", "filter.utils.trimmer"),
            trimmer_gmt: false,
            debug_info: Part::new("debug-info", "filter.lttng-utils.debug-info"),
            output: None,
            output_format: None,
            retry_duration: None,
            print: None,
            stream_intersection: false,
            help: false,
        };
        let mut last = Last::Nothing;
        let mut reader = Reader::new(SPECS, arguments);
        while let Some(item) = reader.next()? {
            match item {
                Item::Argument(text) => {
                    parts.inputs.push(Input { text, params: Vec::new(), log_level: None });
                    last = Last::Input;
                }
                Item::Option("help", _) => {
                    parts.help = true;
                    return Ok(parts);
                }
                Item::Option(name, value) => parts.option(name, value, &mut last)?,
            }
        }
        Ok(parts)
    }

    fn option(&mut self, name: &str, value: String, last: &mut Last) -> Result<()> {
        match name {
            "component" => {
                self.add_explicit(&value)?;
                *last = Last::Component;
            }
            "params" => {
                params::parse(&value)?;
                match (last, self.explicit.last_mut(), self.inputs.last_mut()) {
                    (Last::Component, Some(component), _) => component.params.push(value),
                    (Last::Input, _, Some(input)) => input.params.push(value),
                    _ => bail!("--params must follow the --component or the path that it is for"),
                }
            }
            "log-level" => {
                check_log_level(&value)?;
                match (last, self.explicit.last_mut(), self.inputs.last_mut()) {
                    (Last::Component, Some(component), _) => component.log_level = Some(value),
                    (Last::Input, _, Some(input)) => input.log_level = Some(value),
                    _ => {}
                }
            }
            "clock-force-correlate" => self.ctf.push((0, "force-clock-class-origin-unix-epoch=yes".into())),
            "clock-offset" => self.ctf.push((1, format!("clock-class-offset-s={}", integer(name, &value)?))),
            "clock-offset-ns" => {
                self.ctf.push((2, format!("clock-class-offset-ns={}", integer(name, &value)?)))
            }
            "clock-cycles" | "clock-date" | "clock-seconds" | "no-delta" => {
                self.pretty.word(format!("{name}=yes"))
            }
            "clock-gmt" => {
                self.pretty.word("clock-gmt=yes");
                self.trimmer_gmt = true;
            }
            "verbose" => self.pretty.words.push("verbose=yes".into()),
            "color" => {
                if !["never", "auto", "always"].contains(&value.as_str()) {
                    bail!("--color must be `never`, `auto` or `always`");
                }
                self.pretty.text("color", &value);
            }
            "names" => add_list(&mut self.pretty, "name", &value, name_key)?,
            "fields" => add_list(&mut self.pretty, "field", &value, field_key)?,
            "output" => self.output = Some(value),
            "output-format" => {
                if !["text", "ctf", "dummy", "ctf-metadata"].contains(&value.as_str()) {
                    bail!("--output-format must be `text`, `ctf`, `dummy` or `ctf-metadata`");
                }
                self.output_format = Some(value);
            }
            "input-format" => match value.as_str() {
                "ctf" => {}
                "lttng-live" => self.live = true,
                _ => bail!("--input-format must be `ctf` or `lttng-live`"),
            },
            "begin" | "end" => self.set_bound(name, &value)?,
            "timerange" => {
                let inner = value.strip_prefix('[').map_or(Some(&*value), |rest| rest.strip_suffix(']'));
                let ends = inner.and_then(|inner| inner.split_once(','));
                let Some((begin, end)) = ends.filter(|(begin, end)| !begin.is_empty() && !end.is_empty())
                else {
                    bail!("--timerange must be BEGIN,END or [BEGIN,END]");
                };
                self.set_bound("begin", begin)?;
                self.set_bound("end", end)?;
            }
            "debug-info" => self.debug_info.wanted = true,
            "debug-info-dir" => self.debug_info.text("debug-info-dir", &value),
            "debug-info-full-path" => self.debug_info.word("full-path=yes"),
            "debug-info-target-prefix" => self.debug_info.text("target-prefix", &value),
            "retry-duration" => {
                parse_duration(&value)?;
                self.retry_duration = Some(value);
            }
            "run-args" => self.print = Some(Quoting::Shell),
            "run-args-0" => self.print = Some(Quoting::Nul),
            "stream-intersection" => self.stream_intersection = true,
            // Accepted for the sake of scripts: there are no plugins to load, no log to write.
            _ => {}
        }
        Ok(())
    }

    fn set_bound(&mut self, name: &str, text: &str) -> Result<()> {
        if self.trimmer.params.iter().any(|param| param.starts_with(&format!("{name}="))) {
            bail!("--{name} is given twice");
        }
        self.trimmer.text(name, text);
        Ok(())
    }

    fn add_explicit(&mut self, text: &str) -> Result<()> {
        let (given, class_text) = match split_name(text) {
            Some((name, class)) => (Some(name), class.to_owned()),
            None => (None, text.to_owned()),
        };
        let class = ClassName::parse(&class_text)?;
        let base = given.clone().unwrap_or_else(|| class_text.clone());
        let name = self.free_name(&base);
        if given.is_some() && name != base {
            bail!("two components are named `{base}`");
        }
        let kind = class.kind;
        self.explicit.push(Explicit { name, class_text, kind, params: Vec::new(), log_level: None });
        Ok(())
    }

    /// The name, with a number behind it if it is taken.
    fn free_name(&self, base: &str) -> String {
        let taken = |name: &str| self.explicit.iter().any(|component| component.name == name);
        if !taken(base) {
            return base.to_owned();
        }
        (0..).map(|n| format!("{base}-{n}")).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Decides which sink there is.
    fn settle_sink(&mut self) -> Result<()> {
        match self.output_format.as_deref() {
            Some("ctf") => {
                let Some(output) = &self.output else {
                    bail!("--output-format=ctf needs --output=PATH");
                };
                self.sink_ctf.text("path", output);
            }
            Some("dummy") => self.dummy.wanted = true,
            Some(_) => self.pretty.wanted = true,
            None => {}
        }
        if let Some(output) = &self.output
            && self.output_format.as_deref() != Some("ctf")
        {
            self.pretty.text("path", output);
        }
        let explicit = self.explicit.iter().filter(|component| component.kind == Kind::Sink).count();
        let others = usize::from(self.sink_ctf.wanted) + usize::from(self.dummy.wanted);
        if explicit + others == 0 {
            self.pretty.wanted = true;
        }
        if explicit + others + usize::from(self.pretty.wanted) > 1 {
            bail!("more than one sink component is specified (options of the text output make one)");
        }
        if self.trimmer.wanted && self.trimmer_gmt {
            self.trimmer.words.insert(0, "gmt=yes".into());
        }
        Ok(())
    }

    /// The arguments of `run`.
    fn into_arguments(self, grouping: Grouping) -> Result<Vec<String>> {
        let mut out: Vec<String> = Vec::new();
        if let Some(duration) = &self.retry_duration {
            out.extend(["--retry-duration".into(), duration.clone()]);
        }
        for component in &self.explicit {
            out.extend(["--component".into(), format!("{}:{}", component.name, component.class_text)]);
            if let Some(level) = &component.log_level {
                out.extend(["--log-level".into(), level.clone()]);
            }
            for params in &component.params {
                out.extend(["--params".into(), params.clone()]);
            }
        }
        let sources = self.sources(grouping)?;
        let mut upstream: Vec<String> =
            self.of_kind(Kind::Source).chain(sources.iter().map(|part| part.name.clone())).collect();
        if upstream.is_empty() {
            bail!("no trace to read: give the path of a trace, or of a directory with traces below it");
        }
        let muxer = Part { wanted: true, ..Part::new("muxer", "filter.utils.muxer") };
        let sinks = [&self.pretty, &self.sink_ctf, &self.dummy];
        let filters = [&muxer, &self.trimmer, &self.debug_info];
        for part in sources.iter().chain(sinks).chain(filters).filter(|part| part.wanted) {
            let name = self.free_name(&part.name);
            out.extend(["--component".into(), format!("{name}:{}", part.class)]);
            for params in part_params(part) {
                out.extend(params);
            }
        }
        let chain: Vec<String> = filters
            .iter()
            .filter(|part| part.wanted)
            .map(|part| self.free_name(&part.name))
            .chain(self.of_kind(Kind::Filter))
            .chain(self.of_kind(Kind::Sink))
            .chain(sinks.iter().filter(|part| part.wanted).map(|part| self.free_name(&part.name)))
            .collect();
        for next in chain {
            for from in &upstream {
                out.extend(["--connect".into(), format!("{}:{}", escape(from), escape(&next))]);
            }
            upstream = vec![next];
        }
        Ok(out)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = String> {
        self.explicit
            .iter()
            .filter(move |component| component.kind == kind)
            .map(|component| component.name.clone())
    }

    /// The implicit sources.
    fn sources(&self, grouping: Grouping) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut ctf = self.ctf.clone();
        ctf.sort_by_key(|(rank, _)| *rank);
        let words: Vec<String> = ctf.into_iter().map(|(_, word)| word).collect();
        if self.live {
            let [input] = self.inputs.as_slice() else {
                bail!(
                    "--input-format=lttng-live needs exactly one URL: net://HOST[:PORT]/host/TARGET/SESSION"
                );
            };
            let mut part = Part { wanted: true, ..Part::new("lttng-live", "source.ctf.lttng-live") };
            part.params.push(format!("inputs=[{}]", quoted(&input.text)));
            part.params.push("session-not-found-action=\"end\"".into());
            return Ok(vec![part]);
        }
        let mut groups: Vec<(Input, Vec<String>, Option<String>)> = Vec::new();
        for input in &self.inputs {
            if is_url(&input.text) {
                let mut part = Part {
                    wanted: true,
                    ..Part::new("auto-disc-source-ctf-lttng-live", "source.ctf.lttng-live")
                };
                part.name = numbered(&part.name, &parts);
                part.params.extend(input.params.clone());
                part.params.push(format!("inputs=[{}]", quoted(&input.text)));
                parts.push(part);
                continue;
            }
            let found = match grouping {
                Grouping::ByParams => discovered_whole(input),
                Grouping::ByTrace => discovered_traces(input)?,
            };
            if found.is_empty() {
                eprintln!("warning: no trace was found based on input `{}`", input.text);
            }
            for (identity, path, trace_name) in found {
                let same = groups.iter_mut().find(|(known, _, key)| {
                    key.is_some()
                        && *key == identity
                        && known.params == input.params
                        && known.log_level == input.log_level
                });
                match same {
                    Some((known, paths, _)) => {
                        paths.push(path);
                        // The name is that of one directory only.
                        known.text.clear();
                    }
                    None => {
                        let input = Input { text: trace_name.unwrap_or_default(), ..input.clone() };
                        groups.push((input, vec![path], identity));
                    }
                }
            }
        }
        for (input, paths, _) in groups {
            let mut part = Part { wanted: true, ..Part::new("auto-disc-source-ctf-fs", "source.ctf.fs") };
            part.name = numbered(&part.name, &parts);
            part.words = words.clone();
            part.params = input.params;
            part.log_level = input.log_level;
            if !input.text.is_empty() {
                part.params.push(format!("trace-name={}", quoted(&input.text)));
            }
            let paths: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
            part.params.push(format!("inputs=[{}]", paths.join(", ")));
            parts.push(part);
        }
        Ok(parts)
    }
}

/// What `--params` and `--log-level` belong to.
enum Last {
    Nothing,
    Component,
    Input,
}

/// The arguments with a part's parameters. Parameters of the user come before the level, the
/// input comes last.
fn part_params(part: &Part) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    if !part.words.is_empty() {
        out.push(vec!["--params".into(), part.words.join(",")]);
    }
    let (before, last) = match part.params.split_last() {
        Some((last, before)) if part.log_level.is_some() => (before, Some(last)),
        _ => (part.params.as_slice(), None),
    };
    out.extend(before.iter().map(|params| vec!["--params".into(), params.clone()]));
    if let Some(level) = &part.log_level {
        out.push(vec!["--log-level".into(), level.clone()]);
    }
    out.extend(last.iter().map(|params| vec!["--params".into(), (*params).clone()]));
    out
}

fn numbered(base: &str, parts: &[Part]) -> String {
    let same =
        parts.iter().filter(|part| part.name == base || part.name.starts_with(&format!("{base}-"))).count();
    if same == 0 { base.to_owned() } else { format!("{base}-{}", same - 1) }
}

/// Whether an input is the address of a live session.
pub fn is_url(text: &str) -> bool {
    ["net://", "net4://", "net6://", "tcp://", "tcp6://"].iter().any(|scheme| text.starts_with(scheme))
}

type Found = (Option<String>, String, Option<String>);

/// The input itself, if anything is there.
fn discovered_whole(input: &Input) -> Vec<Found> {
    let found = sillage_pipeline::sources::has_trace(Path::new(&input.text));
    if found { vec![(Some(String::new()), input.text.clone(), None)] } else { Vec::new() }
}

/// Every trace directory below the input: (identity, path, name).
fn discovered_traces(input: &Input) -> Result<Vec<Found>> {
    let root = Path::new(&input.text);
    let source = match sillage_pipeline::open(root) {
        Ok(source) => source,
        Err(sillage_pipeline::Error::NoTrace(_) | sillage_pipeline::Error::Io { .. }) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for directory in source.directories() {
        let single = sillage_pipeline::open(directory)?;
        let class = single.traces().first().map(|trace| &trace.class);
        let identity = class.and_then(|class| match (&class.uid, &class.uuid) {
            (Some(uid), _) => Some(format!("{:?} {:?} {uid}", class.namespace, class.name)),
            (None, Some(uuid)) => Some(uuid.to_string()),
            (None, None) => None,
        });
        let below = directory.strip_prefix(root).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let name = (!below.is_empty()).then_some(below);
        found.push((identity, directory.to_string_lossy().into_owned(), name));
    }
    Ok(found)
}

fn integer(name: &str, text: &str) -> Result<i64> {
    text.parse().map_err(|_| anyhow::anyhow!("--{name}: `{text}` is no integer"))
}

/// Adds `PREFIX-KEY=yes` for each word, and whether the others are shown.
fn add_list(part: &mut Part, prefix: &str, list: &str, key: fn(&str) -> Option<&'static str>) -> Result<()> {
    let words: Vec<&str> = list.split(',').map(str::trim).collect();
    let mut default = "hide";
    for word in words {
        match word {
            "all" => default = "show",
            "none" if prefix == "name" => {}
            word => match key(word) {
                Some(key) => part.word(format!("{prefix}-{key}=yes")),
                None => bail!("unknown {prefix} `{word}` in `{list}`"),
            },
        }
    }
    if default == "show" {
        let prefix = format!("{prefix}-");
        part.words.retain(|word| !word.starts_with(&prefix));
    }
    part.word(format!("{prefix}-default={default}"));
    Ok(())
}

fn name_key(word: &str) -> Option<&'static str> {
    Some(match word {
        "payload" | "arg" | "args" => "payload",
        "context" | "ctx" => "context",
        "scope" => "scope",
        "header" => "header",
        _ => return None,
    })
}

fn field_key(word: &str) -> Option<&'static str> {
    ["trace", "trace:hostname", "trace:domain", "trace:procname", "trace:vpid", "loglevel", "emf", "callsite"]
        .into_iter()
        .find(|known| *known == word)
}

/// A component name where a port may follow.
fn escape(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if matches!(c, '\\' | '.' | ':') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Arguments as one line for a shell.
pub fn shell_line(arguments: &[String]) -> String {
    let quote = |text: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.clone()
        } else {
            format!("'{}'", text.replace('\'', "'\"'\"'"))
        }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_args(text: &str) -> String {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        match parse(&words) {
            Ok(Request::Print(arguments, Quoting::Shell)) => shell_line(&arguments),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn explicit_components_need_no_trace() {
        let source = "-c source.ctf.fs -p inputs=[\"x\"] --run-args";
        let check = |options: &str, want: &str| assert_eq!(run_args(&format!("{source} {options}")), want);
        let head = "--component source.ctf.fs:source.ctf.fs --params 'inputs=[\"x\"]'";
        check(
            "-n args --no-delta -f trace --color never --clock-gmt -v",
            &format!(
                "{head} --component pretty:sink.text.pretty --params \
                 name-payload=yes,name-default=hide,no-delta=yes,field-trace=yes,field-default=hide,clock-gmt=yes,verbose=yes \
                 --params 'color=\"never\"' --component muxer:filter.utils.muxer \
                 --connect 'source\\.ctf\\.fs:muxer' --connect muxer:pretty"
            ),
        );
        check(
            "-b 1 -e 2 --debug-info -c filter.utils.muxer -c foo:filter.utils.trimmer -o dummy",
            &format!(
                "{head} --component filter.utils.muxer:filter.utils.muxer --component foo:filter.utils.trimmer \
                 --component dummy:sink.utils.dummy --component muxer:filter.utils.muxer \
                 --component trimmer:filter.utils.trimmer --params 'begin=\"1\"' --params 'end=\"2\"' \
                 --component debug-info:filter.lttng-utils.debug-info \
                 --connect 'source\\.ctf\\.fs:muxer' --connect muxer:trimmer --connect trimmer:debug-info \
                 --connect 'debug-info:filter\\.utils\\.muxer' --connect 'filter\\.utils\\.muxer:foo' --connect foo:dummy"
            ),
        );
    }

    #[test]
    fn faults() {
        for (arguments, want) in [
            ("-c sink.text.details --no-delta", "more than one sink"),
            ("-p a=1 x", "--params must follow"),
            ("-n bogus", "unknown name `bogus`"),
            ("-t 1", "--timerange must be"),
            ("-o ctf x", "needs --output"),
            ("--stream-intersection --run-args", "can not be combined"),
            ("-b 1 -b 2", "given twice"),
        ] {
            let text = run_args(arguments);
            assert!(text.contains(want), "{arguments}: {text}");
        }
    }
}

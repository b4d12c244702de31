//! The command line of Babeltrace 2: `convert`, `run`, `query`, `list-plugins`, `help`.
//!
//! Options, parameters, exit codes and standard output are Babeltrace's; its log is not. Where it
//! gives up on a trace that can be read, this reads on and warns.

mod convert;
mod extra;
mod graph;
mod options;
mod params;
mod plugins;
mod query;
mod run;
mod sinks;
mod usage;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use self::graph::{ClassName, Graph, check_log_level};
use self::options::{Item, Reader, Spec, flag, value};
use crate::complaint;

const GENERAL: &[Spec] = &[
    flag("debug", Some('d')),
    flag("help", Some('h')),
    value("log-level", Some('l')),
    flag("omit-home-plugin-path", None),
    flag("omit-system-plugin-path", None),
    value("plugin-path", None),
    flag("verbose", Some('v')),
    flag("version", Some('V')),
];

/// Runs the program with the arguments after its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let arguments: Vec<String> = arguments.iter().map(|text| text.to_string_lossy().into_owned()).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if complaint::is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ERROR: {}", complaint::in_words(&error));
            if let Some(sillage_pipeline::Error::Metadata { source, .. }) = error.downcast_ref() {
                eprintln!("{}", source.with_source());
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    if arguments.is_empty() {
        print!("{}\n{}", version(), usage::GENERAL);
        return Ok(());
    }
    let mut kept = Vec::new();
    let mut reader = Reader::new(GENERAL, arguments);
    // An option that is not a general one belongs to `convert`, which is then meant.
    while let Some(next) = reader.peek().filter(|next| next.starts_with('-') && next.len() > 1) {
        if !reader.knows(next) {
            break;
        }
        match reader.next()? {
            Some(Item::Option("help", _)) => {
                print!("{}", usage::GENERAL);
                return Ok(());
            }
            Some(Item::Option("version", _)) => {
                print!("{}", version());
                return Ok(());
            }
            Some(Item::Option("log-level", level)) => check_log_level(&level)?,
            Some(Item::Option("verbose", _)) => kept.push("--verbose".to_owned()),
            _ => {}
        }
    }
    let rest = reader.rest();
    match rest.split_first() {
        Some((command, rest)) => match command.as_str() {
            "convert" => convert_command(&[kept, rest.to_vec()].concat()),
            "run" => run_command(rest),
            "query" => query_command(rest),
            "list-plugins" => {
                if let Some(only) = only_arguments(rest, 0, usage::LIST_PLUGINS)? {
                    let _ = only;
                    print!("{}", plugins::list());
                }
                Ok(())
            }
            "help" => {
                if let Some(only) = only_arguments(rest, 1, usage::HELP)? {
                    print!("{}", plugins::help(&only[0])?);
                }
                Ok(())
            }
            _ => convert_command(&[kept, vec![command.clone()], rest.to_vec()].concat()),
        },
        None => convert_command(&kept),
    }
}

fn version() -> String {
    format!("Babeltrace 2.0.4 (Sillage {})\n", env!("CARGO_PKG_VERSION"))
}

/// The arguments of a command without options of its own; `None` after its help was printed.
fn only_arguments(arguments: &[String], count: usize, usage: &str) -> Result<Option<Vec<String>>> {
    const SPECS: &[Spec] = &[flag("help", Some('h'))];
    let mut reader = Reader::new(SPECS, arguments);
    let mut found = Vec::new();
    while let Some(item) = reader.next()? {
        match item {
            Item::Option(..) => {
                print!("{usage}");
                return Ok(None);
            }
            Item::Argument(text) => found.push(text),
        }
    }
    if found.len() != count {
        bail!("expected {count} arguments, found {}\n{usage}", found.len());
    }
    Ok(Some(found))
}

fn convert_command(arguments: &[String]) -> Result<()> {
    match convert::parse(arguments)? {
        convert::Request::Help => print!("{}{}", usage::CONVERT, usage::PARAMS),
        convert::Request::Print(arguments, convert::Quoting::Shell) => {
            print!("{}", convert::shell_line(&arguments));
        }
        convert::Request::Print(arguments, convert::Quoting::Nul) => print!("{}", arguments.join("\0")),
        convert::Request::Metadata(path) => print!("{}", query::metadata_text(Path::new(&path))?.0),
        convert::Request::Run { arguments, stream_intersection } => {
            let mut graph = Graph::parse(&arguments)?;
            graph.stream_intersection = stream_intersection;
            if !extra::list_sessions(&graph)? {
                run::run(&graph)?;
            }
        }
    }
    Ok(())
}

fn run_command(arguments: &[String]) -> Result<()> {
    if arguments.is_empty() {
        print!("{}{}", usage::RUN, usage::PARAMS);
        return Ok(());
    }
    let graph = Graph::parse(arguments)?;
    if graph.help {
        print!("{}{}", usage::RUN, usage::PARAMS);
        return Ok(());
    }
    run::run(&graph)
}

fn query_command(arguments: &[String]) -> Result<()> {
    const SPECS: &[Spec] =
        &[flag("help", Some('h')), value("params", Some('p')), value("log-level", Some('l'))];
    let mut reader = Reader::new(SPECS, arguments);
    let mut found = Vec::new();
    let mut given = params::Params::new();
    while let Some(item) = reader.next()? {
        match item {
            Item::Option("help", _) => {
                print!("{}{}", usage::QUERY, usage::PARAMS);
                return Ok(());
            }
            Item::Option("params", text) => params::extend(&mut given, params::parse(&text)?),
            Item::Option(..) => {}
            Item::Argument(text) => found.push(text),
        }
    }
    let [class, object] = found.as_slice() else {
        bail!("expected TYPE.PLUGIN.CLASS and OBJECT\n{}", usage::QUERY);
    };
    let class = ClassName::parse(class)?;
    plugins::check(&class)?;
    print!("{}", params::show(&query::query(&class, object, given)?));
    Ok(())
}

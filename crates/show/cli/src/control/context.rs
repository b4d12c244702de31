//! Context fields: what every record of a channel says of who made it.

use super::channel::DomainChoice;
use super::{Context, ERROR, FINE, Outcome, WARNING, error};
use clap::Args;
use sillage_control::ListedEvents;

const DOMAINS: &str = "--kernel/--userspace/--jul/--log4j/--python";

/// `add-context -k -t TYPE [-t TYPE]... | --list`
#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    domain: DomainChoice,
    /// A context field; may be given several times.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Name of the channel; without one the fields join all channels of the domain.
    #[arg(short, long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// List the fields that there are.
    #[arg(short, long)]
    list: bool,
}

pub fn add(context: &Context, arguments: &Add) -> Outcome {
    if arguments.list {
        return list(context);
    }
    if arguments.types.is_empty() {
        error!("Missing mandatory -t TYPE");
        return ERROR;
    }
    let Some(domain) = arguments.domain.get(DOMAINS) else { return ERROR };
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut outcome = FINE;
    for name in &arguments.types {
        let channel = arguments.channel.as_deref();
        let added =
            context.client().and_then(|mut client| client.add_context(&session, domain, channel, name));
        let word = domain.word();
        match (added, channel) {
            (Ok(()), Some(channel)) => {
                context.say(format_args!("{word} context {name} added to channel {channel}"));
            }
            (Ok(()), None) => context.say(format_args!("{word} context {name} added to all channels")),
            (Err(error), _) => {
                error!("{name}: {error}");
                outcome = WARNING;
            }
        }
    }
    outcome
}

fn list(context: &Context) -> Outcome {
    match context.client().and_then(|mut client| client.kernel_events(ListedEvents::Contexts)) {
        Ok(contexts) => {
            contexts.iter().for_each(|context| println!("{}", context.name));
            FINE
        }
        Err(error) => {
            error!("{error}");
            ERROR
        }
    }
}

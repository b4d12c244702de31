//! Inclusion sets: whose events a session records.

use super::{Context, ERROR, FINE, Outcome, error, is, warning};
use clap::{ArgAction, Args};
use sillage_control::ErrorCode;
use sillage_model::{Domain, Named, ProcessAttribute, Tracked};

/// What an option without a value has: no argument can be this.
const NO_VALUE: &str = "\0";

/// `track|untrack -k|-u (--pid|--vpid|--uid|--vuid|--gid|--vgid)[=VALUE[,VALUE]...]... [--all]`
#[derive(Args)]
pub struct Arguments {
    /// User-space tracing.
    #[arg(short, long)]
    userspace: bool,
    /// Kernel tracing.
    #[arg(short, long)]
    kernel: bool,
    /// Name of the session; without one it is the current one.
    #[arg(short, long, value_name = "SESSION")]
    session: Option<String>,
    /// Processes, by their numbers in the machine's first PID namespace (kernel).
    #[arg(short, long, value_name = "PID", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    pid: Vec<String>,
    /// Processes, by their numbers as they see themselves.
    #[arg(long, value_name = "VPID", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    vpid: Vec<String>,
    /// Users by number or name (kernel).
    #[arg(long, value_name = "USER", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    uid: Vec<String>,
    /// Users by number or name, as programs see themselves.
    #[arg(long, value_name = "VUSER", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    vuid: Vec<String>,
    /// Groups by number or name (kernel).
    #[arg(long, value_name = "GROUP", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    gid: Vec<String>,
    /// Groups by number or name, as programs see themselves.
    #[arg(long, value_name = "VGROUP", num_args = 0..=1, default_missing_value = NO_VALUE, action = ArgAction::Append)]
    vgid: Vec<String>,
    /// All values of the attributes that are given without any.
    #[arg(short, long)]
    all: bool,
}

/// A value as LTTng shows it: names stand between backquotes.
pub fn quoted(value: &Tracked) -> String {
    match value {
        Tracked::Id(id) => id.to_string(),
        Tracked::Name(name) => format!("`{name}`"),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

impl Arguments {
    fn domain(&self) -> Option<Domain> {
        match (self.kernel, self.userspace) {
            (true, false) => return Some(Domain::Kernel),
            (false, true) => return Some(Domain::User),
            (true, true) => error!("Only one domain must be specified."),
            (false, false) => error!("Please specify a domain (--kernel/--userspace)."),
        }
        None
    }

    /// What was given, attribute by attribute; says what makes no sense.
    fn sets(&self, domain: Domain) -> Option<Vec<(ProcessAttribute, Vec<&str>)>> {
        let given = [
            // LTTng's first releases had no other word for the processes of users.
            (if domain == Domain::User { ProcessAttribute::Vpid } else { ProcessAttribute::Pid }, &self.pid),
            (ProcessAttribute::Vpid, &self.vpid),
            (ProcessAttribute::Uid, &self.uid),
            (ProcessAttribute::Vuid, &self.vuid),
            (ProcessAttribute::Gid, &self.gid),
            (ProcessAttribute::Vgid, &self.vgid),
        ];
        let mut sets = Vec::new();
        for (attribute, texts) in given.into_iter().filter(|(_, texts)| !texts.is_empty()) {
            let words = attribute.words();
            if domain == Domain::User && matches!(attribute, ProcessAttribute::Uid | ProcessAttribute::Gid) {
                error!("The {words} process attribute cannot be tracked in the user space domain.");
                return None;
            }
            let values: Vec<&str> =
                texts.iter().map(String::as_str).filter(|text| *text != NO_VALUE).collect();
            if self.all && !values.is_empty() {
                error!("The --all option cannot be used with a list of process attribute values");
                return None;
            }
            if !self.all && values.is_empty() {
                error!("No process attribute value specified for {} tracker", capital(words));
                return None;
            }
            sets.push((attribute, values));
        }
        if sets.is_empty() {
            error!("At least one process attribute must be specified");
            return None;
        }
        Some(sets)
    }
}

/// A value as it was given.
fn value(attribute: ProcessAttribute, text: &str) -> Option<Tracked> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match number {
        Ok(number) => Some(Tracked::Id(number)),
        Err(_) if attribute.named().is_some() => Some(Tracked::Name(text.into())),
        Err(_) => None,
    }
}

pub fn change(context: &Context, arguments: &Arguments, include: bool) -> Outcome {
    let Some(domain) = arguments.domain() else { return ERROR };
    let Some(sets) = arguments.sets(domain) else { return ERROR };
    let Some(session) = context.session(arguments.session.as_deref()) else { return ERROR };
    let mut client = match context.client() {
        Ok(client) => client,
        Err(error) => {
            error!("{error}");
            return ERROR;
        }
    };
    for (attribute, texts) in sets {
        let words = attribute.words();
        let values: Vec<&str> =
            texts.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()).collect();
        if arguments.all {
            if let Err(error) = client.track(&session, domain, attribute, None, include) {
                error!("{error}");
                return ERROR;
            }
            let policy = if include { "include all" } else { "exclude all" };
            context.say(format_args!("{} tracking policy set to `{policy}`", capital(words)));
        }
        for text in values {
            let Some(value) = value(attribute, text) else {
                error!("{text} is not a valid {words} value; expected an integer");
                return ERROR;
            };
            let shown = quoted(&value);
            match client.track(&session, domain, attribute, Some(value), include) {
                Ok(()) if include => {
                    context.say(format_args!("Added {text} to the {words} tracker inclusion set"));
                }
                Ok(()) => context.say(format_args!("Removed {text} from the {words} tracker inclusion set")),
                Err(error) if is(&error, ErrorCode::AttributeExists) => {
                    warning!("{shown} is already in the {words} inclusion set");
                }
                Err(error) if is(&error, ErrorCode::AttributeMissing) => {
                    warning!("{shown} is not in the {words} the inclusion set");
                }
                Err(error) => {
                    match attribute.named() {
                        Some(Named::User) if is(&error, ErrorCode::NoUser) => {
                            error!("User `{text}` was not found");
                        }
                        Some(Named::Group) if is(&error, ErrorCode::NoGroup) => {
                            error!("Group `{text}` was not found");
                        }
                        _ if is(&error, ErrorCode::NoSession) => {
                            error!("Recording session does not exist");
                        }
                        _ => error!("{error}"),
                    }
                    return ERROR;
                }
            }
        }
    }
    FINE
}

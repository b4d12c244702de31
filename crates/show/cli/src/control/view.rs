//! Where the trace of a session is, for the verb that shows it (`view`, in `read`).

use super::{Context, General, error};
use std::path::PathBuf;

/// Where a trace is: that of the session of this name (without a name, of the current session), or
/// else the name itself when it is a directory. What has a `/` is a path or a URL at once: names of
/// sessions have none. Says what is wrong if there is nothing.
pub fn place(general: &General, named: Option<&str>) -> Option<PathBuf> {
    if let Some(text) = named.filter(|text| text.contains('/')) {
        return Some(text.into());
    }
    let context = Context::new(general)?;
    let session = context.session(named)?;
    let sessions = context.client().and_then(|mut client| client.sessions());
    let known = sessions.map(|list| list.into_iter().find(|info| info.name == session));
    let directory = || named.map(PathBuf::from).filter(|path| path.is_dir());
    match known {
        Ok(Some(info)) => Some(info.output.into()),
        Ok(None) => directory().or_else(|| {
            println!("Session name {session} not found");
            None
        }),
        Err(error) => directory().or_else(|| {
            error!("{error}");
            None
        }),
    }
}

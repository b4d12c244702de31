//! Live sessions by their address, for people: a session that is not there is an error that lists
//! those that are, and Ctrl-C is an end, not a failure.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use sillage_pipeline::ctf::MetadataOptions;
use sillage_pipeline::sources::live::{
    Live, LiveOptions, LiveUrl, Seek, SessionNotFound, Target, list_sessions,
};

/// Whether text is meant as an address.
pub fn is_address(text: &str) -> bool {
    text.contains("://")
}

/// The messages of a session.
///
/// # Errors
/// An address that is none, a relay that can not be reached or does not have the session.
pub fn open(text: &str, seek: Seek, metadata: MetadataOptions) -> Result<Live> {
    let url = LiveUrl::parse(text)?;
    let mut options =
        LiveOptions { session_not_found: SessionNotFound::End, seek, metadata, ..LiveOptions::default() };
    let known: Vec<Target> = list_sessions(&url, &options)?
        .into_iter()
        .map(|session| Target { hostname: session.hostname, session: session.name })
        .collect();
    match &url.target {
        None => bail!("{url} is a relay, not a session{}", choice(&url, &known)),
        Some(target) if !known.contains(target) => {
            bail!("{url}: the relay has no such session{}", choice(&url, &known))
        }
        Some(_) => {}
    }
    // Only now, so that Ctrl-C ends a program that can not reach its relay.
    options.interrupted = crate::interrupt::flag().context("signals")?;
    Ok(Live::connect(&url, options)?)
}

/// The sessions that could be meant.
fn choice(relay: &LiveUrl, known: &[Target]) -> String {
    if known.is_empty() {
        return "; it has none at all now".into();
    }
    let mut text = String::from("; it has:");
    for target in known {
        let url = LiveUrl { target: Some(target.clone()), ..relay.clone() };
        // Writing to text does not fail.
        let _ = write!(text, "\n  {url}");
    }
    text
}

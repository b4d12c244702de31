//! Addresses of relays and their sessions: `net://HOST[:PORT][/host/TARGET/SESSION]`.

use std::fmt;

use sillage_protocol::live::DEFAULT_PORT;

use crate::Error;

/// Which addresses a host name may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `net`
    Any,
    /// `net4`
    V4,
    /// `net6`
    V6,
}

/// A session on a relay: the host that is traced and the session's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name of the traced machine.
    pub hostname: String,
    /// Name of the session.
    pub session: String,
}

/// An address of a relay, perhaps with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveUrl {
    /// Which addresses of the host.
    pub family: Family,
    /// Host of the relay; IPv6 addresses without brackets.
    pub host: String,
    /// Port of its live viewers' side.
    pub port: u16,
    /// The session; none means only the relay.
    pub target: Option<Target>,
}

impl LiveUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// Anything that is not of the form above, in words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::Other(format!("`{text}`: {why} (expected net://HOST[:PORT]/host/TARGET/SESSION)"))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("no `://`"))?;
        let family = match scheme {
            "net" => Family::Any,
            "net4" => Family::V4,
            "net6" => Family::V6,
            _ => return Err(bad("unknown scheme")),
        };
        let (relay, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_port(relay).ok_or_else(|| bad("bad port"))?;
        if host.is_empty() {
            return Err(bad("no host"));
        }
        let target = match path.trim_end_matches('/') {
            "" => None,
            path => Some(Self::target(path).ok_or_else(|| bad("bad session"))?),
        };
        Ok(Self { family, host: host.to_owned(), port, target })
    }

    fn target(path: &str) -> Option<Target> {
        let rest = path.strip_prefix("host/")?;
        let (hostname, session) = rest.split_once('/')?;
        let named = !hostname.is_empty() && !session.is_empty();
        named.then(|| Target { hostname: decoded(hostname), session: decoded(session) })
    }
}

impl fmt::Display for LiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.family {
            Family::Any => "net",
            Family::V4 => "net4",
            Family::V6 => "net6",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        }
        match &self.target {
            Some(target) => write!(f, "/host/{}/{}", target.hostname, target.session),
            None => Ok(()),
        }
    }
}

fn split_port(relay: &str) -> Option<(&str, u16)> {
    if let Some(rest) = relay.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => after.is_empty().then_some((host, DEFAULT_PORT)),
        };
    }
    match relay.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok().filter(|port| *port > 0)?)),
        None => Some((relay, DEFAULT_PORT)),
    }
}

/// `%XX` as the byte that it stands for; anything else stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, want: &str| {
            let got = LiveUrl::parse(text).map_or_else(|e| e.to_string(), |url| url.to_string());
            assert!(got.contains(want), "{got}");
        };
        check("net://h", "net://h:5344");
        check("net://h:1/", "net://h:1");
        check("net4://h:1/host/t/s", "net4://h:1/host/t/s");
        check("net6://[::1]:7/host/t/a%20b", "net6://[::1]:7/host/t/a b");
        check("net://[::1]", "net://[::1]:5344");
        check("net://h/host/t/s%zz", "/s%zz");
        check("file://h", "unknown scheme");
        check("net://h:x", "bad port");
        check("net://h/host/t", "bad session");
        check("net://", "no host");
        check("h/host/t/s", "no `://`");
    }
}

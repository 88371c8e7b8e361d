//! The settings of `[limits]`, and of the proxies that are believed; with the files that networks are listed in.
//!
//! Refuses to know: what is done with them.

use std::path::{Path, PathBuf};

use super::{convert::seconds, layers::Layers};
use crate::{
    http::{ForwardedHeader, LISTING_WEIGHT},
    limits::{Lists, Networks, Settings},
};

/// A longer list of networks is refused: it is read again and again.
pub const NETWORKS_FILE_MAX_BYTES: usize = 4 << 20;

const ALLOW_FILE: &str = "limits.allow_networks_file";

/// An allow list that has become empty must not let everybody in.
pub const NOBODY: &str = "it names none, so nobody could come; leave the key out to let everybody come";

/// The lists of networks: those of the configuration, and the files with more of them.
#[derive(Clone, Debug, Default)]
pub struct NetworkFiles {
    /// Without what is in the files.
    pub fixed: Lists,
    /// Where, and what was in it.
    pub allow: Option<(PathBuf, Networks)>,
    pub deny: Option<(PathBuf, Networks)>,
}

/// `None` only after a mistake was noted.
pub(super) fn limits(layers: &mut Layers<'_>) -> Option<(Settings, NetworkFiles)> {
    let fixed =
        Lists { allow: networks(layers, "limits.allow_networks")?, deny: networks(layers, "limits.deny_networks")? };
    let (allow, deny) = (file(layers, ALLOW_FILE), file(layers, "limits.deny_networks_file"));
    let number = |path| layers.number(path) as u32;
    let settings = Settings {
        lists: fixed.clone(),
        exempt: Networks::default(),
        connections_per_ip_max: number("limits.connections_per_ip_max"),
        connections_per_user_max: number("limits.connections_per_user_max"),
        connections_per_link_max: number("limits.connections_per_link_max"),
        handshakes_per_minute_per_ip: number("limits.handshakes_per_minute_per_ip"),
        handshakes_per_minute_per_user: number("limits.handshakes_per_minute_per_user"),
        failed_authentications_per_minute_per_ip: number("limits.failed_authentications_per_minute_per_ip"),
        ban: seconds(layers, "limits.ban_seconds"),
        events_per_minute_per_token: number("limits.events_per_minute_per_token"),
        requests_per_minute_per_ip: number("limits.requests_per_minute_per_ip"),
        requests_per_minute_per_user: number("limits.requests_per_minute_per_user"),
        unread_lists_per_ip_max: number("limits.unread_lists_per_ip_max"),
        unread_lists_per_user_max: number("limits.unread_lists_per_user_max"),
        keys_max: layers.number("limits.keys_max") as usize,
    };
    let request_max = layers.number("http.events_per_request_max");
    let events = u64::from(settings.events_per_minute_per_token);
    if events > 0 && events < request_max {
        let expected = format!("0, or no less than http.events_per_request_max ({request_max})");
        layers.refuse("limits.events_per_minute_per_token", expected);
    }
    for key in ["limits.requests_per_minute_per_ip", "limits.requests_per_minute_per_user"] {
        if (1..u64::from(LISTING_WEIGHT)).contains(&layers.number(key)) {
            layers
                .refuse(key, format!("0, or no less than {LISTING_WEIGHT}, which is what a list of tasks counts for"));
        }
    }
    let (allow, deny) = (allow?, deny?);
    let with = |fixed: &Networks, file: &Option<(PathBuf, Networks)>| {
        file.as_ref().map_or(fixed.clone(), |(_, networks)| fixed.and(networks))
    };
    let lists = Lists { allow: with(&fixed.allow, &allow), deny: with(&fixed.deny, &deny) };
    let exempt = networks(layers, "limits.exempt_networks")?;
    Some((Settings { lists, exempt, ..settings }, NetworkFiles { fixed, allow, deny }))
}

/// The file of this key, if there is one. `None` only after a mistake was noted.
#[expect(clippy::option_option, reason = "the outer one is the convention of this module")]
fn file(layers: &mut Layers<'_>, key: &'static str) -> Option<Option<(PathBuf, Networks)>> {
    let Some(path) = layers.text(key).map(PathBuf::from) else { return Some(None) };
    match (layers.sources.read)(&path).map_err(|error| error.to_string()).and_then(|bytes| parse_networks(&bytes)) {
        Ok(networks) if networks.is_empty() && key == ALLOW_FILE => {
            layers.refuse(key, format!("a file with a network in each line ({NOBODY})"));
            None
        }
        Ok(networks) => Some(Some((path, networks))),
        Err(why) => {
            layers.refuse(key, format!("a file with a network in each line ({why})"));
            None
        }
    }
}

/// Reads such a file.
///
/// # Errors
/// What is wrong with it, in words for the operator.
pub fn read_networks(path: &Path) -> Result<Networks, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    parse_networks(&bytes)
}

fn parse_networks(bytes: &[u8]) -> Result<Networks, String> {
    if bytes.len() > NETWORKS_FILE_MAX_BYTES {
        return Err(format!("{} bytes, more than {NETWORKS_FILE_MAX_BYTES}", bytes.len()));
    }
    Networks::read(std::str::from_utf8(bytes).map_err(|_| "no UTF-8 text".to_owned())?)
}

/// `None` only after a mistake was noted.
fn networks(layers: &mut Layers<'_>, key: &'static str) -> Option<Networks> {
    let texts = layers.list(key);
    match Networks::parse(texts.iter().map(String::as_str)) {
        Ok(networks) => Some(networks),
        Err(why) => {
            layers.refuse(key, format!("networks such as 10.0.0.0/8 or 2001:db8::/32; {why}"));
            None
        }
    }
}

/// Who is believed, where it says for whom it comes, and whether in the PROXY protocol. `None` only after a mistake was
/// noted.
pub(super) fn proxies(layers: &mut Layers<'_>) -> Option<(Networks, ForwardedHeader, bool)> {
    let trusted = networks(layers, "http.trusted_proxies")?;
    let header = match layers.text("http.forwarded_header")?.as_str() {
        "forwarded" => ForwardedHeader::Forwarded,
        _ => ForwardedHeader::XForwardedFor,
    };
    let proxy_protocol = layers.boolean("http.proxy_protocol");
    if proxy_protocol && trusted.is_empty() {
        layers.refuse("http.proxy_protocol", "http.trusted_proxies beside it, which says who may speak it");
    }
    Some((trusted, header, proxy_protocol))
}

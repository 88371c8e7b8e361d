//! `taskcast token`: a token on stdout, for development or for a link to share.

use std::time::Duration;

use super::{Failure, arguments, print};
use crate::{
    auth::{self, JwtSettings, NewToken},
    clock, config,
    proto::UserId,
};

#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Arguments {
    #[command(flatten)]
    common: arguments::Common,
    /// Whose token it is. A token for a link to share needs nobody.
    #[arg(long)]
    user: Option<String>,
    /// May watch this task and nothing else, unless more is named; may be repeated.
    #[arg(long, value_name = "TASK_ID")]
    task: Vec<String>,
    /// May watch this task and its children; may be repeated.
    #[arg(long, value_name = "ROOT_ID")]
    group: Vec<String>,
    /// own, all, task:<id>, root:<id> or tag:<name>; may be repeated. Default: own for a user, nothing without one.
    #[arg(long)]
    watch: Vec<String>,
    /// May do nothing but watch. So it is without --publish, --cancel and --revoke too; this makes sure.
    #[arg(long, conflicts_with_all = ["publish", "cancel", "revoke"])]
    read_only: bool,
    /// May publish events over HTTP.
    #[arg(long)]
    publish: bool,
    /// May ask to cancel what it may watch.
    #[arg(long)]
    cancel: bool,
    /// May revoke tokens over HTTP, everybody's.
    #[arg(long)]
    revoke: bool,
    /// Whose token it is, of several issuers: its `iss`. Default: the one whose secret is here.
    #[arg(long)]
    issuer: Option<String>,
    /// Its `jti`, by which it can be revoked. Default: a new one.
    #[arg(long, value_name = "ID", value_parser = token_id)]
    id: Option<String>,
    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = arguments::duration)]
    expires: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let settings = config::load_auth(&arguments::sources(&arguments.common))?;
    let settings = issuer(settings, arguments.issuer.as_deref())?;
    let user = arguments.user.as_deref().map(UserId::parse).transpose().map_err(|why| format!("--user {why}"))?;
    let token = NewToken {
        watch: watch(arguments, user.is_some()),
        user,
        publish: arguments.publish,
        cancel: arguments.cancel,
        revoke: arguments.revoke,
        id: Some(arguments.id.clone().unwrap_or_else(|| clock::unique_id().to_string())),
        lifetime: arguments.expires,
    };
    print(&format!("{}\n", auth::mint(&settings, &token, clock::now().unix_ms)?));
    Ok(0)
}

/// Whose secret it is signed with.
fn issuer(settings: auth::Settings, wanted: Option<&str>) -> Result<JwtSettings, String> {
    let mut issuers = match settings {
        auth::Settings::None { .. } => {
            return Err("auth.mode is \"none\": no token is needed, nor looked at".to_owned());
        }
        auth::Settings::Introspection(settings) => {
            return Err(format!(
                "auth.mode is \"introspection\": a token is whatever the provider at {} says is one, so only that \
                 provider can make one",
                settings.url
            ));
        }
        auth::Settings::Jwt(settings) => vec![*settings],
        auth::Settings::Issuers(issuers) => issuers,
    };
    let names: Vec<String> = issuers.iter().flat_map(|one| one.issuer.iter().cloned()).collect();
    if let Some(wanted) = wanted {
        issuers.retain(|one| one.issuer.iter().any(|name| name == wanted));
        let Some(mut issuer) = issuers.pop() else {
            let configured = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!(
                "no token of the issuer `{wanted}` would be taken; those configured are: {configured}"
            ));
        };
        issuer.issuer = vec![wanted.to_owned()];
        return Ok(issuer);
    }
    if !issuers.iter().any(can_sign) {
        return issuers.pop().ok_or_else(|| "no issuer is configured".to_owned());
    }
    issuers.retain(can_sign);
    // A nameless one is [auth] itself, which nobody could name.
    let own = issuers.iter().position(|one| one.issuer.is_empty());
    if own.is_none() && issuers.len() > 1 {
        let of = issuers.iter().filter_map(|one| one.issuer.first()).map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(format!(
            "the secrets of several issuers are here; say whose token it is: --issuer with one of {of}"
        ));
    }
    Ok(issuers.swap_remove(own.unwrap_or(0)))
}

fn can_sign(issuer: &JwtSettings) -> bool {
    issuer.key.signing_secret().is_some()
}

/// What it may watch: what is named, and a user who names nothing their own.
fn watch(arguments: &Arguments, has_user: bool) -> Vec<String> {
    let tasks = arguments.task.iter().map(|id| format!("task:{id}"));
    let groups = arguments.group.iter().map(|id| format!("root:{id}"));
    let named: Vec<String> = tasks.chain(groups).chain(arguments.watch.iter().cloned()).collect();
    if named.is_empty() && has_user { vec!["own".to_owned()] } else { named }
}

fn token_id(text: &str) -> Result<String, String> {
    let longest = crate::proto::TOKEN_ID_MAX_BYTES;
    if (1..=longest).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("an id of 1 to {longest} bytes"))
}

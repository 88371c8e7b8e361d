//! `taskcast token`: a token on stdout, for development or for a link to share.

use std::time::Duration;

use super::{Failure, arguments, print};
use crate::{
    auth::{self, NewToken},
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
    /// Its `jti`, by which it can be revoked. Default: a new one.
    #[arg(long, value_name = "ID", value_parser = token_id)]
    id: Option<String>,
    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = arguments::duration)]
    expires: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let auth::Settings::Jwt(settings) = config::load_auth(&arguments::sources(&arguments.common))? else {
        return Err(Failure::Other("auth.mode is \"none\": no token is needed, nor looked at".to_owned()));
    };
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

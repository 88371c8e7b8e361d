//! `taskcast token`: a development token on stdout.

use std::time::Duration;

use super::{Failure, arguments, print};
use crate::{
    auth::{self, NewToken},
    clock, config,
    proto::UserId,
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: arguments::Common,
    /// Whose token it is.
    #[arg(long)]
    user: Option<String>,
    /// own, all, task:<id>, root:<id> or tag:<name>; may be repeated. Default: own for a user, nothing without one.
    #[arg(long)]
    watch: Vec<String>,
    /// May publish events over HTTP.
    #[arg(long)]
    publish: bool,
    /// May ask to cancel what it may watch.
    #[arg(long)]
    cancel: bool,
    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = arguments::duration)]
    expires: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let auth::Settings::Jwt(settings) = config::load_auth(&arguments::sources(&arguments.common))? else {
        return Err(Failure::Other("auth.mode is \"none\": no token is needed, nor looked at".to_owned()));
    };
    let user = arguments.user.as_deref().map(UserId::parse).transpose().map_err(|why| format!("--user {why}"))?;
    let watch = match &arguments.watch[..] {
        [] if user.is_some() => vec!["own".to_owned()],
        given => given.to_vec(),
    };
    let (publish, cancel, lifetime) = (arguments.publish, arguments.cancel, arguments.expires);
    let token = auth::mint(&settings, &NewToken { user, watch, publish, cancel, lifetime }, clock::now().unix_ms)?;
    print(&format!("{token}\n"));
    Ok(0)
}

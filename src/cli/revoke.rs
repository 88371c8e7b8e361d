//! `taskcast revoke`: appends a revocation to the configured log, and prints where it stands in it.

use serde_json::{Map, Value};

use super::{Failure, arguments, print, publish::publisher};
use crate::{clock, proto::Revocation};

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["jti", "user"])))]
pub(super) struct Arguments {
    #[command(flatten)]
    common: arguments::Common,
    /// The one token with this `jti`.
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// The tokens of this user that were issued so far.
    #[arg(long)]
    user: Option<String>,
    /// Only those of the user's tokens that were issued before this moment: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "MOMENT", conflicts_with = "jti")]
    issued_before: Option<String>,
    /// When the last of these tokens expires, if that is known: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let revocation = revocation(arguments, clock::now().unix_ms)?;
    let publisher = publisher(&arguments.common, "revoke with POST /api/v1/revocations")?;
    let position = publisher.revoke(&revocation).await.map_err(|error| error.detail)?;
    print(&position.map_or("confirmed\n".to_owned(), |position| format!("{position}\n")));
    Ok(0)
}

/// What is asked for, unless it would do nothing.
fn revocation(arguments: &Arguments, now_ms: u64) -> Result<Revocation, String> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    put("jti", arguments.jti.clone().map(Value::from));
    put("user_id", arguments.user.clone().map(Value::from));
    put("issued_before", arguments.issued_before.as_deref().map(moment));
    put("expires_at", arguments.expires_at.as_deref().map(moment));
    let revocation = Revocation::from_json(Value::Object(object).to_string().as_bytes());
    revocation.and_then(|revocation| revocation.dated(now_ms)).map_err(|error| error.to_string())
}

/// A number, or a text that is no number.
fn moment(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

//! `taskcast demo`: the service on loopback with a log in memory, a secret made for this run, and simulated workers.
//! Ignores files and the environment: a demo must never write into the log that a `TASKCAST_LOG` happens to name.

mod story;
mod workers;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};

use super::{Failure, arguments, print, serve};
use crate::{
    app::App,
    auth::{self, NewToken},
    clock,
    config::{Config, Loaded},
    lifecycle::Lifecycle,
    proto::UserId,
};

/// Whose tasks the workers work on.
const USER: &str = "demo";

/// Long enough for a page that is left open.
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Where the page and the API are.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6161")]
    listen: String,
    /// Where probes and metrics are.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6162")]
    operations_listen: String,
    /// How much is logged: a level or a filter.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: String,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let secret = random_secret();
    let flags = [
        ("--listen", "listen", arguments.listen.as_str()),
        ("--operations-listen", "operations_listen", &arguments.operations_listen),
        ("--log-level", "log_level", &arguments.log_level),
        ("(demo)", "log.url", "memory"),
        ("(demo)", "auth.secret", &secret),
        ("(demo)", "auth.cookie", "taskcast_token"),
        ("(demo)", "drain_seconds", "1"),
        // The page shows what goes on, not a quarter of an hour of what ended.
        ("(demo)", "tasks.retain_ended_seconds", "60"),
    ];
    let flags = flags.into_iter().map(|(name, key, value)| arguments::flag(name, key, value)).collect();
    let mut loaded = Config::load(&arguments::sources_of_flags_only(flags))?;
    // About what the operator did not choose.
    loaded.warnings.clear();
    let token = page_token(&loaded)?;
    loaded.config.http.page_token = Some(token.clone());
    // The page gives its token to whoever asks for it by a name of this machine; by others only if that was asked for.
    loaded.config.http.local_hosts_only = loaded.config.listen.ip().is_loopback();
    check_free(loaded.config.listen, "--listen")?;
    check_free(loaded.config.operations_listen, "--operations-listen")?;
    let app = serve::start(loaded).await?;
    let lifecycle = Lifecycle::start().map_err(|error| format!("signals cannot be listened to: {error}"))?;
    print(&greeting(&app, &token));
    let stop = lifecycle.stop;
    let workers = tokio::spawn(workers::run(app.publisher(), stop.clone()));
    let outcome = app.run(stop.clone()).await;
    stop.cancel();
    // What a simulated worker does at the end concerns nobody.
    let _ = workers.await;
    outcome?;
    Ok(0)
}

/// 222 random bits; three time-ordered identifiers hold 74 each.
fn random_secret() -> String {
    (0..3).map(|_| clock::unique_id().simple().to_string()).collect()
}

/// The token that the page gets.
fn page_token(loaded: &Loaded) -> Result<String, Failure> {
    let auth::Settings::Jwt(settings) = &loaded.config.auth else {
        return Err(Failure::Other("the demo's own settings check no tokens".to_owned()));
    };
    let user = UserId::parse(USER).map_err(|why| format!("the demo's user {why}"))?;
    let (user, watch) = (Some(user), vec!["own".to_owned()]);
    let token = NewToken { user, watch, publish: true, cancel: true, lifetime: TOKEN_LIFETIME, ..NewToken::default() };
    Ok(auth::mint(settings, &token, clock::now().unix_ms)?)
}

/// Says plainly that a port is taken, and what to do.
fn check_free(address: SocketAddr, flag: &str) -> Result<(), Failure> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let other = SocketAddr::new(address.ip(), address.port().checked_add(1000).unwrap_or(0));
            let port = address.port();
            Err(Failure::Other(format!(
                "port {port} is taken: another program listens on {address}. Stop it, or choose another port: \
                 taskcast demo {flag} {other}"
            )))
        }
        Err(error) => Err(Failure::Other(format!("cannot listen on {address} ({flag}): {error}"))),
    }
}

fn greeting(app: &App, token: &str) -> String {
    let (public, operations) = (host(app.address()), host(app.operations_address()));
    format!(
        "taskcast demo: simulated workers, a log in memory.\n\n  \
         Open      http://{public}/\n  \
         Metrics   http://{operations}/metrics\n\
         \nA token of user {USER} that may watch, publish and cancel:\n\n  TOKEN={token}\n\n\
         Publish a task of your own, and see it on the page:\n\n  \
         curl http://{public}/api/v1/events -H \"Authorization: Bearer $TOKEN\" \\\n       \
         -H 'Content-Type: application/json' -d '{{\"task_id\":\"hello\",\"user_id\":\"{USER}\",\"title\":\"My first task\",\"progress\":40}}'\n\n\
         Watch as a program does:\n\n  \
         websocat \"ws://{public}/ws/tasks/?token=$TOKEN\"\n\n\
         Ctrl-C ends it.\n"
    )
}

/// How a browser on this machine calls an address.
fn host(address: SocketAddr) -> String {
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    if is_here(address.ip()) { format!("localhost:{}", address.port()) } else { address.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_the_flag_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let Err(Failure::Other(text)) = check_free(address, "--listen") else { panic!("it was free") };
        assert!(text.contains(&format!("port {} is taken", address.port())) && text.contains("--listen"), "{text}");
    }
}

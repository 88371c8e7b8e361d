//! What an error of Redis means: in words that tell the operator what to do, and for whoever may try again. Redis never
//! repeats a password in its errors. Refuses to know: connections.

use redis::{ErrorKind, RedisError};

use crate::log::health::Trouble;

/// Redis' codes, each with the name that the library shows it by inside of a transaction.
const CODES: [(&str, &str); 18] = [
    ("DENIED", "DENIED"),
    ("NOAUTH", "NOAUTH"),
    ("WRONGPASS", "WRONGPASS"),
    ("NOPERM", "NoPerm"),
    ("WRONGTYPE", "WRONGTYPE"),
    ("OOM", "OOM"),
    ("MISCONF", "MISCONF"),
    ("READONLY", "ReadOnly"),
    ("LOADING", "BusyLoading"),
    ("MASTERDOWN", "MasterDown"),
    ("BUSY", "BUSY"),
    ("NOREPLICAS", "NOREPLICAS"),
    ("UNBLOCKED", "UNBLOCKED"),
    ("TRYAGAIN", "TryAgain"),
    ("MOVED", "Moved"),
    ("ASK", "Ask"),
    ("CLUSTERDOWN", "ClusterDown"),
    ("CROSSSLOT", "CrossSlot"),
];

/// Redis' code of a refusal; `""` when the error is not one of those that mean something here.
pub(super) fn code(error: &RedisError) -> &'static str {
    let text = match error.code() {
        // A refused transaction shows what it was refused for in its words only.
        Some("EXECABORT") | None if !error.is_io_error() => error.to_string(),
        Some(code) => code.to_owned(),
        None => return "",
    };
    let said = |word: &&str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == *word);
    let found = CODES.iter().find(|(code, name)| said(code) || said(name));
    found.map_or("", |(code, _)| code)
}

/// What a user must be allowed beside the log's key.
const RIGHTS: &str = "+@stream +@connection +@transaction +type +info +role +time +wait";

/// The same for what is kept beside the log: checkpoints and dead letters.
const RIGHTS_BESIDE: &str = "+set +unlink +rename +lindex +lrange +lpush +rpush +persist +pexpire +memory|usage";

/// What it means for the operator when it comes of a command about what is kept beside the log, under keys of its own.
pub(super) fn trouble_beside(address: &str, key: &str, error: &RedisError) -> Trouble {
    match code(error) {
        "NOPERM" => no_right(address, &format!("~{key}* {RIGHTS} {RIGHTS_BESIDE}"), error),
        _ => trouble(address, key, error),
    }
}

fn no_right(address: &str, rights: &str, error: &RedisError) -> Trouble {
    Trouble::Misfit(format!(
        "Redis at {address} refuses a command that the log needs; allow its user `{rights}` (ACL SETUSER): {error}"
    ))
}

/// What it means for the operator.
pub(super) fn trouble(address: &str, key: &str, error: &RedisError) -> Trouble {
    let at = format!("Redis at {address}");
    let lost = |words: &str| Trouble::Lost(format!("{at} {words}"));
    let misfit = |words: String| Trouble::Misfit(format!("{at} {words}"));
    match code(error) {
        "NOPERM" => no_right(address, &format!("~{key} {RIGHTS}"), error),
        "NOAUTH" | "WRONGPASS" => misfit(refused(error)),
        _ if error.kind() == ErrorKind::AuthenticationFailed => misfit(refused(error)),
        "WRONGTYPE" => Trouble::Misfit(format!(
            "key {key} at {address} holds something else, not a stream; rename it or choose another log key"
        )),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => cluster(address),
        "OOM" => lost(
            "is out of memory (OOM) and takes no more events: raise its maxmemory, lower log.max_events, or choose an \
             eviction policy that spares the stream",
        ),
        "MISCONF" => lost(
            "refuses writes (MISCONF) since it cannot save to its disk: make room or put the disk right (its log names the \
             error; CONFIG SET stop-writes-on-bgsave-error no lets it go on without saving)",
        ),
        "READONLY" => lost("is a replica (READONLY), which takes no events: give the log the address of the primary"),
        "UNBLOCKED" => lost("has just become a replica"),
        "LOADING" => lost("is loading its data and will serve when that is done"),
        "MASTERDOWN" => lost("is a replica that has lost its primary and may not serve old data"),
        "BUSY" => lost("is busy with a script and answers nobody; SCRIPT KILL ends one that has written nothing"),
        "NOREPLICAS" => {
            lost("has fewer replicas in reach than its min-replicas-to-write asks for, and takes no events")
        }
        "DENIED" => protected(address),
        _ if error.to_string().contains(FULL) => full(address),
        _ => Trouble::Lost(format!("{at}: {error}")),
    }
}

/// What Redis says to whom it has no room for, without a code of its own.
const FULL: &str = "max number of clients";

/// What it means that Redis said `words` to somebody who had asked nothing yet; `None` for other words.
pub(super) fn turned_away(address: &str, words: &str) -> Option<Trouble> {
    if words.starts_with("-DENIED") {
        return Some(protected(address));
    }
    (words.starts_with("-ERR") && words.contains(FULL)).then(|| full(address))
}

fn protected(address: &str) -> Trouble {
    Trouble::Misfit(format!(
        "Redis at {address} is in protected mode, and speaks to its own machine only: give it a password (requirepass, and in the \
         log's URL), or an address that only trusted machines reach (bind, then protected-mode no)"
    ))
}

fn full(address: &str) -> Trouble {
    Trouble::Lost(format!("Redis at {address} has no room for another connection: raise its maxclients, or close some"))
}

fn refused(error: &RedisError) -> String {
    format!("refuses the user or password in the log's URL; correct the URL, or the user (ACL SETUSER): {error}")
}

/// One stream lives on one node whatever the cluster's size, so a cluster would add nothing but its redirections.
pub(super) fn cluster(address: &str) -> Trouble {
    Trouble::Misfit(format!(
        "Redis at {address} is a node of a Redis Cluster, which taskcast does not use: the log is one stream. Give it a \
         Redis of its own (cluster-enabled no), with replicas and Sentinel if it must survive a machine: \
         redis+sentinel://host:26379,host:26379/name-of-the-primary"
    ))
}

/// Redis has not executed the command, and may take it in a moment.
pub(super) fn passes(error: &RedisError) -> bool {
    matches!(code(error), "READONLY" | "LOADING" | "MASTERDOWN" | "BUSY" | "NOREPLICAS" | "TRYAGAIN")
}

/// Redis has answered: it has executed nothing of what it was sent.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    !error.is_io_error() && error.kind() != ErrorKind::Parse && error.kind() != ErrorKind::UnexpectedReturnType
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_unasked_is_told_with_what_to_do() {
        let told = |words| turned_away("log:6379", words).map(|trouble| trouble.words().to_owned());
        let denied = told("-DENIED Redis is running in protected mode because protected mode is enabled").unwrap();
        assert!(
            denied.contains("Redis at log:6379 is in protected mode") && denied.contains("requirepass"),
            "{denied}"
        );
        let full = told("-ERR max number of clients reached").unwrap();
        assert!(full.contains("maxclients"), "{full}");
        assert_eq!(told("+OK"), None);
        assert_eq!(told(""), None);
    }
}

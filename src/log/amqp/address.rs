//! Where the broker is: one address, or several nodes of one cluster in one URL,
//! `amqp://user:password@one:5672,two:5672/vhost`. Owns the reading of that URL. Refuses to know: how to connect.

use lapin::uri::{AMQPScheme, AMQPUri};

/// Nodes of one cluster; more are a mistake.
const NODES_MAX: usize = 16;
/// Unless the URL says otherwise. It is for the broker, which forgets a replica that vanished after about two of them;
/// the reader notices a silent broker sooner, by its pulse.
const HEARTBEAT_SECONDS: u16 = 10;

/// The URL of each node: everything but the host and its port is common to all.
///
/// # Errors
/// Why the list cannot be used; holds nothing of the URL.
pub fn addresses(url: &str) -> Result<Vec<String>, String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(vec![url.to_owned()]) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // The last one: an `@` of a password that was not escaped stands before it.
    let hosts_at = authority.rfind('@').map_or(0, |at| at + 1);
    let (credentials, hosts) = authority.split_at(hosts_at);
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    if hosts.len() > NODES_MAX {
        return Err(format!("it names {} hosts; {NODES_MAX} are the most", hosts.len()));
    }
    if let Some(index) = (1..hosts.len()).find(|&index| hosts[..index].contains(&hosts[index])) {
        return Err(format!("its host {} is named twice", index + 1));
    }
    Ok(hosts.iter().map(|host| format!("{scheme}://{credentials}{host}{tail}")).collect())
}

/// One node of the broker.
#[derive(Debug)]
pub(super) struct Node {
    pub uri: AMQPUri,
    /// For people: no credentials.
    pub address: String,
}

/// Reads the URL. No path and a bare slash both mean the vhost `/`, as most clients have it.
pub(super) fn nodes(url: &str) -> Result<Vec<Node>, String> {
    let unusable = |why: &str| format!("the AMQP URL cannot be used: {why}");
    let addresses = addresses(url).map_err(|why| unusable(&why))?;
    let several = addresses.len() > 1;
    let read = |(index, address): (usize, &String)| {
        node(address).map_err(|why| unusable(&if several { format!("host {}: {why}", index + 1) } else { why }))
    };
    addresses.iter().enumerate().map(read).collect()
}

fn node(url: &str) -> Result<Node, String> {
    let parsed = url::Url::parse(url).map_err(|error| error.to_string())?;
    // The library's error would repeat the URL, which holds a password.
    let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    let mut uri: AMQPUri = url.parse()?;
    // The library reads an IPv6 address as "localhost".
    host.trim_matches(['[', ']']).clone_into(&mut uri.authority.host);
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let address = format!("{}:{} (vhost {})", uri.authority.host, uri.authority.port, uri.vhost);
    Ok(Node { uri, address })
}

impl Node {
    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(url: &str) -> AMQPUri {
        let mut nodes = nodes(url).unwrap();
        assert_eq!(nodes.len(), 1);
        nodes.remove(0).uri
    }

    #[test]
    fn no_path_and_a_bare_slash_mean_the_default_vhost() {
        assert_eq!(one("amqp://localhost").vhost, "/");
        assert_eq!(one("amqp://localhost/").vhost, "/");
        assert_eq!(one("amqp://localhost/%2f").vhost, "/");
        assert_eq!(one("amqp://localhost/jobs").vhost, "jobs");
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        assert_eq!(one("amqp://u:p@[::1]:5673").authority.host, "::1");
    }

    #[test]
    fn a_heartbeat_in_the_url_wins_over_the_default() {
        assert_eq!(one("amqp://localhost").query.heartbeat, Some(HEARTBEAT_SECONDS));
        assert_eq!(one("amqp://localhost?heartbeat=3").query.heartbeat, Some(3));
    }

    #[test]
    fn several_hosts_share_user_password_vhost_and_options() {
        let nodes = nodes("amqps://u:p%2Cw@one:5671,two,[::1]:7/jobs?heartbeat=3").unwrap();
        let places: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(places, ["one:5671 (vhost jobs)", "two:5671 (vhost jobs)", "::1:7 (vhost jobs)"]);
        for Node { uri, .. } in &nodes {
            assert_eq!((uri.authority.userinfo.username.as_str(), uri.query.heartbeat), ("u", Some(3)));
            assert_eq!(uri.authority.userinfo.password, "p,w");
        }
        assert!(nodes.iter().all(Node::is_encrypted));
    }

    #[test]
    fn a_mistake_in_the_url_is_said_without_the_password() {
        let many = format!("amqp://u:hunter2@{}/", (0..17).map(|n| format!("h{n}")).collect::<Vec<_>>().join(","));
        for url in [
            "amqp:u:hunter2@x",
            "http://u:hunter2@x",
            "amqp://u:hunter2@:1",
            "amqp://u:hunter2@x:99999",
            "amqp://u:hunter2@x,:1/",
            "amqp://u:hunter2@x,",
            "amqp://u:hunter2@x:1,y:z",
            "amqp://u:hunter2@x:1,y:2,x:1",
            many.as_str(),
        ] {
            let said = nodes(url).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(nodes("amqp://u:hunter2@x:1,y:z").unwrap_err().contains("host 2"));
    }
}

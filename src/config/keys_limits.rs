//! The part of the table of everything that can be configured that says who may come and how much they may send: `[limits]`,
//! and what goes with it in `[sessions]` and `[http]`.
//!
//! Refuses to know: what the settings do.

use super::keys::{HOUR_MS, Key, Kind, number, set, unset, with_example};

/// The library counts in 32 bits, and so many a minute are as good as no limit.
const PER_MINUTE_MAX: u64 = 1 << 30;

const NETWORKS_EXAMPLE: &str = "192.0.2.0/24,2001:db8::/32";

pub(super) static LIMITS: &[Key] = &[
    number(
        "sessions.messages_per_minute",
        0,
        "1200",
        PER_MINUTE_MAX,
        "Messages, pings and pongs of one connection: so many at once, and per minute. Then it is closed with 1008. 0: no \
         limit.",
    ),
    number(
        "sessions.bytes_per_minute",
        0,
        "8388608",
        PER_MINUTE_MAX,
        "Bytes from one connection, likewise; at least as many as sessions.message_max_bytes. 0: no limit.",
    ),
    with_example(
        set(
            "http.trusted_proxies",
            Kind::List,
            "",
            "Networks of reverse proxies, which are believed for whom they come. Without them all clients of a proxy have \
             its address, and share the limits of one.",
        ),
        "10.0.0.0/8",
    ),
    with_example(
        set(
            "http.forwarded_header",
            Kind::Choice(&["x-forwarded-for", "forwarded"]),
            "x-forwarded-for",
            "The header in which trusted proxies say it. The other one is not looked at: anybody may have written it.",
        ),
        "forwarded",
    ),
    set(
        "http.proxy_protocol",
        Kind::Boolean,
        "false",
        "Connections from trusted proxies begin with the PROXY protocol, version 1 or 2; others must not.",
    ),
    number("http.connections_max", 1, "20000", 10_000_000, "Connections at most, WebSockets and others together."),
    number(
        "http.header_timeout_ms",
        10,
        "10000",
        HOUR_MS,
        "How long a new connection may take to bring its first request's headers, and any request its body.",
    ),
    number(
        "http.keep_alive_timeout_ms",
        10,
        "75000",
        HOUR_MS,
        "How long a connection may wait for its next request. More than what a reverse proxy keeps it for (often 60 s).",
    ),
    number("http.body_max_bytes", 1024, "1048576", 1 << 30, "The longest body of a request."),
    number("http.events_per_request_max", 1, "1000", 1_000_000, "Events of one POST /api/v1/events at most."),
    number("http.header_max_bytes", 8192, "65536", 1 << 20, "The longest head of a request, all headers together."),
    // [limits]
    with_example(
        set("limits.allow_networks", Kind::List, "", "Networks that may connect. Empty: all."),
        NETWORKS_EXAMPLE,
    ),
    unset(
        "limits.allow_networks_file",
        Kind::Path,
        "/etc/taskcast/allow.txt",
        "More of them: a network in each line, `#` for comments. It is read again when it changes.",
    ),
    with_example(
        set("limits.deny_networks", Kind::List, "", "Networks that may not connect, allowed or not."),
        NETWORKS_EXAMPLE,
    ),
    unset(
        "limits.deny_networks_file",
        Kind::Path,
        "/etc/taskcast/deny.txt",
        "More of them, in a file that is read again when it changes.",
    ),
    set(
        "limits.exempt_networks",
        Kind::List,
        "127.0.0.0/8,::1/128",
        "Networks that the limits per IP address do not hold for; trusted proxies never are limited themselves.",
    ),
    number(
        "limits.connections_per_ip_max",
        0,
        "1000",
        10_000_000,
        "Connections from one IPv4 address, or one IPv6 network of 64 bits, at most. 0: no limit.",
    ),
    number(
        "limits.connections_per_user_max",
        0,
        "500",
        10_000_000,
        "WebSockets, event streams and requests that wait, of one user at most. Beyond it: 1008, or 429. 0: no limit.",
    ),
    number(
        "limits.connections_per_link_max",
        0,
        "500",
        10_000_000,
        "WebSockets, event streams and requests that wait, with one token that names no user, such as a link to share, at most; its jti \
         tells it from others. Then 1008, or 429. 0: no limit.",
    ),
    number(
        "limits.handshakes_per_minute_per_ip",
        0,
        "6000",
        PER_MINUTE_MAX,
        "Handshakes, and event streams begun, from one address: so many at once, and per minute. Then 429 with Retry-After. 0: no limit.",
    ),
    number(
        "limits.handshakes_per_minute_per_user",
        0,
        "1000",
        PER_MINUTE_MAX,
        "WebSockets and event streams that one user opens: so many at once, and per minute. Then 1008, or 429. 0: no limit.",
    ),
    number(
        "limits.failed_authentications_per_minute_per_ip",
        0,
        "30",
        PER_MINUTE_MAX,
        "Tokens from one address that are no good: so many at once, and per minute. Then the address is banned. 0: no limit.",
    ),
    number(
        "limits.ban_seconds",
        1,
        "300",
        86_400,
        "How long nothing is heard from a banned address: 429 with Retry-After. What it has open stays open.",
    ),
    number(
        "limits.events_per_minute_per_token",
        0,
        "600000",
        PER_MINUTE_MAX,
        "Events published over HTTP with one token: so many at once, and per minute; at least http.events_per_request_max. \
         Then 429 with Retry-After. 0: no limit.",
    ),
    number(
        "limits.requests_per_minute_per_ip",
        0,
        "60000",
        PER_MINUTE_MAX,
        "Requests to /api/v1/ from one address but for events: so many at once, and per minute. A list of tasks, or the frames of a \
         task, counts as ten. Then 429 with Retry-After. 0: no limit.",
    ),
    number(
        "limits.requests_per_minute_per_user",
        0,
        "12000",
        PER_MINUTE_MAX,
        "The same by one user, wherever they are. 0: no limit.",
    ),
    number(
        "limits.unread_lists_per_ip_max",
        0,
        "64",
        10_000_000,
        "Lists of tasks and frames of a task, of 1 MiB at most, that are held because who asked for them from one address has not read them yet. \
         Then 429 with Retry-After. 0: no limit.",
    ),
    number(
        "limits.unread_lists_per_user_max",
        0,
        "8",
        10_000_000,
        "The same of one user, wherever they are, or of one token that names none. 0: no limit.",
    ),
    number(
        "limits.keys_max",
        1_000,
        "65536",
        10_000_000,
        "How many addresses, users or tokens each limit remembers, about 100 bytes each. Beyond it those are forgotten that \
         were silent longest.",
    ),
];

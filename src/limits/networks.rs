//! Networks of addresses: told in text, asked for one address at a time, however many they are.
//!
//! Refuses to know: what being in one means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A set of networks. Both families are kept apart, so that `::/0` is no IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address of each, ascending; none overlaps another.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// IPv4 in IPv6 (RFC 4291 section 2.5.5.2): a socket that listens on both has IPv4 peers under such addresses.
const MAPPED: u128 = 0xffff_0000_0000;
const MAPPED_PREFIX_BITS: u8 = 96;

impl Networks {
    /// Networks such as `10.0.0.0/8` and `2001:db8::/32`, and single addresses.
    ///
    /// # Errors
    /// Which text is none of these.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for text in texts {
            match network(text).ok_or_else(|| format!("`{}` is no network", cut(text)))? {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Ok(Self { v4: joined(v4), v6: joined(v6) })
    }

    /// The content of a file: a network in each line; what follows `#` is for people.
    ///
    /// # Errors
    /// Which line is no network.
    pub fn read(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let numbered = lines.enumerate().filter(|(_, line)| !line.is_empty());
        let wrong = numbered.clone().find(|(_, line)| network(line).is_none());
        if let Some((place, line)) = wrong {
            return Err(format!(
                "line {}: `{}` is no network, such as 10.0.0.0/8 or 2001:db8::/32",
                place + 1,
                cut(line)
            ));
        }
        Self::parse(numbered.map(|(_, line)| line))
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { v4: joined([&*self.v4, &other.v4].concat()), v6: joined([&*self.v6, &other.v6].concat()) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many, without those within others.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// Ascending, and what overlaps made one.
fn joined<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let overlaps = next.0 <= before.1;
        before.1 = if overlaps { before.1.max(next.1) } else { before.1 };
        overlaps
    });
    ranges.shrink_to_fit();
    ranges
}

fn is_in<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|place| ranges.get(place)).is_some_and(|(_, last)| address <= *last)
}

fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(v6) = net else { return Some(net) };
    let bits = v6.network().to_bits();
    if v6.prefix_len() >= MAPPED_PREFIX_BITS && bits >> 32 == MAPPED >> 32 {
        return Ipv4Net::new(Ipv4Addr::from_bits(bits as u32), v6.prefix_len() - MAPPED_PREFIX_BITS)
            .ok()
            .map(IpNet::V4);
    }
    Some(net)
}

/// For a sentence: what a stranger's file holds may be long.
fn cut(text: &str) -> String {
    text.chars().take(60).filter(|character| !character.is_control()).collect()
}

/// Whom limits count as one: an IPv4 address, or the 64 bits of IPv6 that one customer gets at the least.
pub(super) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_a_network_or_it_is_not() {
        for (networks, inside, outside) in [
            (
                &["10.0.0.0/8"][..],
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255"][..],
            ),
            (&["10.1.2.3/8"], &["10.9.9.9"], &["11.1.2.3"]),
            (&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            (&["2001:db8::/32", "::1"], &["2001:db8:ffff::1", "::1"], &["2001:db9::", "::2", "127.0.0.1"]),
            (&["::/0"], &["2001:db8::", "::1"], &["192.0.2.1", "::ffff:192.0.2.1"]),
            (&["0.0.0.0/0"], &["192.0.2.1", "::ffff:192.0.2.1"], &["::1"]),
            (&["::ffff:10.0.0.0/104"], &["10.7.7.7"], &["::a00:0", "11.0.0.1"]),
            (&["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], &["10.1.0.1", "10.200.0.1"], &["11.0.0.1"]),
            (&[], &[], &["10.0.0.1", "::1"]),
        ] {
            let networks = Networks::parse(networks.iter().copied()).unwrap();
            for address in inside {
                assert!(networks.contains(ip(address)), "{address} in {networks:?}");
            }
            for address in outside {
                assert!(!networks.contains(ip(address)), "{address} in {networks:?}");
            }
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in
            ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0 - 10.0.0.9", "fe80::1%eth0", "::/129", "10.0.0.0/-1"]
        {
            assert!(Networks::parse([text]).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn a_file_has_a_network_in_each_line_and_words_for_people() {
        let networks = Networks::read("# ours\r\n10.0.0.0/8 # the office\n\n  2001:db8::/32\n").unwrap();
        assert_eq!(networks.len(), 2);
        assert!(networks.contains(ip("10.0.0.1")));
        assert_eq!(Networks::read("").unwrap(), Networks::default());
        let why = Networks::read("10.0.0.0/8\n# fine\n10.0.0.0/8 and more\n").unwrap_err();
        assert!(why.starts_with("line 3: `10.0.0.0/8 and more`"), "{why}");
        assert!(Networks::read(&"\u{7}x".repeat(1_000)).unwrap_err().len() < 200);
    }

    #[test]
    fn addresses_of_one_network_of_64_bits_are_one_neighbourhood() {
        assert_eq!(neighbourhood(ip("2001:db8:1:2:3:4:5:6")), neighbourhood(ip("2001:db8:1:2:ffff::")));
        assert_ne!(neighbourhood(ip("2001:db8:1:2::1")), neighbourhood(ip("2001:db8:1:3::1")));
        assert_ne!(neighbourhood(ip("192.0.2.1")), neighbourhood(ip("192.0.2.2")));
        assert_eq!(neighbourhood(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    proptest! {
        #[test]
        fn many_networks_answer_as_each_of_them_would(
            nets in prop::collection::vec((any::<u32>(), 20_u8..=32), 0..40),
            addresses in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            // Close together, so that they touch and overlap.
            let nets: Vec<Ipv4Net> =
                nets.iter().map(|(bits, prefix)| Ipv4Net::new(Ipv4Addr::from_bits(bits & 0x3fff), *prefix).unwrap()).collect();
            let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let (some, rest) = texts.split_at(texts.len() / 2);
            let all = Networks::parse(texts.iter().map(String::as_str)).unwrap();
            let joined = Networks::parse(some.iter().map(String::as_str)).unwrap()
                .and(&Networks::parse(rest.iter().map(String::as_str)).unwrap());
            for address in addresses.iter().map(|bits| Ipv4Addr::from_bits(bits & 0x3fff)) {
                let expected = nets.iter().any(|net| net.contains(&address));
                prop_assert_eq!(all.contains(address.into()), expected);
                prop_assert_eq!(joined.contains(address.into()), expected);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f:./#\n ]{0,60}") {
            let _ = Networks::read(&text);
        }
    }
}

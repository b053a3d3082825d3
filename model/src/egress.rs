//! Ways out of the mesh to whoever a request names: how names are looked up and remembered, and which addresses are refused.
//!
//! Pure: who looks up, and when, is told; nothing here waits or asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::cluster::{Address, AddressFamily, NameLookup};

/// How many addresses of a name are kept.
const MOST_ADDRESSES: usize = 64;
/// The longest name (RFC 1035 3.1).
const LONGEST_NAME: usize = 253;
/// The longest that an answer counts.
const LONGEST: Duration = Duration::from_secs(3600);

/// A cluster whose endpoints are the hosts that requests name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Egress {
    /// How names are looked up and remembered.
    pub cache: NameCache,
    /// Networks that may be reached though they are no part of the public Internet.
    pub allowed: Vec<IpNet>,
}

/// How names are looked up and remembered, by all clusters that give it the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameCache {
    /// Its name.
    pub name: String,
    /// Which addresses are asked for, whom, and how soon again after failures.
    pub lookup: NameLookup,
    /// The least time that an answer counts, whatever it says itself.
    pub least: Duration,
    /// How long a name is remembered that nobody asks for.
    pub host_ttl: Duration,
    /// How many names are remembered; the one that was not asked for the longest makes room.
    pub most: u32,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for NameCache {
    /// Envoy's usual values.
    fn default() -> Self {
        Self {
            name: String::new(),
            lookup: NameLookup {
                refresh: Duration::from_secs(60),
                respects_ttl: true,
                ..NameLookup::default()
            },
            least: Duration::from_secs(5),
            host_ttl: Duration::from_secs(300),
            most: 1024,
            timeout: Duration::from_secs(5),
        }
    }
}

impl NameCache {
    /// How long an answer counts that says so much of itself.
    #[must_use]
    pub fn counts(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.least.min(LONGEST), LONGEST)
    }

    /// The addresses of a name in the order in which they are tried: families in turn, the preferred one first (RFC 8305 4).
    #[must_use]
    pub fn ordered(&self, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let (mut first, mut second): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.take(MOST_ADDRESSES).partition(IpAddr::is_ipv6);
        if matches!(
            self.lookup.family,
            AddressFamily::V4First | AddressFamily::V4
        ) {
            std::mem::swap(&mut first, &mut second);
        }
        let length = first.len().max(second.len());
        let mut all = Vec::with_capacity(first.len() + second.len());
        for place in 0..length {
            all.extend(first.get(place));
            all.extend(second.get(place));
        }
        all.dedup();
        all
    }
}

impl Egress {
    /// Whether an address may be reached: one of the public Internet, or one that is allowed by itself. Names that lead into this
    /// host or its network (DNS rebinding) end here.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|own| own.contains(&address))
    }
}

/// Where a request for this host goes, with this port where it names none; nothing where it names no host.
#[must_use]
pub fn destination(authority: &str, port: u16) -> Option<Address> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Some(Address::Socket(address));
    }
    let inner = authority
        .strip_prefix('[')
        .and_then(|own| own.strip_suffix(']'));
    if let Ok(address) = inner.unwrap_or(authority).parse::<IpAddr>() {
        return Some(Address::Socket(SocketAddr::new(address, port)));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (authority, port),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        (1..=63).contains(&label.len())
            && bytes.all(|own| own.is_ascii_alphanumeric() || own == b'-' || own == b'_')
    };
    // A last label of digits is an address in a form that only some readers take for one.
    let is_number =
        |label: &str| label.bytes().all(|own| own.is_ascii_digit()) || label.starts_with("0x");
    let is_name = host.len() <= LONGEST_NAME
        && host.split('.').all(is_label)
        && !host.rsplit('.').next().is_some_and(is_number);
    is_name.then(|| Address::Name(host.to_ascii_lowercase(), port))
}

/// Whether an address is one of the public Internet (IANA's registries of special-purpose addresses).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(own) => is_public_v4(own),
        IpAddr::V6(own) => is_public_v6(own),
    }
}

fn is_public_v4(own: Ipv4Addr) -> bool {
    let [first, second, third, _] = own.octets();
    !(own.is_private()
        || own.is_loopback()
        || own.is_link_local()
        || own.is_documentation()
        || matches!(
            (first, second, third),
            (0 | 224..=255, ..) | (100, 64..=127, _) | (198, 18..=19, _) | (192, 0, 0)
        ))
}

fn is_public_v6(own: Ipv6Addr) -> bool {
    let parts = own.segments();
    let [.., high, low] = parts;
    let inner = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        // Networks that carry an IPv4 address go where that does: NAT64 (RFC 6052), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(inner(high, low)),
        [0x2002, high, low, ..] => is_public_v4(inner(high, low)),
        // Teredo, benchmarks, documentation.
        [0x2001, 0 | 0x2 | 0xdb8, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // All that is given out as global unicast.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn names_that_lead_inside_are_refused() {
        let egress = Egress::default();
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!egress.allows(ip(inside)), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(egress.allows(ip(outside)), "{outside}");
        }
        let egress = Egress {
            allowed: vec!["10.1.0.0/16".parse().expect("a network")],
            ..Egress::default()
        };
        assert!(egress.allows(ip("10.1.2.3")) && egress.allows(ip("::ffff:10.1.2.3")));
        assert!(!egress.allows(ip("10.2.0.1")));
    }

    #[test]
    fn families_take_turns() {
        let mut cache = NameCache::default();
        let all = || {
            ["1.1.1.1", "1.1.1.2", "1.1.1.3", "2606::1"]
                .map(ip)
                .into_iter()
        };
        let texts = |own: Vec<IpAddr>| own.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(cache.ordered(all())),
            ["2606::1", "1.1.1.1", "1.1.1.2", "1.1.1.3"]
        );
        cache.lookup.family = AddressFamily::V4First;
        assert_eq!(
            texts(cache.ordered(all())),
            ["1.1.1.1", "2606::1", "1.1.1.2", "1.1.1.3"]
        );
        let many = (0..5000u32).map(|own| IpAddr::from(own.to_be_bytes()));
        assert_eq!(cache.ordered(many).len(), MOST_ADDRESSES);
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let name = |host: &str, port| Some(Address::Name(host.to_owned(), port));
        assert_eq!(destination("Shop.Example", 443), name("shop.example", 443));
        assert_eq!(
            destination("shop.example.:8443", 443),
            name("shop.example", 8443)
        );
        assert_eq!(
            destination("[2606::1]", 80),
            Some(Address::Socket("[2606::1]:80".parse().expect("an address")))
        );
        assert_eq!(
            destination("1.2.3.4:5", 80),
            Some(Address::Socket("1.2.3.4:5".parse().expect("an address")))
        );
        for none in [
            "",
            ".",
            "a..b",
            "a b",
            "a:0",
            "a:70000",
            "a:b:c",
            "user@host",
            "127.1",
            "2130706433",
            "a/b",
            "0x7f000001",
            "[::1",
            "é.example",
        ] {
            assert_eq!(destination(none, 80), None, "{none}");
        }
        assert_eq!(destination(&"a.".repeat(200), 80), None);
    }

    #[test]
    fn an_answer_counts_within_bounds() {
        let cache = NameCache::default();
        let seconds = Duration::from_secs;
        assert_eq!(cache.counts(seconds(0)), seconds(5));
        assert_eq!(cache.counts(seconds(30)), seconds(30));
        assert_eq!(cache.counts(seconds(1 << 31)), LONGEST);
    }
}

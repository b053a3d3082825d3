//! Brings a pod's connections to its proxy: rules for nftables, in a table of their own, put in place at once.
//!
//! Why a program does this: it is done once, before the application starts, with rights that neither the application nor the
//! proxy has. The rules are text for `nft`, the kernel's own tool for them. Who does it is an init container, or
//! [`crate::cni`]; whether it was done, [`verify()`] finds out without any right.

mod nft;
mod verify;

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

pub use nft::{Nft, apply, in_force};
pub use verify::{NOT_CAPTURED, VerifyError, verify};

/// The table; nobody else's rules are touched.
const TABLE: &str = "inet fairlead";

/// What is captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// Where connections of the pod's own go; nothing: they are left alone.
    pub outbound: Option<u16>,
    /// Where connections to the pod go; nothing: they are left alone.
    pub inbound: Option<u16>,
    /// Users whose connections are left alone; the proxy's is one.
    pub exempt: Vec<u32>,
    /// Destination ports of the pod's own connections that are left alone.
    pub skip_outbound: Vec<Ports>,
    /// Ports of the pod that are left alone.
    pub skip_inbound: Vec<Ports>,
    /// Networks to which connections are left alone.
    pub skip_networks: Vec<IpNet>,
}

/// One port, or all from one to another: `25` or `8000-8100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Why nothing was captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// `nft` could not be run.
    #[error("failed to run {program}: {source}")]
    Run {
        /// Which program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It refused.
    #[error("{program} refused the rules: {said}")]
    Refused {
        /// Which program.
        program: String,
        /// What it said.
        said: String,
    },
}

/// What of a text says nothing, by the name of its field.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WrongField {
    field: &'static str,
    problem: String,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| match part.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!(
                "{text:?} is no port; 1 to 65535 or a range such as 8000-8100 is allowed"
            )),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

impl Ports {
    /// Whether a port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// The names of what is captured, as JSON has them.
const FIELDS: [&str; 6] = [
    "outbound",
    "inbound",
    "exempt",
    "skipOutbound",
    "skipInbound",
    "skipNetworks",
];

impl Capture {
    /// What is captured, of JSON such as
    /// `{"outbound":15001,"inbound":15006,"exempt":[2102],"skipOutbound":["25"],"skipInbound":[],"skipNetworks":["10.0.0.0/8"]}`.
    ///
    /// # Errors
    /// Names the field that says nothing, or that is not known.
    pub fn parse(text: &str) -> Result<Self, WrongField> {
        let wrong = |field, problem| WrongField { field, problem };
        let read: Result<Value, _> = serde_json::from_str(text);
        let read = read.map_err(|error| wrong("capture", format!("found no JSON: {error}")))?;
        let Value::Object(fields) = read else {
            return Err(wrong(
                "capture",
                format!("found {read}, an object is allowed"),
            ));
        };
        if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let problem = format!("found {name:?}, and {} are known", FIELDS.join(", "));
            return Err(wrong("capture", problem));
        }
        let capture = Self {
            outbound: port(&fields, "outbound")?,
            inbound: port(&fields, "inbound")?,
            exempt: list(&fields, "exempt", |one| {
                let number = one.as_u64().and_then(|own| u32::try_from(own).ok());
                number.ok_or_else(|| format!("found {one}, the number of a user is allowed"))
            })?,
            skip_outbound: list(&fields, "skipOutbound", ports)?,
            skip_inbound: list(&fields, "skipInbound", ports)?,
            skip_networks: list(&fields, "skipNetworks", |one| {
                let network = one.as_str().and_then(|own| own.parse().ok());
                network
                    .ok_or_else(|| format!("found {one}, a network such as 10.0.0.0/8 is allowed"))
            })?,
        };
        if capture.exempt.is_empty() {
            let problem = "found nobody; the proxy's user, at least, is needed".to_owned();
            return Err(wrong("exempt", problem));
        }
        if capture.outbound.is_none() && capture.inbound.is_none() {
            let problem = "found neither this nor inbound, and there is nothing to capture";
            return Err(wrong("outbound", problem.to_owned()));
        }
        Ok(capture)
    }

    /// The rules, as `nft --file` reads them: the table is replaced in one step.
    #[must_use]
    pub fn rules(&self) -> String {
        let mut rules = removal();
        let _ = writeln!(rules, "table {TABLE} {{");
        if let Some(port) = self.outbound {
            rules.push_str(
                "  chain outbound {\n    type nat hook output priority -100; policy accept;\n",
            );
            if !self.exempt.is_empty() {
                let _ = writeln!(rules, "    meta skuid {} return", set(&self.exempt));
            }
            // What a pod says to itself stays within it.
            rules.push_str("    oifname \"lo\" return\n    fib daddr type local return\n");
            let (v4, v6): (Vec<_>, Vec<_>) = self
                .skip_networks
                .iter()
                .map(IpNet::trunc)
                .partition(|network| matches!(network, IpNet::V4(_)));
            for (family, networks) in [("ip", v4), ("ip6", v6)] {
                if !networks.is_empty() {
                    let _ = writeln!(rules, "    {family} daddr {} return", set(&networks));
                }
            }
            skip(&mut rules, &self.skip_outbound);
            let _ = writeln!(rules, "    meta l4proto tcp redirect to :{port}\n  }}");
        }
        if let Some(port) = self.inbound {
            rules.push_str(
                "  chain inbound {\n    type nat hook prerouting priority -100; policy accept;\n",
            );
            rules.push_str("    iifname \"lo\" return\n");
            skip(&mut rules, &self.skip_inbound);
            let _ = writeln!(
                rules,
                "    fib daddr type local meta l4proto tcp redirect to :{port}\n  }}"
            );
        }
        rules.push_str("}\n");
        rules
    }
}

/// Rules that leave nothing captured, whether something was or not.
#[must_use]
pub fn removal() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

fn port(
    fields: &serde_json::Map<String, Value>,
    field: &'static str,
) -> Result<Option<u16>, WrongField> {
    let Some(value) = fields.get(field) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|own| u16::try_from(own).ok());
    let allowed = number.filter(|number| *number > 0).map(Some);
    allowed.ok_or_else(|| WrongField {
        field,
        problem: format!("found {value}, 1 to 65535 are allowed"),
    })
}

fn list<T>(
    fields: &serde_json::Map<String, Value>,
    field: &'static str,
    one: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, WrongField> {
    let wrong = |problem| WrongField { field, problem };
    match fields.get(field) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(|own| one(own).map_err(wrong)).collect(),
        Some(other) => Err(wrong(format!("found {other}, a list is allowed"))),
    }
}

fn ports(value: &Value) -> Result<Ports, String> {
    match value.as_str() {
        Some(text) => text.parse(),
        None => Err(format!(
            "found {value}, a text such as \"25\" or \"8000-8100\" is allowed"
        )),
    }
}

fn skip(rules: &mut String, ports: &[Ports]) {
    if !ports.is_empty() {
        let _ = writeln!(rules, "    tcp dport {} return", set(ports));
    }
}

/// A set without names; parts that overlap are refused by nft, so each is there once.
fn set<T: ToString>(parts: &[T]) -> String {
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        for (text, shown) in [("25", "25"), ("8000-8100", "8000-8100"), ("7-7", "7")] {
            let ports: Ports = text.parse().expect("ports");
            assert_eq!(ports.to_string(), shown);
        }
        for text in ["0", "", "70000", "9-8", "a", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_exempt_the_proxy_before_anything_else() {
        let capture = Capture {
            outbound: Some(15001),
            inbound: None,
            exempt: vec![2102],
            skip_outbound: vec!["25".parse().expect("a port")],
            skip_inbound: Vec::new(),
            skip_networks: vec!["10.1.2.3/8".parse().expect("a network")],
        };
        let rules = capture.rules();
        let place = |text: &str| {
            rules
                .find(text)
                .unwrap_or_else(|| panic!("{text} in {rules}"))
        };
        assert!(place("meta skuid { 2102 } return") < place("redirect to :15001"));
        assert!(place("ip daddr { 10.0.0.0/8 } return") < place("redirect to :15001"));
        assert!(place("tcp dport { 25 } return") < place("redirect to :15001"));
        assert!(!rules.contains("prerouting"), "{rules}");
    }

    #[test]
    fn what_is_captured_can_be_said_in_json() {
        let text = r#"{"outbound":15001,"inbound":15006,"exempt":[2102],"skipOutbound":["25"],"skipInbound":["15020","9000-9100"],"skipNetworks":["10.0.0.0/8"]}"#;
        let capture = Capture {
            outbound: Some(15001),
            inbound: Some(15006),
            exempt: vec![2102],
            skip_outbound: vec!["25".parse().expect("a port")],
            skip_inbound: vec![
                "15020".parse().expect("a port"),
                "9000-9100".parse().expect("ports"),
            ],
            skip_networks: vec!["10.0.0.0/8".parse().expect("a network")],
        };
        assert_eq!(Capture::parse(text), Ok(capture));
    }

    #[test]
    fn json_that_says_nothing_is_refused_by_field() {
        for (text, said) in [
            ("yes", "capture: found no JSON"),
            ("[]", "capture: found [], an object is allowed"),
            (
                r#"{"nft":"/tmp/mine"}"#,
                r#"capture: found "nft", and outbound, inbound, exempt, skipOutbound, skipInbound, skipNetworks are known"#,
            ),
            (
                r#"{"outbound":0,"exempt":[1]}"#,
                "outbound: found 0, 1 to 65535 are allowed",
            ),
            (r#"{"outbound":1}"#, "exempt: found nobody"),
            (
                r#"{"exempt":[1]}"#,
                "outbound: found neither this nor inbound",
            ),
            (
                r#"{"outbound":1,"exempt":["root"]}"#,
                "exempt: found \"root\", the number of a user is allowed",
            ),
            (
                r#"{"outbound":1,"exempt":[1],"skipOutbound":["9-1"]}"#,
                "skipOutbound: \"9-1\" ends before it begins",
            ),
            (
                r#"{"outbound":1,"exempt":[1],"skipInbound":[25]}"#,
                "skipInbound: found 25, a text such as",
            ),
            (
                r#"{"outbound":1,"exempt":[1],"skipInbound":"25"}"#,
                "skipInbound: found \"25\", a list is allowed",
            ),
            (
                r#"{"outbound":1,"exempt":[1],"skipNetworks":["here"]}"#,
                "skipNetworks: found \"here\", a network such as 10.0.0.0/8 is allowed",
            ),
        ] {
            let error = Capture::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}

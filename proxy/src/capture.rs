//! Brings a pod's connections to its proxy: rules for nftables, in a table of their own, put in place at once.
//!
//! Why a program does this: it is done once, before the application starts, with rights that neither the application nor the
//! proxy has. The rules are text for `nft`, the kernel's own tool for them.

use std::fmt;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::str::FromStr;

use ipnet::IpNet;

/// The table; nobody else's rules are touched.
const TABLE: &str = "inet fairlead";

/// What is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Capture {
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

/// Hands rules to `nft`; all of them take effect, or none.
///
/// # Errors
/// When the program cannot be run, or refuses, which it does without the right to administer the network (NET_ADMIN).
pub fn apply(program: &Path, rules: &str) -> Result<(), CaptureError> {
    let name = || program.display().to_string();
    let run = || -> io::Result<Output> {
        let mut child = Command::new(program)
            .args(["--file", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|source| CaptureError::Run {
        program: name(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(CaptureError::Refused {
        program: name(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
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
}

//! What endpoints are told of callers, and how much of what callers say of others is believed.
//!
//! Headers such as `x-forwarded-for` are only as true as whoever wrote them. [`Edge`] says who is believed; the functions here
//! are Envoy's rules for each header, on values alone.

use std::net::IpAddr;

use http::HeaderValue;

/// What is done with headers about callers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    /// Whether callers come from outside: what they say of others counts for nothing (`use_remote_address`).
    pub is_first: bool,
    /// How many proxies in front of this one are believed.
    pub trusted_hops: u32,
    /// Whether the caller's address is left out of `x-forwarded-for`.
    pub skip_append: bool,
    /// Whether `x-forwarded-port` is set.
    pub append_port: bool,
    /// How requests get ids; nothing where they get none.
    pub request_id: Option<RequestId>,
    /// What is added to `via`, in requests and answers.
    pub via: Option<HeaderValue>,
    /// What endpoints are told of the caller's certificate.
    pub certificate: CertificateDetails,
}

/// How requests get ids (`x-request-id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestId {
    /// Whether an id from outside stays.
    pub preserve_external: bool,
    /// Whether answers carry it.
    pub in_response: bool,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateMode {
    /// It is removed.
    #[default]
    Sanitize,
    /// It is kept when the caller showed a certificate.
    ForwardOnly,
    /// This caller's is added when it showed one.
    AppendForward,
    /// It is this caller's alone.
    SanitizeSet,
    /// It is kept.
    AlwaysForwardOnly,
}

/// What `x-forwarded-client-cert` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CertificateDetails {
    /// What becomes of it.
    pub mode: CertificateMode,
    /// Whether it names the subject.
    pub subject: bool,
    /// Whether it has the certificate.
    pub certificate: bool,
    /// Whether it has the certificate and those it was shown with.
    pub chain: bool,
    /// Whether it has DNS names.
    pub dns: bool,
    /// Whether it has URIs.
    pub uri: bool,
}

impl Edge {
    /// The caller as far as it can be believed: `forwarded` are the values of `x-forwarded-for` as they came, `direct` is the
    /// other end of the connection (Envoy's rules for `use_remote_address` and `xff_num_trusted_hops`).
    #[must_use]
    pub fn caller<'a>(
        &self,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
        direct: IpAddr,
    ) -> IpAddr {
        if self.is_first && self.trusted_hops == 0 {
            return direct;
        }
        let skipped = if self.is_first {
            self.trusted_hops - 1
        } else {
            self.trusted_hops
        };
        forwarded
            .rev()
            .flat_map(|value| value.rsplit(','))
            .nth(skipped as usize)
            .and_then(|address| address_of(address.trim()))
            .unwrap_or(direct)
    }

    /// Whether what the caller says of the scheme and port counts.
    #[must_use]
    pub fn believes(&self) -> bool {
        !self.is_first || self.trusted_hops > 0
    }
}

/// An address, with or without brackets and a port.
fn address_of(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        text.parse::<std::net::SocketAddr>()
            .map(|address| address.ip())
            .ok()
            .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    })
}

/// A caller's certificate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// The URI in the certificate of this side.
    pub by: Option<&'a str>,
    /// SHA-256 of the certificate in lower case hexadecimal.
    pub hash: &'a str,
    /// The certificate in PEM.
    pub pem: Option<&'a str>,
    /// The same with those it was shown with, in their order.
    pub chain: Option<&'a str>,
    /// The subject.
    pub subject: Option<&'a str>,
    /// URIs.
    pub uris: &'a [String],
    /// DNS names.
    pub dns: &'a [String],
}

impl CertificateDetails {
    /// One element of `x-forwarded-client-cert`.
    #[must_use]
    pub fn element(&self, shown: &Shown<'_>) -> String {
        let mut parts = Vec::new();
        if let Some(by) = shown.by {
            parts.push(format!("By={}", quoted(by)));
        }
        parts.push(format!("Hash={}", shown.hash));
        if let Some(pem) = shown.pem.filter(|_| self.certificate) {
            parts.push(format!("Cert=\"{}\"", encoded(pem)));
        }
        if let Some(chain) = shown.chain.filter(|_| self.chain) {
            parts.push(format!("Chain=\"{}\"", encoded(chain)));
        }
        if let Some(subject) = shown.subject.filter(|_| self.subject) {
            parts.push(format!(
                "Subject=\"{}\"",
                subject.replace('\\', "\\\\").replace('"', "\\\"")
            ));
        }
        if self.uri {
            parts.extend(shown.uris.iter().map(|uri| format!("URI={}", quoted(uri))));
        }
        if self.dns {
            parts.extend(shown.dns.iter().map(|dns| format!("DNS={}", quoted(dns))));
        }
        parts.join(";")
    }
}

/// In quotes where it has what separates parts and elements.
fn quoted(text: &str) -> String {
    if text.contains([',', ';', '=', '"', '\\']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

/// Percent-encoded, but for letters, digits and `-._~`.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A random id of 128 bits as text ([RFC 9562](https://www.rfc-editor.org/rfc/rfc9562), version 4).
#[must_use]
pub fn request_id(random: u128) -> [u8; 36] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let bytes = (random & !(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62).to_be_bytes();
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_believed_by_hops() {
        let direct: IpAddr = "9.9.9.9".parse().expect("an address");
        let caller = |is_first, trusted_hops, forwarded: &[&str]| {
            Edge {
                is_first,
                trusted_hops,
                ..Edge::default()
            }
            .caller(forwarded.iter().copied(), direct)
            .to_string()
        };
        for (is_first, hops, forwarded, expected) in [
            (true, 0, &["1.1.1.1"][..], "9.9.9.9"),
            (true, 1, &["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (true, 2, &["1.1.1.1", "2.2.2.2"], "1.1.1.1"),
            (true, 3, &["1.1.1.1", "2.2.2.2"], "9.9.9.9"),
            (false, 0, &["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (false, 1, &["1.1.1.1, 2.2.2.2"], "1.1.1.1"),
            (false, 2, &["1.1.1.1, 2.2.2.2"], "9.9.9.9"),
            (false, 0, &[], "9.9.9.9"),
            (false, 0, &["unknown"], "9.9.9.9"),
            (false, 0, &["[2001:db8::1]:80"], "2001:db8::1"),
        ] {
            assert_eq!(caller(is_first, hops, forwarded), expected, "{forwarded:?}");
        }
    }

    #[test]
    fn a_certificate_is_told_without_breaking_out() {
        let details = CertificateDetails {
            mode: CertificateMode::SanitizeSet,
            subject: true,
            certificate: true,
            chain: true,
            dns: true,
            uri: true,
        };
        let shown = Shown {
            by: Some("spiffe://a/ns/b/sa/c"),
            hash: "ab",
            pem: Some("-\n"),
            chain: Some("-\n-\n"),
            subject: Some("CN=\"x\",O=y"),
            uris: &["spiffe://a;By=forged".to_owned()],
            dns: &["shop.example".to_owned()],
        };
        assert_eq!(
            details.element(&shown),
            "By=spiffe://a/ns/b/sa/c;Hash=ab;Cert=\"-%0A\";Chain=\"-%0A-%0A\";Subject=\"CN=\\\"x\\\",O=y\";URI=\"spiffe://a;By=forged\";DNS=shop.example"
        );
    }

    #[test]
    fn an_id_is_a_uuid() {
        let id = request_id(u128::MAX);
        assert_eq!(&id, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&request_id(0), b"00000000-0000-4000-8000-000000000000");
    }
}

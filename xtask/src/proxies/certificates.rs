//! An authority and two leaves with SPIFFE ids, made anew for every run.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::place::{FAR_ADDRESS, NEAR_ADDRESS};
use crate::paths::{write, write_secret};

/// One of the two identities.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaf {
    /// The client's side.
    Client,
    /// The server's side; it has names for ordinary clients too.
    Server,
}

/// The file of the authority's certificate.
pub(crate) fn authority(folder: &Path) -> String {
    folder.join("ca.crt").display().to_string()
}

impl Leaf {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// The SPIFFE id.
    pub(crate) fn identity(self) -> String {
        format!("spiffe://bench.fairlead.test/ns/bench/sa/{}", self.name())
    }

    /// The file of the certificate.
    pub(crate) fn certificate(self, folder: &Path) -> String {
        self.file(folder, "crt")
    }

    /// The file of the key.
    pub(crate) fn key(self, folder: &Path) -> String {
        self.file(folder, "key")
    }

    /// One file with both, as HAProxy wants them.
    pub(crate) fn both(self, folder: &Path) -> String {
        self.file(folder, "pem")
    }

    fn file(self, folder: &Path, ending: &str) -> String {
        folder
            .join(format!("{}.{ending}", self.name()))
            .display()
            .to_string()
    }
}

/// Writes all of them into the folder.
pub(crate) fn write_all(folder: &Path) -> Result<()> {
    let key = KeyPair::generate().context("failed to make a key")?;
    let mut params = params("bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .context("failed to sign the authority")?;
    write(Path::new(&authority(folder)), certificate.pem())?;
    let issuer = Issuer::new(params, key);
    for leaf in [Leaf::Client, Leaf::Server] {
        let key = KeyPair::generate().context("failed to make a key")?;
        let certificate = leaf_params(leaf)?
            .signed_by(&key, &issuer)
            .with_context(|| format!("failed to sign {}", leaf.name()))?
            .pem();
        let secret = key.serialize_pem();
        write(Path::new(&leaf.certificate(folder)), &certificate)?;
        write_secret(Path::new(&leaf.key(folder)), &secret)?;
        write_secret(
            Path::new(&leaf.both(folder)),
            format!("{certificate}{secret}"),
        )?;
    }
    Ok(())
}

fn leaf_params(leaf: Leaf) -> Result<CertificateParams> {
    let mut params = params(leaf.name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let identity = leaf.identity().as_str().try_into();
    params.subject_alt_names = vec![
        SanType::URI(identity.context("failed to use the SPIFFE id")?),
        SanType::DnsName("localhost".try_into().context("failed to use a name")?),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(NEAR_ADDRESS.into()),
        SanType::IpAddress(FAR_ADDRESS.into()),
    ];
    Ok(params)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    // An hour back, as clocks of containers and machines differ.
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    params
}

//! The certificate that says who the proxy is: signed by an authority, for a key that never leaves the process but for the folder
//! where it may be kept for the next one, and renewed when half of its life is over. While nobody signs, the one there is stays.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fairlead_model::Snapshot;
use fairlead_model::tls::{Certificate, Peer, Secret, SecretSource, Trust};
use fairlead_xds::identity::{Identity, SIGN, SignRequest, SignResponse};
use fairlead_xds::raw::Raw;
use http::uri::PathAndQuery;
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::connect::{ConnectError, PAUSE, connect, deepest};
use super::file::check_alone;
use super::keep::replace;

/// The name of the file in its folder.
const NAME: &str = "identity.json";
/// How long the authority may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate is not renewed sooner than this.
const LEAST: Duration = Duration::from_secs(1);
/// The most that a proxy waits before it asks a new root for a certificate: not all ask at once.
const SPREAD: Duration = Duration::from_secs(60);
/// The largest answer.
const LARGEST: usize = 1 << 20;
/// The largest token.
const MOST_TOKEN: usize = 16 << 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("failed to read the token {path}: {source}")]
    Token {
        path: String,
        source: std::io::Error,
    },
    #[error("the token {path} is none")]
    NoToken { path: String },
    #[error("failed to make a request: {source}")]
    Request { source: rcgen::Error },
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the authority refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    #[error("the authority did not answer in {PATIENCE:?}")]
    Late,
    #[error("the authority's answer cannot be used: {cause}")]
    Answer { cause: String },
}

/// A certificate, and when its life ends.
struct Signed {
    certificate: Certificate,
    end: SystemTime,
}

/// Who the proxy is, and where its certificate is kept for the next start, where it is.
#[derive(Debug, Clone)]
pub(super) struct Own {
    identity: Identity,
    file: Option<PathBuf>,
}

impl Own {
    pub(super) fn new(identity: Identity, folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(NAME));
        Self { identity, file }
    }

    /// The name of the secret that its certificate is.
    pub(super) fn secret(&self) -> &str {
        &self.identity.secret
    }

    /// The certificate that was kept, where there is one that is still good.
    fn kept(&self) -> Option<Signed> {
        let path = self.file.as_ref()?;
        let read = || {
            let text = match std::fs::read(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.to_string()),
            };
            let kept: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            let text = |name: &str| kept[name].as_str().unwrap_or_default().to_owned();
            let signed = checked(&self.identity, text("chain"), text("key"))?;
            match signed.end > SystemTime::now() {
                true => Ok(Some(signed)),
                false => Err("its life is over".to_owned()),
            }
        };
        read().unwrap_or_else(|cause| {
            tracing::warn!(path = %path.display(), cause, "the certificate that was kept is not used");
            None
        })
    }

    /// Keeps a certificate in the place of the one before: the leaf and what vouches for it, and the key, in PEM.
    fn keep(&self, signed: &Signed) {
        let Some(path) = &self.file else { return };
        let text = |own: &[u8]| String::from_utf8_lossy(own).into_owned();
        let certificate = &signed.certificate;
        let kept = json!({"chain": text(&certificate.chain), "key": text(&certificate.key)});
        if let Err(error) = replace(path, kept.to_string().as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "the certificate is not kept");
        }
    }
}

/// Adds the certificate to what the file says, from the first on that is signed; `in_use` is the whole of the configuration.
pub(super) async fn follow(
    own: Own,
    mut given: watch::Receiver<Arc<Snapshot>>,
    mut in_use: watch::Receiver<Arc<Snapshot>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
) {
    let identity = &own.identity;
    let mut current = own.kept();
    let (mut attempt, mut pause) = (0, PAUSE.0);
    let mut next = Instant::now();
    let mut trust = believed(identity, &given.borrow(), &in_use.borrow_and_update());
    if let Some(signed) = &current {
        tracing::info!(id = %identity.id, "the certificate that was kept is used");
        next += renewal(signed, identity, trust.as_deref());
        publish(identity, current.as_ref(), &mut given, &snapshots);
    }
    loop {
        let is_due = tokio::select! {
            () = tokio::time::sleep_until(next) => true,
            Ok(()) = given.changed() => {
                publish(identity, current.as_ref(), &mut given, &snapshots);
                false
            }
            Ok(()) = in_use.changed() => false,
        };
        let known = believed(identity, &given.borrow(), &in_use.borrow_and_update());
        let is_other = known != trust;
        trust = known;
        if !is_due {
            let old = current.as_ref().filter(|_| is_other);
            if let Some(signed) = old.filter(|own| is_old(own, identity, trust.as_deref())) {
                next = next.min(Instant::now() + renewal(signed, identity, trust.as_deref()));
                tracing::info!(id = %identity.id, "another root signs now; its certificate is asked for");
            }
            continue;
        }
        let snapshot = Arc::clone(&given.borrow());
        let signing = tokio::time::timeout(PATIENCE, sign(identity, &snapshot, attempt));
        match signing.await.unwrap_or(Err(IdentityError::Late)) {
            Ok(signed) => {
                let until = renewal(&signed, identity, trust.as_deref());
                tracing::info!(
                    id = %identity.id,
                    renewed_in_seconds = until.as_secs(),
                    "the authority signed a certificate"
                );
                own.keep(&signed);
                current = Some(signed);
                publish(identity, current.as_ref(), &mut given, &snapshots);
                (next, pause) = (Instant::now() + until, PAUSE.0);
            }
            Err(error) => {
                let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                tracing::warn!(
                    id = %identity.id,
                    %error,
                    seconds = wait.as_secs_f64(),
                    has_certificate = current.is_some(),
                    "no certificate was signed; it is tried again"
                );
                (next, pause) = (Instant::now() + wait, (pause * 2).min(PAUSE.1));
            }
        }
        attempt += 1;
    }
}

fn publish(
    identity: &Identity,
    current: Option<&Signed>,
    given: &mut watch::Receiver<Arc<Snapshot>>,
    snapshots: &watch::Sender<Arc<Snapshot>>,
) {
    let given = Arc::clone(&given.borrow_and_update());
    let Some(signed) = current else {
        snapshots.send_replace(given);
        return;
    };
    let mut next = (*given).clone();
    let secret = Secret::Certificate(Arc::new(signed.certificate.clone()));
    next.secrets.insert(identity.secret.clone(), secret);
    snapshots.send_replace(Arc::new(next));
}

/// Whom to trust: as the control plane says, and as long as it said nothing, by whom the authority is believed.
fn believed(identity: &Identity, given: &Snapshot, in_use: &Snapshot) -> Option<Arc<Trust>> {
    let told = identity.trust.as_ref();
    if let Some(Secret::Trust(told)) = told.and_then(|name| in_use.secrets.get(name)) {
        return Some(Arc::clone(told));
    }
    let tls = given.clusters.get(&*identity.cluster)?.tls.as_ref()?;
    match &tls.common.trust {
        Some(SecretSource::Inline(Secret::Trust(own))) => Some(Arc::clone(own)),
        _ => None,
    }
}

/// Whether another root than the one that vouches for it signs now: the first of those that are trusted for its own name.
fn is_old(signed: &Signed, identity: &Identity, trust: Option<&Trust>) -> bool {
    let Some(trust) = trust else { return false };
    let mut domains = trust.domains.iter();
    let own = domains.find(|(domain, _)| domain == identity.id.trust_domain());
    let roots = own.map_or(&trust.roots, |(_, roots)| roots);
    !crate::tls::leads_to_first(&signed.certificate.chain, roots)
}

/// How long until it is renewed: about half of what is left of its life, or a moment where another root signs now. Not all proxies
/// ask at once.
fn renewal(signed: &Signed, identity: &Identity, trust: Option<&Trust>) -> Duration {
    let left = signed.end.duration_since(SystemTime::now());
    let left = left.unwrap_or_default();
    let wait = match is_old(signed, identity, trust) {
        true => SPREAD.min(left / 4).mul_f64(fastrand::f64()),
        false => (left / 2).mul_f64(0.9 + fastrand::f64() / 10.0),
    };
    wait.max(LEAST)
}

async fn sign(
    identity: &Identity,
    snapshot: &Snapshot,
    attempt: usize,
) -> Result<Signed, IdentityError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
    let key = key.map_err(|source| IdentityError::Request { source })?;
    let request = request(identity, &key).map_err(|source| IdentityError::Request { source })?;
    let mut request = Request::new(Bytes::from(SignRequest { request }.encode_to_vec()));
    request
        .metadata_mut()
        .insert("authorization", bearer(identity)?);
    let channel = connect(snapshot, &identity.cluster, attempt);
    let channel = channel.await.map_err(IdentityError::Connect)?;
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST);
    grpc.ready().await.map_err(|error| IdentityError::Answer {
        cause: deepest(&error),
    })?;
    let answer = grpc
        .unary(request, PathAndQuery::from_static(SIGN), Raw)
        .await
        .map_err(|status| IdentityError::Refused(Box::new(status)))?;
    let answer = SignResponse::decode(answer.into_inner());
    let wrong = |cause: String| IdentityError::Answer { cause };
    let chain = answer.map_err(|error| wrong(error.to_string()))?.chain;
    checked(identity, chain, key.serialize_pem()).map_err(wrong)
}

/// A certificate that is the proxy's own, and has its key.
fn checked(identity: &Identity, chain: String, key: String) -> Result<Signed, String> {
    let end = end(&chain, identity)?;
    let certificate = Certificate {
        chain: chain.into_bytes(),
        key: key.into_bytes(),
    };
    let mut alone = Snapshot::default();
    let secret = Secret::Certificate(Arc::new(certificate.clone()));
    alone.secrets.insert(identity.secret.clone(), secret);
    check_alone(&alone).map_err(|error| error.to_string())?;
    Ok(Signed { certificate, end })
}

/// A request with nothing but the id.
fn request(identity: &Identity, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.id.as_str().try_into()?)];
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn bearer(identity: &Identity) -> Result<AsciiMetadataValue, IdentityError> {
    let path = || identity.token.display().to_string();
    let token = std::fs::read(&identity.token);
    let token = token.map_err(|source| IdentityError::Token {
        path: path(),
        source,
    })?;
    let none = || IdentityError::NoToken { path: path() };
    let text = std::str::from_utf8(&token).map_err(|_| none())?.trim();
    if text.is_empty() || text.len() > MOST_TOKEN {
        return Err(none());
    }
    let mut value: AsciiMetadataValue = format!("Bearer {text}").parse().map_err(|_| none())?;
    value.set_sensitive(true);
    Ok(value)
}

/// When the life of the chain's leaf ends, where it is the proxy's own.
fn end(chain: &str, identity: &Identity) -> Result<SystemTime, String> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes());
    let leaf = leaf.map_err(|error| error.to_string())?;
    match crate::tls::peer(Some(std::slice::from_ref(&leaf))) {
        Peer::Known(own) if own == identity.id => {}
        Peer::Known(other) => return Err(format!("it is for {other}")),
        _ => return Err("it is for nobody with a SPIFFE id".to_owned()),
    }
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|error| error.to_string())?;
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
}

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::Metrics;
use crate::serve::tests::{Identity, ask};
use crate::serve::{Shared, answer_all};

/// Who signs certificates of callers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("it can be signed");
        Self {
            pem: own.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A caller of this common name, with an alternative name.
    fn caller(&self, name: &str, alternative: &str) -> Identity {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = params(name);
        let alternative = alternative.try_into().expect("it is a name");
        params.subject_alt_names.push(SanType::DnsName(alternative));
        let own = params.signed_by(&key, &self.issuer);
        let own = own.expect("it can be signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is one");
        (own.der().clone(), key)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A webhook that asks its callers for a certificate.
struct Guarded {
    folder: std::path::PathBuf,
    door: Arc<Door>,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    serving: JoinHandle<()>,
}

impl Guarded {
    async fn start(test: &str, authority: &Authority, names: &[&str]) -> Self {
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = format!("fairlead-callers-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        crate::tls::tests::write(&folder, "webhook");
        let callers = Callers {
            authorities: folder.join("authorities.crt"),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        std::fs::write(&callers.authorities, &authority.pem).expect("the folder is writable");
        let certificates = Certificates::load(&folder).await;
        let certificates = certificates.expect("the certificate is good");
        let door = Door::load(certificates, Some(callers)).await;
        let door = Arc::new(door.expect("the authority is good"));
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let metrics = Arc::new(Metrics::default());
        let shared = Shared {
            cache: Arc::default(),
            injection: Arc::default(),
            metrics: Arc::clone(&metrics),
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(answer_all(listener, Arc::clone(&door), shared, stop));
        Self {
            folder,
            door,
            address,
            metrics,
            serving,
        }
    }

    /// Whether a caller comes to ask something.
    async fn answers(&self, caller: Option<Identity>) -> bool {
        let answer = ask(self.address, &self.folder.join("tls.crt"), caller).await;
        // No review, which the answer says.
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 422"))
    }

    async fn reload(&self) -> Result<bool, TlsError> {
        let callers = self.door.callers.as_ref().expect("callers are asked");
        self.door.reload(callers).await
    }

    fn write(&self, authorities: &str) {
        std::fs::write(self.folder.join("authorities.crt"), authorities)
            .expect("the folder is writable");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.serving.abort();
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_authorities_is_not_answered() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let guarded = Guarded::start("authorities", &own, &[]).await;
    assert!(guarded.answers(Some(own.caller("anybody", "a"))).await);
    assert!(!guarded.answers(None).await);
    assert!(!guarded.answers(Some(other.caller("anybody", "a"))).await);
    let text = guarded.metrics.encode();
    assert!(
        text.contains("fairlead_admission_refused_callers_total 2\n"),
        "{text}"
    );
}

#[tokio::test]
async fn who_has_another_name_is_not_answered() {
    let own = Authority::new("own");
    let guarded = Guarded::start("names", &own, &["api-server", "api.example"]).await;
    for (name, alternative, is_answered) in [
        ("api-server", "a", true),
        ("anybody", "api.example", true),
        ("anybody", "a", false),
        ("api-server.example", "an.api.example", false),
    ] {
        let caller = Some(own.caller(name, alternative));
        let answered = guarded.answers(caller).await;
        assert_eq!(answered, is_answered, "{name} {alternative}");
    }
}

#[tokio::test]
async fn authorities_that_change_count_at_once_and_broken_ones_do_not() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let guarded = Guarded::start("change", &old, &[]).await;
    let of = |authority: &Authority| Some(authority.caller("api-server", "a"));
    assert!(!guarded.reload().await.expect("nothing changed"));
    guarded.write(&format!("{}{}", old.pem, new.pem));
    assert!(guarded.reload().await.expect("both are good"));
    assert!(guarded.answers(of(&old)).await && guarded.answers(of(&new)).await);
    guarded.write(&new.pem);
    assert!(guarded.reload().await.expect("the new one is good"));
    assert!(!guarded.answers(of(&old)).await);
    for broken in ["", "nonsense"] {
        guarded.write(broken);
        assert!(guarded.reload().await.is_err());
        assert!(guarded.answers(of(&new)).await);
    }
}

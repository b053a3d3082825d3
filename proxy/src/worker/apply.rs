//! Takes a snapshot: what did not change goes on as it is, and no request is dropped for what did.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Snapshot;
use fairlead_model::chains::ChainIndex;
use fairlead_model::cluster::Address;
use fairlead_model::edge::CertificateMode;
use fairlead_model::filter::{Filter, HttpFilter};
use fairlead_model::listener::{Chain, ChainMatch, Handler, Http, Listener, Routes};
use fairlead_model::tls::{Secret, SecretSource, TlsCommon, Trust};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Chains, Served, Virtual};
use super::later::{FEW, Later, Secured};
use super::listen;
use crate::core::{Core, TableCell};
use crate::http::{Acting, HttpService, Watching};
use crate::metrics::HttpFigures;
use crate::tls;
use crate::upstream::Upstream;

/// Where listeners without a socket count together.
const VIRTUAL: &str = "virtual";

/// What a worker made of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Applied {
    listeners: BTreeMap<String, Running>,
    /// Those of them without a socket, as the others know them.
    handed: Rc<Virtual>,
}

/// A listener that runs.
#[derive(Debug)]
struct Running {
    settings: Arc<Listener>,
    chains: Rc<RefCell<Rc<Chains>>>,
    /// What listens, where it has a socket.
    socket: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Applied {
    /// Takes a snapshot.
    pub(super) fn apply(&mut self, core: &Rc<Core>, snapshot: Arc<Snapshot>) {
        let old = core.snapshot.replace(Arc::clone(&snapshot));
        let secrets_changed = old.secrets != snapshot.secrets;
        clusters(core, &old, &snapshot, secrets_changed);
        tables(core, &snapshot);
        self.listeners(core, &snapshot, secrets_changed);
        core.forget_routes();
    }

    fn listeners(&mut self, core: &Rc<Core>, snapshot: &Snapshot, secrets_changed: bool) {
        self.listeners.retain(|name, running| {
            let stays = snapshot
                .listeners
                .get(name)
                .is_some_and(|listener| is_there(listener, &running.settings));
            if !stays {
                running.stop();
            }
            stays
        });
        // One that others hand over to is there before them.
        let (bound, handed): (Vec<_>, Vec<_>) =
            snapshot.listeners.iter().partition(|(_, own)| own.binds);
        for (name, listener) in handed {
            self.listener(core, snapshot, name, listener, secrets_changed);
        }
        let handed = self.listeners.values().filter_map(Running::handed);
        self.handed.replace(handed.collect());
        for (name, listener) in bound {
            self.listener(core, snapshot, name, listener, secrets_changed);
        }
    }

    /// Begins a listener, or changes it.
    fn listener(
        &mut self,
        core: &Rc<Core>,
        snapshot: &Snapshot,
        name: &str,
        listener: &Arc<Listener>,
        secrets_changed: bool,
    ) {
        match self.listeners.get_mut(name) {
            Some(running) => {
                let is_same =
                    Arc::ptr_eq(&running.settings, listener) || running.settings == *listener;
                if !is_same || secrets_changed {
                    running.change(core, snapshot, listener, &self.handed);
                }
            }
            None => {
                let chains = make_chains(core, snapshot, listener, None, &self.handed);
                let chains = Rc::new(RefCell::new(chains));
                let socket = listener.binds.then(|| {
                    let stop = CancellationToken::new();
                    let listening = listen::start(core, listener, Rc::clone(&chains), stop.clone());
                    (stop, listening)
                });
                let running = Running {
                    settings: Arc::clone(listener),
                    chains,
                    socket,
                };
                self.listeners.insert(name.to_owned(), running);
            }
        }
    }

    /// Takes no more connections, and asks those there are to end.
    pub(super) async fn stop_listening(&mut self) {
        for running in self.listeners.values() {
            running.stop();
        }
        let sockets = self.listeners.values_mut();
        for (_, listening) in sockets.filter_map(|own| own.socket.as_mut()) {
            // It does not panic, and nobody else ends it.
            let _ = listening.await;
        }
    }

    /// The longest time that a listener leaves to running requests.
    pub(super) fn drain_time(&self) -> Duration {
        self.listeners
            .values()
            .flat_map(|running| running.settings.all_chains())
            .map(|chain| match &chain.handler {
                Handler::Http(http) => http.timeouts.drain,
                Handler::Tcp(_) | Handler::Udp(_) => Duration::from_secs(5),
            })
            .max()
            .unwrap_or_default()
    }
}

impl Running {
    /// Takes no more connections, and asks those there are to end.
    fn stop(&self) {
        if let Some((stop, _)) = &self.socket {
            stop.cancel();
        }
        self.chains.borrow().end(None);
    }

    /// Its address and chains, where others hand over to it.
    fn handed(&self) -> Option<(SocketAddr, Rc<Chains>)> {
        match self.settings.address {
            Address::Socket(address) if !self.settings.binds => {
                Some((address, Rc::clone(&self.chains.borrow())))
            }
            _ => None,
        }
    }

    /// Takes new settings, or the same with new secrets.
    fn change(
        &mut self,
        core: &Rc<Core>,
        snapshot: &Snapshot,
        listener: &Arc<Listener>,
        others: &Rc<Virtual>,
    ) {
        let old = Rc::clone(&self.chains.borrow());
        let chains = make_chains(core, snapshot, listener, Some(&old), others);
        old.end(Some(&chains));
        self.chains.replace(chains);
        self.settings = Arc::clone(listener);
    }
}

/// Whether two listeners have the same socket.
fn is_there(one: &Listener, other: &Listener) -> bool {
    let place = |own: &Listener| (own.takes_ipv4, own.binds, own.udp().is_some());
    one.address == other.address && place(one) == place(other)
}

/// For each chain of a listener, the default one last, the place of the one before whose connections go on in it.
fn before(old: &Listener, new: &Listener) -> Vec<Option<usize>> {
    if !is_alike(old, new) {
        return new.all_chains().map(|_| None).collect();
    }
    let places = old.chains.iter().enumerate();
    let places: HashMap<&ChainMatch, usize> =
        places.map(|(place, own)| (&own.matches, place)).collect();
    let matched = new.chains.iter().map(|own| {
        let place = *places.get(&own.matches)?;
        go_on(old.chains.get(place)?, own).then_some(place)
    });
    let rest = new
        .default_chain
        .iter()
        .map(|own| go_on(old.default_chain.as_ref()?, own).then_some(old.chains.len()));
    matched.chain(rest).collect()
}

/// Whether nothing but chains tells two listeners apart.
fn is_alike(one: &Listener, other: &Listener) -> bool {
    let Listener {
        name,
        address,
        takes_ipv4,
        binds,
        original_destination,
        hands_over,
        proxy_protocol,
        detect,
        chains: _,
        default_chain: _,
        buffer_bytes,
        logs,
    } = one;
    *name == other.name
        && *address == other.address
        && *takes_ipv4 == other.takes_ipv4
        && *binds == other.binds
        && *original_destination == other.original_destination
        && *hands_over == other.hands_over
        && *proxy_protocol == other.proxy_protocol
        && *detect == other.detect
        && *buffer_bytes == other.buffer_bytes
        && *logs == other.logs
}

/// Whether the connections of a chain go on: nothing but its name, and what it holds itself of routes, certificates and
/// authorities, tells the two apart, as where a chain only names these.
fn go_on(old: &Chain, new: &Chain) -> bool {
    let mut like = new.clone();
    like.name.clone_from(&old.name);
    if let (Some(own), Some(old)) = (&mut like.tls, &old.tls) {
        replace_keys(&mut own.common, &old.common);
    }
    if let (Handler::Http(own), Handler::Http(old)) = (&mut like.handler, &old.handler)
        && let (Routes::Inline(_), Routes::Inline(_)) = (&own.routes, &old.routes)
    {
        Arc::make_mut(own).routes = old.routes.clone();
    }
    like == *old
}

/// Replaces certificates by those before, and the authorities of whom is believed; which names they have to have stays.
fn replace_keys(own: &mut TlsCommon, old: &TlsCommon) {
    let is_held = |source: &SecretSource| matches!(source, SecretSource::Inline(_));
    if own
        .certificates
        .iter()
        .chain(&old.certificates)
        .all(is_held)
    {
        own.certificates.clone_from(&old.certificates);
    }
    if let (
        Some(SecretSource::Inline(Secret::Trust(own))),
        Some(SecretSource::Inline(Secret::Trust(old))),
    ) = (&mut own.trust, &old.trust)
    {
        let old = Trust::clone(old);
        *own = Arc::new(Trust {
            names: own.names.clone(),
            ..old
        });
    }
}

fn clusters(core: &Rc<Core>, old: &Snapshot, snapshot: &Snapshot, secrets_changed: bool) {
    let now = core.clock.now();
    let mut upstreams = core.upstreams.borrow_mut();
    upstreams.retain(|name, _| snapshot.clusters.contains_key(name));
    for (name, cluster) in &snapshot.clusters {
        let known = old.clusters.get(name);
        let changed = known != Some(cluster);
        let tls = || tls::ClusterTls::of(cluster, &|name| secret(snapshot, name));
        let upstream = match upstreams.get(name) {
            Some(upstream) => {
                if changed || (secrets_changed && cluster.all_tls().next().is_some()) {
                    match tls() {
                        Ok(tls) => upstream.configure(Arc::clone(cluster), tls, &core.shared, now),
                        Err(error) => {
                            tracing::warn!(cluster = %name, %error, "the old TLS of a cluster stays")
                        }
                    }
                }
                Rc::clone(upstream)
            }
            None => match tls() {
                Ok(tls) => {
                    let upstream = Rc::new(Upstream::new(Arc::clone(cluster), tls, &core.shared));
                    upstreams.insert(Arc::clone(name), Rc::clone(&upstream));
                    upstream
                }
                // Until its secrets come, the cluster is not there.
                Err(error) => {
                    tracing::info!(cluster = %name, %error, "a cluster waits for its TLS");
                    continue;
                }
            },
        };
        let endpoints = snapshot.endpoints(cluster);
        let old_endpoints = known.and_then(|known| old.endpoints(known));
        if let Some(endpoints) = endpoints
            && (old_endpoints.as_ref() != Some(&endpoints) || upstream.is_fresh())
        {
            upstream.update(&endpoints, now);
        }
    }
}

fn tables(core: &Rc<Core>, snapshot: &Snapshot) {
    for (name, cell) in core.tables.borrow().iter() {
        if let Some(table) = snapshot.routes.get(name) {
            *cell.borrow_mut() = Some(Arc::clone(table));
        }
    }
}

/// The cell of a table: shared by all that use the same name, and with what was there before.
fn table(core: &Rc<Core>, snapshot: &Snapshot, routes: &Routes, old: Option<&Served>) -> TableCell {
    match routes {
        Routes::Inline(table) => {
            let cell = match old {
                Some(Served::Http { service, .. }) => Rc::clone(&service.table),
                _ => TableCell::default(),
            };
            *cell.borrow_mut() = Some(Arc::clone(table));
            cell
        }
        Routes::Named(name) => Rc::clone(
            core.tables
                .borrow_mut()
                .entry(name.clone())
                .or_insert_with(|| Rc::new(RefCell::new(snapshot.routes.get(name).cloned()))),
        ),
    }
}

/// The chains of a listener. Where one of `old` goes on in one of them, its connections have the new routes from the next request
/// on, and end with those of the new one; they were secured by what was shown when they were made.
fn make_chains(
    core: &Rc<Core>,
    snapshot: &Snapshot,
    listener: &Arc<Listener>,
    old: Option<&Chains>,
    others: &Rc<Virtual>,
) -> Rc<Chains> {
    let is_large = listener.chains.len() > FEW;
    let before = match old {
        Some(old) => before(&old.listener, listener),
        None => Vec::new(),
    };
    let before = |place: usize| Some((old?, before.get(place).copied().flatten()?));
    // Chains of one name are of one worker, which counts in one place.
    let mut figures: HashMap<&str, Arc<HttpFigures>> = HashMap::new();
    let served: Vec<Served> = listener
        .all_chains()
        .enumerate()
        .map(|(place, chain)| {
            let server = match &chain.tls {
                None => None,
                Some(_) if is_large => Some(Secured::Later),
                Some(tls) => match tls::server_config(tls, &|name| secret(snapshot, name)) {
                    Ok(config) => Some(Secured::Now(config)),
                    Err(error) => {
                        tracing::warn!(listener = listener.name, chain = chain.name, %error, "a chain takes no connections");
                        return Served::Broken;
                    }
                },
            };
            let access = chain.access.iter().cloned().collect();
            match &chain.handler {
                Handler::Http(http) => Served::Http {
                    tls: server,
                    access,
                    service: HttpService::new(HttpService {
                        core: Rc::clone(core),
                        settings: Arc::clone(http),
                        table: table(
                            core,
                            snapshot,
                            &http.routes,
                            before(place).and_then(|(old, place)| old.served.get(place)),
                        ),
                        figures: Arc::clone(
                            figures
                                .entry(&http.name)
                                .or_insert_with(|| core.shared.figures.http(&http.name)),
                        ),
                        watching: Watching::new(core, &http.logs, http.tracing.as_ref()),
                        acting: Acting::default(),
                        uri: chain.tls.as_ref().filter(|_| tells_own_name(http)).and_then(|tls| {
                            tls::own_uri(tls, &|name| secret(snapshot, name))
                        }),
                    }),
                },
                // Its socket takes no connections.
                Handler::Udp(_) => Served::Broken,
                Handler::Tcp(tcp) => Served::Tcp {
                    tls: server,
                    access,
                    settings: Arc::clone(tcp),
                    watching: Watching::new(core, &tcp.logs, None),
                },
            }
        })
        .collect();
    let drains = (0..served.len()).map(|place| {
        let before = before(place).and_then(|(old, place)| old.drains.get(place));
        before.cloned().unwrap_or_default()
    });
    Rc::new(Chains {
        listener: Arc::clone(listener),
        index: ChainIndex::of(listener),
        later: Later::default(),
        drains: drains.collect(),
        served,
        figures: core.shared.figures.listener(match listener.binds {
            true => &listener.name,
            // There may be thousands.
            false => VIRTUAL,
        }),
        others: listener.hands_over.then(|| Rc::clone(others)),
        watching: Watching::new(core, &listener.logs, None),
    })
}

/// Whether endpoints, or services that are asked of requests, are told which name a caller reached.
fn tells_own_name(http: &Http) -> bool {
    let is_check = |own: &HttpFilter| matches!(own.filter, Filter::Check(_));
    if http.filters.iter().any(is_check) {
        return true;
    }
    let mode = http.edge.as_ref().map(|edge| edge.certificate.mode);
    matches!(
        mode,
        Some(CertificateMode::AppendForward | CertificateMode::SanitizeSet)
    )
}

fn secret(snapshot: &Snapshot, name: &str) -> Option<Secret> {
    snapshot.secrets.get(name).cloned()
}

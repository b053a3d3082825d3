//! The proxies that are connected, and what they think of what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fairlead_model::identity::SpiffeId;
use fairlead_xds::Kind;

use crate::compile::Compiled;

/// A proxy that is connected.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Who it is, as its certificate says.
    pub id: SpiffeId,
    /// What it calls itself.
    pub node: String,
    /// The version of the bundle that it has.
    pub trust: Option<Arc<str>>,
    /// Whether it believes what its files say, which are not told here, as programs do that are no proxies.
    pub by_files: bool,
    /// Why it refused what it was told last, by kind.
    pub refusals: BTreeMap<Kind, String>,
    /// What it was told last, once it has answered all of it.
    pub answered: Weak<Compiled>,
}

/// The proxies that are connected to this replica.
#[derive(Debug, Default)]
pub struct Proxies {
    own: Mutex<(u64, BTreeMap<u64, Proxy>)>,
}

impl Proxies {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Proxy> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.1.values().cloned().collect()
    }

    /// Notes one, for as long as what is given back lives.
    pub(super) fn enter(self: &Arc<Self>, proxy: Proxy) -> Entry {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.0 += 1;
        let number = own.0;
        own.1.insert(number, proxy);
        Entry {
            proxies: Arc::clone(self),
            number,
        }
    }
}

/// The place of a proxy.
#[derive(Debug)]
pub(super) struct Entry {
    proxies: Arc<Proxies>,
    number: u64,
}

impl Entry {
    /// Changes what is known of it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Proxy)) {
        let own = self.proxies.own.lock();
        let mut own = own.unwrap_or_else(PoisonError::into_inner);
        if let Some(proxy) = own.1.get_mut(&self.number) {
            change(proxy);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let own = self.proxies.own.lock();
        let mut own = own.unwrap_or_else(PoisonError::into_inner);
        own.1.remove(&self.number);
    }
}

//! TLS of chains that is made when the first caller asks for it: a gateway has thousands of certificates, of which few are in use.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rustls::ServerConfig;

/// Up to how many chains of a listener all have their TLS made at once, so that what is wrong is known at once.
pub(super) const FEW: usize = 64;
/// How many are kept of those that are made later.
const KEPT: usize = 1_024;

/// How a chain is secured.
#[derive(Debug, Clone)]
pub(super) enum Secured {
    /// By this.
    Now(Arc<ServerConfig>),
    /// By what is made when it is asked for.
    Later,
}

/// What was made, by the places of chains.
#[derive(Debug, Default)]
pub(super) struct Later {
    made: RefCell<Made>,
}

#[derive(Debug, Default)]
struct Made {
    all: HashMap<usize, (Arc<ServerConfig>, bool)>,
    /// In which order it came.
    order: VecDeque<usize>,
}

impl Later {
    /// What secures the chain at a place, made where it was not, or not kept.
    pub(super) fn get<E>(
        &self,
        place: usize,
        make: impl FnOnce() -> Result<Arc<ServerConfig>, E>,
    ) -> Result<Arc<ServerConfig>, E> {
        let mut made = self.made.borrow_mut();
        if let Some((own, is_used)) = made.all.get_mut(&place) {
            *is_used = true;
            return Ok(Arc::clone(own));
        }
        let own = make()?;
        while made.all.len() >= KEPT {
            made.give_up();
        }
        made.all.insert(place, (Arc::clone(&own), false));
        made.order.push_back(place);
        Ok(own)
    }
}

impl Made {
    /// Gives one up: the first that was not used since it was looked at last.
    fn give_up(&mut self) {
        let Some(place) = self.order.pop_front() else {
            self.all.clear();
            return;
        };
        match self.all.get_mut(&place) {
            Some((_, is_used)) if *is_used => {
                *is_used = false;
                self.order.push_back(place);
            }
            _ => {
                self.all.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let (later, count) = (Later::default(), Cell::new(0));
        let config = Arc::new(
            ServerConfig::builder()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())),
        );
        let get = |place| {
            let made = later.get(place, || {
                count.set(count.get() + 1);
                Ok::<_, Infallible>(Arc::clone(&config))
            });
            drop(made);
        };
        for place in 0..5_000 {
            get(place);
            get(0);
        }
        assert_eq!(count.get(), 5_000);
        assert_eq!(later.made.borrow().all.len(), KEPT);
        get(1);
        assert_eq!(count.get(), 5_001);
    }
}

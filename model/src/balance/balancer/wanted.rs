//! Endpoints that are what callers want to reach: they come with the first request that wants them, and go when none does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Balancer, EndpointKey, NoEndpoint, Place, Slot, Wanted};
use crate::Moment;
use crate::balance::ewma::Latency;
use crate::breaker::Breaker;
use crate::cluster::{Address, Endpoint};

/// How many endpoints there are at the most in a cluster whose endpoints are what callers want to reach.
const MOST_WANTED: usize = 16_384;
impl Balancer {
    /// Counts a request on the endpoint at an address, which is one from now on; [`Balancer::finish`] has to follow.
    ///
    /// # Errors
    /// When there are too many.
    pub fn pick_at(&mut self, at: &Address, now: Moment) -> Result<EndpointKey, NoEndpoint> {
        let slot = match self.by_address.get(at) {
            Some(slot) => *slot,
            None if self.by_address.len() >= MOST_WANTED => return Err(NoEndpoint::Full),
            None => {
                let slot = self.free_slot();
                self.slots[slot as usize] = Some(Slot {
                    endpoint: Arc::new(endpoint_at(at)),
                    place: Place {
                        priority: 0,
                        locality: 0,
                        weight: None,
                    },
                    latency: Latency::new(&self.latency, now),
                    breaker: Breaker::default(),
                    pending: 0,
                    added: now,
                    wanted: now,
                });
                self.by_address.insert(at.clone(), slot);
                slot
            }
        };
        if let Some(slot) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            slot.wanted = now;
        }
        self.start(slot).ok_or(NoEndpoint::Empty)
    }

    /// Counts a request on the endpoint that a session is bound to, where it is well and was not tried.
    pub(super) fn pick_bound(
        &mut self,
        at: SocketAddr,
        wanted: &Wanted<'_>,
    ) -> Option<EndpointKey> {
        let number = *self.by_address.get(&Address::Socket(at))?;
        let slot = self.slots.get(number as usize)?.as_ref()?;
        let labels = &slot.endpoint.labels;
        let is_meant = slot.is_well() && wanted.subset.iter().all(|own| labels.contains(own));
        let is_tried = wanted.tried.iter().any(|key| key.slot == number);
        (is_meant && !is_tried)
            .then(|| self.start(number))
            .flatten()
    }

    /// Forgets endpoints without a request that nobody wanted for a time. Says which left.
    pub fn expire(&mut self, unwanted: Duration, now: Moment) -> Vec<EndpointKey> {
        let slots = &self.slots;
        let mut gone = Vec::new();
        self.by_address.retain(|_, number| {
            let slot = slots.get(*number as usize).and_then(Option::as_ref);
            let stays =
                slot.is_some_and(|slot| slot.pending > 0 || now.since(slot.wanted) < unwanted);
            if !stays {
                gone.push(*number);
            }
            stays
        });
        gone.into_iter().map(|slot| self.remove(slot)).collect()
    }
}

/// An endpoint of which nothing but its address is known.
fn endpoint_at(at: &Address) -> Endpoint {
    match at {
        Address::Name(name, _) => Endpoint {
            address: at.clone(),
            hostname: name.clone(),
            ..Endpoint::at(SocketAddr::from(([0, 0, 0, 0], 0)))
        },
        Address::Socket(socket) => Endpoint::at(*socket),
        Address::Path(_) => Endpoint {
            address: at.clone(),
            ..Endpoint::at(SocketAddr::from(([0, 0, 0, 0], 0)))
        },
    }
}

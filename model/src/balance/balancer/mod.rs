//! The endpoints of one cluster as one worker sees them.

mod request;
mod wanted;

pub use request::{Finish, NoEndpoint, Wanted};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::ewma::Latency;
use super::tiers::{Group, Member, Tiers};
use super::{Balancing, PeakEwma, Policy};
use crate::Moment;
use crate::breaker::{Breaker, BreakerSettings, Judged, Usable};
use crate::cluster::{Address, Endpoint, Endpoints};

/// How often a choice is made again that fell on an endpoint already tried.
const REDRAWS: u32 = 4;

/// Names an endpoint of a balancer for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    slot: u32,
    generation: u32,
}

impl EndpointKey {
    /// A number below the most endpoints there were at once; given to another after this one left.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// The endpoints of one cluster as one worker sees them.
#[derive(Debug)]
pub struct Balancer {
    balancing: Balancing,
    latency: PeakEwma,
    breaker: Option<BreakerSettings>,
    slots: Vec<Option<Slot>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_address: HashMap<Address, u32>,
    overprovisioning: u32,
    resting: usize,
    tiers: Tiers,
    subsets: HashMap<Vec<(String, String)>, Tiers>,
    /// When the tiers have to be made again.
    stale_at: Option<Moment>,
    /// Endpoints whose pause is over.
    probes: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    endpoint: Arc<Endpoint>,
    place: Place,
    latency: Latency,
    breaker: Breaker,
    pending: u32,
    added: Moment,
    /// When the last request began that wanted this address.
    wanted: Moment,
}

impl Slot {
    /// Whether nothing speaks against it: neither the control plane, nor a check, nor what became of its requests.
    fn is_well(&self) -> bool {
        self.endpoint.is_well() && self.breaker.is_closed()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    priority: u32,
    locality: u32,
    weight: Option<u32>,
}

impl Balancer {
    /// A balancer without endpoints.
    #[must_use]
    pub fn new(balancing: Balancing, breaker: Option<BreakerSettings>) -> Self {
        Self {
            latency: match &balancing.policy {
                Policy::PeakEwma(settings) => settings.clone(),
                _ => PeakEwma::default(),
            },
            balancing,
            breaker,
            slots: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::new(),
            overprovisioning: 140,
            resting: 0,
            tiers: Tiers::default(),
            subsets: HashMap::new(),
            stale_at: None,
            probes: Vec::new(),
        }
    }

    /// Takes new settings; what is known of endpoints stays.
    pub fn configure(
        &mut self,
        balancing: Balancing,
        breaker: Option<BreakerSettings>,
        now: Moment,
    ) {
        if let Policy::PeakEwma(settings) = &balancing.policy {
            self.latency = settings.clone();
        }
        self.balancing = balancing;
        self.breaker = breaker;
        if self.breaker.is_none() {
            for slot in self.slots.iter_mut().flatten() {
                slot.breaker = Breaker::default();
            }
            self.resting = 0;
        }
        self.stale_at = Some(now);
    }

    /// Takes the endpoints that there are now; what is known of those that stay is kept. Says which left.
    pub fn update(&mut self, endpoints: &Endpoints, now: Moment) -> Vec<EndpointKey> {
        let wanted: HashSet<&Address> = endpoints
            .localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
            .filter(|endpoint| endpoint.weight > 0)
            .map(|endpoint| &endpoint.address)
            .collect();
        let (mut known, gone): (HashMap<_, _>, HashMap<_, _>) =
            std::mem::take(&mut self.by_address)
                .into_iter()
                .partition(|(address, _)| wanted.contains(address));
        let left = gone.into_values().map(|slot| self.remove(slot)).collect();
        for (index, locality) in endpoints.localities.iter().enumerate() {
            let place = Place {
                priority: locality.priority,
                locality: u32::try_from(index).unwrap_or(u32::MAX),
                weight: locality.weight,
            };
            for endpoint in &locality.endpoints {
                if endpoint.weight == 0 || self.by_address.contains_key(&endpoint.address) {
                    continue;
                }
                let slot = known
                    .remove(&endpoint.address)
                    .unwrap_or_else(|| self.free_slot());
                let entry = &mut self.slots[slot as usize];
                match entry {
                    Some(known) => {
                        known.place = place;
                        if *known.endpoint != *endpoint {
                            known.endpoint = Arc::new(endpoint.clone());
                        }
                    }
                    None => {
                        *entry = Some(Slot {
                            endpoint: Arc::new(endpoint.clone()),
                            place,
                            latency: Latency::new(&self.latency, now),
                            breaker: Breaker::default(),
                            pending: 0,
                            added: now,
                            wanted: now,
                        });
                    }
                }
                self.by_address.insert(endpoint.address.clone(), slot);
            }
        }
        self.overprovisioning = endpoints.overprovisioning;
        self.resting = self
            .slots
            .iter()
            .flatten()
            .filter(|slot| !slot.breaker.is_closed())
            .count();
        self.stale_at = Some(now);
        left
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The endpoints, for the admin interface and health checks.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointKey, &Arc<Endpoint>)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let slot_number = u32::try_from(index).ok()?;
            let key = EndpointKey {
                slot: slot_number,
                generation: *self.generations.get(index)?,
            };
            Some((key, &slot.as_ref()?.endpoint))
        })
    }

    /// An endpoint, while it is there.
    #[must_use]
    pub fn endpoint(&self, key: EndpointKey) -> Option<&Arc<Endpoint>> {
        self.slot(key).map(|slot| &slot.endpoint)
    }

    /// How many requests an endpoint runs, its latency in seconds, and whether it rests.
    #[must_use]
    pub fn state(&self, key: EndpointKey, now: Moment) -> Option<(u32, f64, bool)> {
        let slot = self.slot(key)?;
        Some((
            slot.pending,
            slot.latency.read(&self.latency, now),
            !slot.breaker.is_closed(),
        ))
    }

    /// How many endpoints nothing speaks against.
    #[must_use]
    pub fn well(&self) -> usize {
        self.slots
            .iter()
            .flatten()
            .filter(|slot| slot.is_well())
            .count()
    }

    /// How many endpoints rest.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.resting
    }

    /// Chooses an endpoint and counts a request on it; [`Balancer::finish`] has to follow.
    ///
    /// # Errors
    /// When there is none.
    pub fn pick(
        &mut self,
        wanted: &Wanted<'_>,
        now: Moment,
        random: &mut fastrand::Rng,
    ) -> Result<EndpointKey, NoEndpoint> {
        if self.stale_at.is_some_and(|stale_at| stale_at <= now) {
            self.rebuild(now, random);
        }
        if let Some(key) = wanted.bound.and_then(|at| self.pick_bound(at, wanted)) {
            return Ok(key);
        }
        if let Some(key) = self.pick_probe(wanted) {
            return Ok(key);
        }
        let slot = if wanted.subset.is_empty() {
            let mut tiers = std::mem::take(&mut self.tiers);
            let slot = self.pick_from(&mut tiers, wanted, now, random);
            self.tiers = tiers;
            slot.ok_or(NoEndpoint::Empty)?
        } else {
            let mut tiers = match self.subsets.remove(wanted.subset) {
                Some(tiers) => tiers,
                None => {
                    let members = self.members(wanted.subset, now);
                    Tiers::new(&members, &self.balancing, self.overprovisioning, random)
                }
            };
            let slot = self.pick_from(&mut tiers, wanted, now, random);
            self.subsets.insert(wanted.subset.to_vec(), tiers);
            slot.ok_or(NoEndpoint::Subset)?
        };
        self.start(slot).ok_or(NoEndpoint::Empty)
    }

    /// An answer began, `latency` after the request, and is no failure as far as is known.
    pub fn answered(&mut self, key: EndpointKey, latency: Duration, now: Moment) {
        if !matches!(self.balancing.policy, Policy::PeakEwma(_)) {
            return;
        }
        let settings = self.latency.clone();
        if let Some(slot) = self.slot_mut(key) {
            slot.latency.observe(&settings, latency, now);
        }
    }

    /// Takes into account what became of a try.
    pub fn finish(
        &mut self,
        key: EndpointKey,
        finish: Finish,
        now: Moment,
        random: &mut fastrand::Rng,
    ) {
        let may_open = self.may_open();
        let uses_latency = matches!(self.balancing.policy, Policy::PeakEwma(_));
        let settings = &self.latency;
        let Some(slot) = self
            .slots
            .get_mut(key.slot())
            .filter(|_| self.generations.get(key.slot()) == Some(&key.generation))
            .and_then(Option::as_mut)
        else {
            return;
        };
        slot.pending = slot.pending.saturating_sub(1);
        if uses_latency {
            match (finish.judged, finish.unanswered) {
                (Some(Judged::Failure | Judged::Rejection), _) => {
                    slot.latency.penalize(settings, finish.retry_after, now);
                }
                // A caller that gives up has waited so long: a slow endpoint must not look unknown, nor a fast one slow.
                (None, Some(waited)) if waited.as_secs_f64() > slot.latency.read(settings, now) => {
                    slot.latency.observe(settings, waited, now);
                }
                _ => {}
            }
        }
        let Some(breaker) = &self.breaker else { return };
        let was_closed = slot.breaker.is_closed();
        let changed = match finish.judged {
            Some(judged) => slot.breaker.judge(judged, breaker, may_open, now, random),
            None => slot.breaker.unprobe(now),
        };
        if changed {
            match (was_closed, slot.breaker.is_closed()) {
                (true, false) => self.resting += 1,
                (false, true) => self.resting = self.resting.saturating_sub(1),
                _ => {}
            }
            self.stale_at = Some(now);
        }
    }

    /// Whether one more endpoint may rest: never all, never more than the allowed share.
    fn may_open(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| {
            let most =
                (self.len() * usize::from(breaker.most_resting_percent.min(100)) / 100).max(1);
            self.resting < most.min(self.len().saturating_sub(1))
        })
    }

    fn pick_probe(&mut self, wanted: &Wanted<'_>) -> Option<EndpointKey> {
        if self.probes.is_empty() || !wanted.subset.is_empty() || !wanted.tried.is_empty() {
            return None;
        }
        while let Some(slot) = self.probes.pop() {
            if let Some(Some(entry)) = self.slots.get_mut(slot as usize) {
                entry.breaker.probe();
                return self.start(slot);
            }
        }
        None
    }

    fn start(&mut self, slot: u32) -> Option<EndpointKey> {
        let entry = self.slots.get_mut(slot as usize)?.as_mut()?;
        entry.pending += 1;
        Some(EndpointKey {
            slot,
            generation: *self.generations.get(slot as usize)?,
        })
    }

    fn pick_from(
        &self,
        tiers: &mut Tiers,
        wanted: &Wanted<'_>,
        now: Moment,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        let mut choice = self.choose(tiers.group(random)?, wanted.hash, now, random)?;
        if wanted.tried.is_empty() {
            return Some(choice);
        }
        let was_tried = |slot: u32| wanted.tried.iter().any(|key| key.slot == slot);
        for _ in 0..REDRAWS {
            if !was_tried(choice) {
                return Some(choice);
            }
            choice = self.choose(tiers.group(random)?, None, now, random)?;
        }
        if !was_tried(choice) {
            return Some(choice);
        }
        let other = tiers
            .groups()
            .flat_map(|group| &group.members)
            .copied()
            .find(|slot| !was_tried(*slot));
        Some(other.unwrap_or(choice))
    }

    fn choose(
        &self,
        group: &mut Group,
        hash: Option<u64>,
        now: Moment,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        match &self.balancing.policy {
            Policy::RoundRobin => group.turns.next(),
            Policy::Random if group.is_even => one_of(&group.members, random),
            Policy::Random => group.turns.next(),
            Policy::RingHash { .. } => group.ring.at(hash.unwrap_or_else(|| random.u64(..))),
            Policy::Maglev { .. } => group.maglev.at(hash.unwrap_or_else(|| random.u64(..))),
            Policy::LeastRequest { choices } => self.best_of(
                group,
                *choices,
                random,
                |slot| f64::from(slot.pending) + 1.0,
                now,
            ),
            Policy::PeakEwma(settings) => self.best_of(
                group,
                2,
                random,
                |slot| slot.latency.load(settings, slot.pending, now),
                now,
            ),
        }
    }

    /// The least loaded of some different members drawn at random.
    fn best_of(
        &self,
        group: &Group,
        choices: u32,
        random: &mut fastrand::Rng,
        load: impl Fn(&Slot) -> f64,
        now: Moment,
    ) -> Option<u32> {
        let members = &group.members;
        let cost = |member: u32| {
            let slot = self.slots.get(member as usize)?.as_ref()?;
            Some(load(slot) / self.weight(slot, now))
        };
        let mut best = one_of(members, random)?;
        if members.len() == 1 {
            return Some(best);
        }
        let mut best_cost = cost(best);
        for _ in 1..choices.max(2) {
            let mut other = one_of(members, random)?;
            if other == best {
                // The next one instead: with two choices each pair is drawn alike.
                let place = members
                    .iter()
                    .position(|member| *member == best)
                    .unwrap_or(0);
                let step = random.usize(1..members.len());
                other = *members.get((place + step) % members.len())?;
            }
            let other_cost = cost(other);
            if other_cost.unwrap_or(f64::INFINITY) < best_cost.unwrap_or(f64::INFINITY) {
                (best, best_cost) = (other, other_cost);
            }
        }
        Some(best)
    }

    fn weight(&self, slot: &Slot, now: Moment) -> f64 {
        let weight = f64::from(slot.endpoint.weight);
        match &self.balancing.slow_start {
            Some(slow_start) => weight * slow_start.share(now.since(slot.added)),
            None => weight,
        }
    }

    /// Makes the tiers again, and finds when they change by themselves.
    fn rebuild(&mut self, now: Moment, random: &mut fastrand::Rng) {
        self.stale_at = None;
        self.probes.clear();
        let mut next: Option<Moment> = None;
        let mut wake = |at: Moment| next = Some(next.map_or(at, |known| known.min(at)));
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            match slot.breaker.usable(now) {
                Usable::Until(until) => wake(until),
                Usable::Probe => self.probes.extend(u32::try_from(index)),
                Usable::Yes | Usable::Probing => {}
            }
            // Turns, rings and tables hold weights: while an endpoint warms up they are made again each tenth of its window.
            if let Some(slow_start) = &self.balancing.slow_start
                && now.since(slot.added) < slow_start.window
            {
                wake(now + (slow_start.window / 10).max(Duration::from_millis(10)));
            }
        }
        let members = self.members(&[], now);
        self.tiers = Tiers::new(&members, &self.balancing, self.overprovisioning, random);
        self.subsets.clear();
        self.stale_at = next;
    }

    fn members(&self, subset: &[(String, String)], now: Moment) -> Vec<Member> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let slot = slot.as_ref()?;
                if !subset
                    .iter()
                    .all(|label| slot.endpoint.labels.contains(label))
                {
                    return None;
                }
                Some(Member {
                    slot: u32::try_from(index).ok()?,
                    key: slot.endpoint.address.to_string(),
                    priority: slot.place.priority,
                    locality: slot.place.locality,
                    locality_weight: slot.place.weight,
                    weight: self.weight(slot, now),
                    is_well: slot.is_well(),
                })
            })
            .collect()
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn remove(&mut self, slot: u32) -> EndpointKey {
        let generation = &mut self.generations[slot as usize];
        let key = EndpointKey {
            slot,
            generation: *generation,
        };
        *generation = generation.wrapping_add(1);
        self.slots[slot as usize] = None;
        self.free.push(slot);
        key
    }

    fn slot(&self, key: EndpointKey) -> Option<&Slot> {
        (self.generations.get(key.slot()) == Some(&key.generation))
            .then(|| self.slots.get(key.slot())?.as_ref())
            .flatten()
    }

    fn slot_mut(&mut self, key: EndpointKey) -> Option<&mut Slot> {
        (self.generations.get(key.slot()) == Some(&key.generation))
            .then(|| self.slots.get_mut(key.slot())?.as_mut())
            .flatten()
    }
}

fn one_of(members: &[u32], random: &mut fastrand::Rng) -> Option<u32> {
    match members {
        [] => None,
        [only] => Some(*only),
        _ => members.get(random.usize(..members.len())).copied(),
    }
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::balance::SlowStart;
use crate::cluster::{Checked, Locality};

fn at(milliseconds: u64) -> Moment {
    Moment::new(Duration::from_millis(milliseconds))
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number / 256) as u8, (number % 256) as u8], 80))
}

fn endpoints(count: usize) -> Endpoints {
    Endpoints::at((0..count).map(address))
}

fn balancing(policy: Policy) -> Balancing {
    Balancing {
        policy,
        ..Balancing::default()
    }
}

fn success() -> Finish {
    Finish {
        judged: Some(Judged::Success),
        ..Finish::default()
    }
}

fn failure() -> Finish {
    Finish {
        judged: Some(Judged::Failure),
        ..Finish::default()
    }
}

/// Runs a closed loop of `callers`, each endpoint answering in its own time (in milliseconds) and way, and counts requests by
/// endpoint.
fn run(
    balancer: &mut Balancer,
    seconds: u64,
    callers: usize,
    answer: impl Fn(usize) -> (u64, Finish),
) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut running: BTreeMap<(u64, usize), (EndpointKey, u64)> = BTreeMap::new();
    let mut had = vec![0; balancer.len()];
    let mut begin = |balancer: &mut Balancer,
                     running: &mut BTreeMap<_, _>,
                     now: u64,
                     caller: usize,
                     random: &mut fastrand::Rng| {
        let key = balancer
            .pick(&Wanted::default(), at(now), random)
            .expect("an endpoint");
        had[key.slot()] += 1;
        running.insert((now + answer(key.slot()).0, caller), (key, now));
    };
    for caller in 0..callers {
        begin(balancer, &mut running, 0, caller, &mut random);
    }
    while let Some(((now, caller), (key, begun))) = running.pop_first() {
        if now > seconds * 1_000 {
            break;
        }
        let finish = answer(key.slot()).1;
        if finish.judged == Some(Judged::Success) {
            balancer.answered(key, Duration::from_millis(now - begun), at(now));
        }
        balancer.finish(key, finish, at(now), &mut random);
        begin(balancer, &mut running, now, caller, &mut random);
    }
    had
}

fn share(had: &[u32], endpoint: usize) -> f64 {
    f64::from(had[endpoint]) / f64::from(had.iter().sum::<u32>())
}

#[test]
fn a_slow_endpoint_gets_little() {
    let mut balancer = Balancer::new(Balancing::default(), None);
    balancer.update(&endpoints(10), at(0));
    let had = run(&mut balancer, 30, 32, |slot| {
        (if slot == 0 { 100 } else { 10 }, success())
    });
    assert!(share(&had, 0) < 0.02, "{}", share(&had, 0));
}

#[test]
fn an_endpoint_that_fails_fast_gets_little() {
    let mut balancer = Balancer::new(Balancing::default(), None);
    balancer.update(&endpoints(10), at(0));
    let had = run(&mut balancer, 30, 32, |slot| {
        if slot == 0 {
            (1, failure())
        } else {
            (10, success())
        }
    });
    assert!(share(&had, 0) < 0.01, "{}", share(&had, 0));
}

#[test]
fn an_endpoint_that_fails_rests_and_is_probed_once() {
    let breaker = BreakerSettings {
        jitter: 0.0,
        ..BreakerSettings::default()
    };
    let mut balancer = Balancer::new(balancing(Policy::RoundRobin), Some(breaker));
    balancer.update(&endpoints(3), at(0));
    let mut random = fastrand::Rng::with_seed(1);
    let mut ask = |balancer: &mut Balancer, now: u64| {
        let key = balancer
            .pick(&Wanted::default(), at(now), &mut random)
            .expect("an endpoint");
        balancer.finish(
            key,
            if key.slot() == 0 {
                failure()
            } else {
                success()
            },
            at(now),
            &mut random,
        );
        key.slot()
    };
    let had = (0..300).filter(|_| ask(&mut balancer, 0) == 0).count();
    assert_eq!(had, 5, "the success rate of five fell");
    assert_eq!(balancer.resting(), 1);
    assert_eq!((0..100).filter(|_| ask(&mut balancer, 999) == 0).count(), 0);
    assert_eq!(
        (0..100).filter(|_| ask(&mut balancer, 1000) == 0).count(),
        1,
        "one probe"
    );
    assert_eq!(
        (0..100).filter(|_| ask(&mut balancer, 2999) == 0).count(),
        0,
        "twice as long"
    );
}

#[test]
fn a_service_is_never_wholly_ejected() {
    for count in [1, 2, 10] {
        let mut balancer = Balancer::new(
            balancing(Policy::RoundRobin),
            Some(BreakerSettings::default()),
        );
        balancer.update(&endpoints(count), at(0));
        let mut random = fastrand::Rng::with_seed(1);
        for now in 0..2000 {
            let key = balancer
                .pick(&Wanted::default(), at(now), &mut random)
                .expect("an endpoint");
            balancer.finish(key, failure(), at(now), &mut random);
            assert!(
                balancer.resting() <= count / 2,
                "{} of {count}",
                balancer.resting()
            );
        }
        assert_eq!(balancer.resting(), count / 2);
    }
}

#[test]
fn a_retry_goes_elsewhere_while_it_can() {
    for policy in [
        Policy::PeakEwma(PeakEwma::default()),
        Policy::LeastRequest { choices: 2 },
        Policy::RoundRobin,
        Policy::Random,
        Policy::RingHash {
            least: 64,
            most: 1024,
        },
        Policy::Maglev { size: 251 },
    ] {
        let mut balancer = Balancer::new(balancing(policy.clone()), None);
        balancer.update(&endpoints(3), at(0));
        let mut random = fastrand::Rng::with_seed(1);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let wanted = Wanted {
                hash: Some(5),
                tried: &tried,
                ..Wanted::default()
            };
            let key = balancer
                .pick(&wanted, at(0), &mut random)
                .expect("an endpoint");
            assert!(!tried.contains(&key), "{policy:?}");
            tried.push(key);
        }
        let wanted = Wanted {
            tried: &tried,
            ..Wanted::default()
        };
        assert!(
            balancer.pick(&wanted, at(0), &mut random).is_ok(),
            "better one again than none"
        );
    }
}

#[test]
fn what_is_known_of_an_endpoint_survives_an_update() {
    let mut balancer = Balancer::new(Balancing::default(), None);
    balancer.update(&endpoints(2), at(0));
    let mut random = fastrand::Rng::with_seed(1);
    let key = balancer
        .pick(&Wanted::default(), at(0), &mut random)
        .expect("an endpoint");
    let stays = usize::from(key.slot() == 0);
    let left = balancer.update(&Endpoints::at([address(stays), address(7)]), at(1));
    assert_eq!(left, [key]);
    assert_eq!(balancer.state(key, at(1)), None);
    // The answer of one that left is nobody's.
    balancer.finish(key, success(), at(1), &mut random);
    let new = balancer
        .endpoints()
        .find(|(_, endpoint)| endpoint.address == Address::Socket(address(7)))
        .expect("the new one")
        .0;
    assert_eq!(new.slot(), key.slot(), "the place is used again");
    assert_ne!(new, key);
    assert_eq!(balancer.state(new, at(1)).map(|state| state.0), Some(0));
    assert!(balancer.update(&Endpoints::default(), at(2)).len() == 2 && balancer.is_empty());
    assert_eq!(
        balancer.pick(&Wanted::default(), at(2), &mut random),
        Err(NoEndpoint::Empty)
    );
}

#[test]
fn a_subset_has_its_labels() {
    let mut all = endpoints(4);
    let label = |value: &str| ("version".to_owned(), value.to_owned());
    for (index, endpoint) in all.localities[0].endpoints.iter_mut().enumerate() {
        endpoint.labels = vec![label(if index == 2 { "b" } else { "a" })];
    }
    let mut balancer = Balancer::new(Balancing::default(), None);
    balancer.update(&all, at(0));
    let mut random = fastrand::Rng::with_seed(1);
    let mut pick = |subset: &[(String, String)]| {
        balancer
            .pick(
                &Wanted {
                    subset,
                    ..Wanted::default()
                },
                at(0),
                &mut random,
            )
            .map(EndpointKey::slot)
    };
    assert_eq!(
        (0..20).map(|_| pick(&[label("b")])).collect::<Vec<_>>(),
        vec![Ok(2); 20]
    );
    assert!((0..20).all(|_| pick(&[label("a")]) != Ok(2)));
    assert_eq!(pick(&[label("c")]), Err(NoEndpoint::Subset));
}

#[test]
fn a_new_endpoint_is_brought_up_slowly() {
    let slow_start = SlowStart {
        window: Duration::from_secs(60),
        aggression: 1.0,
        least_percent: 10,
    };
    let mut balancer = Balancer::new(
        Balancing {
            slow_start: Some(slow_start),
            ..balancing(Policy::RoundRobin)
        },
        None,
    );
    balancer.update(&endpoints(1), at(0));
    balancer.update(&endpoints(2), at(100_000));
    let mut random = fastrand::Rng::with_seed(1);
    let mut part = |now: u64| {
        let had = (0..1000)
            .filter(|_| {
                balancer
                    .pick(&Wanted::default(), at(now), &mut random)
                    .is_ok_and(|key| key.slot() == 1)
            })
            .count();
        had as f64 / 1000.0
    };
    assert!((part(100_000) - 0.1 / 1.1).abs() < 0.02);
    assert!((part(130_000) - 0.5 / 1.5).abs() < 0.02);
    assert!((part(160_000) - 0.5).abs() < 0.02);
}

#[test]
fn the_next_priority_is_used_when_the_first_fails() {
    let locality = |priority, from: usize| Locality {
        priority,
        endpoints: (from..from + 2)
            .map(|number| Endpoint::at(address(number)))
            .collect(),
        ..Locality::default()
    };
    let mut all = Endpoints {
        localities: vec![locality(0, 0), locality(1, 2)],
        overprovisioning: 140,
    };
    let mut balancer = Balancer::new(balancing(Policy::RoundRobin), None);
    balancer.update(&all, at(0));
    let mut random = fastrand::Rng::with_seed(1);
    let second = |balancer: &mut Balancer, random: &mut fastrand::Rng| {
        (0..1000)
            .filter(|_| {
                balancer
                    .pick(&Wanted::default(), at(1), random)
                    .is_ok_and(|key| key.slot() >= 2)
            })
            .count()
    };
    assert_eq!(second(&mut balancer, &mut random), 0);
    for (endpoint, checked) in all.localities[0]
        .endpoints
        .iter_mut()
        .zip([Checked::Failed, Checked::Pending])
    {
        endpoint.checked = checked;
    }
    assert!(balancer.update(&all, at(1)).is_empty(), "all stay");
    assert_eq!((balancer.len(), balancer.well()), (4, 2));
    assert_eq!(second(&mut balancer, &mut random), 1000);
}

proptest! {
    /// Whatever comes and goes: an endpoint is found while there is one, and every count returns to nothing.
    #[test]
    fn counts_return_to_nothing(steps in prop::collection::vec((0u8..6, 0usize..6), 1..200), seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut balancer = Balancer::new(Balancing::default(), Some(BreakerSettings::default()));
        balancer.update(&endpoints(4), at(0));
        let mut running = Vec::new();
        let mut now = 0;
        for (step, number) in steps {
            now += 200;
            match step {
                0 => { balancer.update(&endpoints(number), at(now)); }
                1 | 2 => {
                    match balancer.pick(&Wanted::default(), at(now), &mut random) {
                        Ok(key) => running.push(key),
                        Err(_) => prop_assert!(balancer.is_empty()),
                    }
                }
                _ => if let Some(key) = running.pop() {
                    let judged = [None, Some(Judged::Success), Some(Judged::Failure), Some(Judged::Rejection)][number % 4];
                    balancer.finish(key, Finish { judged, ..Finish::default() }, at(now), &mut random);
                },
            }
            prop_assert!(balancer.resting() <= balancer.len());
        }
        for key in running {
            balancer.finish(key, success(), at(now), &mut random);
        }
        let keys: Vec<_> = balancer.endpoints().map(|(key, _)| key).collect();
        for key in keys {
            prop_assert_eq!(balancer.state(key, at(now)).map(|state| state.0), Some(0));
        }
    }

    /// Shares follow weights, whether endpoints take turns or are drawn.
    #[test]
    fn shares_follow_weights(seed: u64, weights in prop::collection::vec(1u32..10, 2..6), takes_turns: bool) {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = if takes_turns { Policy::RoundRobin } else { Policy::Random };
        let mut balancer = Balancer::new(balancing(policy), None);
        let mut all = endpoints(weights.len());
        for (endpoint, weight) in all.localities[0].endpoints.iter_mut().zip(&weights) {
            endpoint.weight = *weight;
        }
        balancer.update(&all, at(0));
        let mut had = vec![0u32; weights.len()];
        for now in 0..6000 {
            let key = balancer.pick(&Wanted::default(), at(now), &mut random).expect("an endpoint");
            had[key.slot()] += 1;
            balancer.finish(key, success(), at(now), &mut random);
        }
        let sum: u32 = weights.iter().sum();
        for (had, weight) in had.into_iter().zip(weights) {
            let fair = 6000.0 * f64::from(weight) / f64::from(sum);
            // Six times the deviation of a fair draw, or one turn.
            let most = if takes_turns { 2.0 } else { 6.0 * fair.sqrt() };
            prop_assert!((f64::from(had) - fair).abs() <= most, "{had} of {fair}");
        }
    }

    /// Endpoints that are alike get alike.
    #[test]
    fn two_choices_are_fair(seed: u64, count in 2usize..12) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut balancer = Balancer::new(Balancing::default(), None);
        balancer.update(&endpoints(count), at(0));
        let mut had = vec![0u32; count];
        let mut running = std::collections::VecDeque::new();
        for now in 0..6000 {
            let key = balancer.pick(&Wanted::default(), at(now), &mut random).expect("an endpoint");
            had[key.slot()] += 1;
            running.push_back(key);
            if running.len() > 16 {
                let key = running.pop_front().expect("one");
                balancer.finish(key, success(), at(now), &mut random);
            }
        }
        let fair = 6000.0 / count as f64;
        for had in had {
            prop_assert!((f64::from(had) - fair).abs() < fair * 0.2, "{had} of {fair}");
        }
    }
}

#[test]
fn what_callers_want_to_reach_is_remembered_for_a_while() {
    let mut balancer = Balancer::new(balancing(Policy::RoundRobin), None);
    let mut random = fastrand::Rng::with_seed(1);
    let socket = |number: u8| std::net::SocketAddr::from(([10, 0, 0, number], 80));
    let first = balancer
        .pick_at(&Address::Socket(socket(1)), at(0))
        .expect("an endpoint");
    let second = balancer
        .pick_at(&Address::Socket(socket(2)), at(0))
        .expect("an endpoint");
    assert_ne!(first, second);
    assert_eq!(
        balancer.pick_at(&Address::Socket(socket(1)), at(1)),
        Ok(first)
    );
    for key in [first, first] {
        balancer.finish(key, Finish::default(), at(1), &mut random);
    }
    // The first has no request, the second has one.
    assert!(balancer.expire(Duration::from_millis(5), at(5)).is_empty());
    assert_eq!(balancer.expire(Duration::from_millis(5), at(6)), [first]);
    balancer.finish(second, Finish::default(), at(7), &mut random);
    assert_eq!(balancer.expire(Duration::from_millis(5), at(7)), [second]);
    assert!(balancer.is_empty());
    // Another of the same address is another.
    assert_ne!(
        balancer.pick_at(&Address::Socket(socket(1)), at(8)),
        Ok(first)
    );
}

use proptest::prelude::*;

use super::*;
use crate::authority::Slot;

const DOMAIN: &str = "cluster.local";
const LIFE: Duration = Duration::days(3650);
const TIMING: Timing = Timing {
    settle: Duration::seconds(5),
    urgent: Duration::minutes(2),
    absent: Duration::minutes(5),
    renewal: Duration::minutes(5),
    leaf: Duration::hours(24),
};

fn start() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn made(now: OffsetDateTime) -> Material {
    Material::make(DOMAIN, LIFE, now).expect("it is made")
}

fn all(slots: &Slots) -> String {
    let of = |slot: &Slot| format!("{} {:?}", slot.number, slot.phase);
    slots.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn raised(root: u32) -> Wanted {
    Wanted {
        root,
        ..Wanted::default()
    }
}

fn lagging(name: &str) -> Heard {
    Heard {
        connected: 2,
        lagging: [name.to_owned()].into(),
        ..Heard::default()
    }
}

/// Roots as they are changed, on a clock of their own.
struct Way {
    slots: Slots,
    now: OffsetDateTime,
}

impl Way {
    fn begin() -> Self {
        let now = start();
        Self {
            slots: Slots::first(made(now), now),
            now,
        }
    }

    /// Takes steps until there is none; what is waited for then.
    fn go(&mut self, wanted: &Wanted, heard: &Heard) -> Option<String> {
        loop {
            let decided = decide(&self.slots, wanted, heard, &TIMING, self.now);
            let (step, waiting) = decided.expect("it is read");
            let brought = wanted.brought.clone();
            let next = taken(&self.slots, step, brought, DOMAIN, LIFE, self.now);
            match next.expect("it is made") {
                Some(next) => self.slots = next,
                None => return waiting,
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn a_root_signs_once_everybody_believes_it_and_goes_once_nothing_of_it_is_left() {
    let mut way = Way::begin();
    let (wanted, all_do) = (raised(2), Heard::default());
    assert_eq!(way.go(&raised(1), &all_do), None);
    assert_eq!(all(&way.slots), "1 Active");
    let waits = way.go(&wanted, &lagging("cart-1.shop"));
    assert_eq!(
        waits.as_deref(),
        Some("1 proxy that does not believe all roots yet")
    );
    way.pass(Duration::days(3));
    way.go(&wanted, &lagging("cart-1.shop"));
    assert_eq!(all(&way.slots), "1 Active, 2 Prepare");
    let waits = way.go(&wanted, &all_do);
    assert_eq!(all(&way.slots), "1 Retiring, 2 Active");
    assert_eq!(waits.as_deref(), Some("what it signed to run out"));
    way.pass(TIMING.leaf);
    way.go(&wanted, &lagging("cart-1.shop"));
    assert_eq!(all(&way.slots), "1 Retiring, 2 Active");
    assert_eq!(way.go(&wanted, &all_do), None);
    assert_eq!(all(&way.slots), "2 Active");
    // The control plane itself is believed by the old one for as long as it is.
    assert_eq!(way.slots.best_known().number, 2);
}

#[test]
fn a_replica_that_says_nothing_holds_everything() {
    let mut way = Way::begin();
    let silent = Heard {
        silent: ["10.0.0.9".to_owned()].into(),
        ..Heard::default()
    };
    way.go(&raised(2), &silent);
    way.pass(Duration::days(9));
    let waits = way.go(&raised(2), &silent);
    let said = "1 replica of the control plane that does not answer";
    assert_eq!(waits.as_deref(), Some(said));
    assert_eq!(all(&way.slots), "1 Active, 2 Prepare");
}

#[test]
fn a_pod_without_a_connection_holds_retirement_and_delays_a_root() {
    let mut way = Way::begin();
    let absent = Heard {
        absent: ["cart-1.shop".to_owned()].into(),
        ..Heard::default()
    };
    let waits = way.go(&raised(2), &absent);
    assert_eq!(waits.as_deref(), Some("1 proxy that is not connected"));
    way.pass(TIMING.absent);
    way.go(&raised(2), &absent);
    assert_eq!(all(&way.slots), "1 Retiring, 2 Active");
    way.pass(Duration::days(9));
    way.go(&raised(2), &absent);
    assert_eq!(all(&way.slots), "1 Retiring, 2 Active");
}

#[test]
fn a_tainted_root_goes_within_ten_minutes_whoever_lags() {
    let mut way = Way::begin();
    let wanted = Wanted {
        tainted: [1].into(),
        ..raised(1)
    };
    let lagging = lagging("cart-1.shop");
    way.go(&wanted, &lagging);
    assert_eq!(all(&way.slots), "1 Active, 2 Prepare");
    way.pass(TIMING.urgent);
    way.go(&wanted, &lagging);
    assert_eq!(all(&way.slots), "1 Retiring, 2 Active");
    // Nobody is to believe the control plane by it any more.
    assert_eq!(way.slots.best_known().number, 2);
    way.pass(TIMING.renewal);
    assert_eq!(way.go(&wanted, &lagging), None);
    assert_eq!(all(&way.slots), "2 Active");
}

#[test]
fn a_tainted_root_that_does_not_sign_yet_is_never_used() {
    let mut way = Way::begin();
    way.go(&raised(2), &lagging("cart-1.shop"));
    let wanted = Wanted {
        tainted: [2].into(),
        ..raised(2)
    };
    way.go(&wanted, &Heard::default());
    way.pass(TIMING.settle);
    way.go(&wanted, &Heard::default());
    assert_eq!(all(&way.slots), "1 Retiring, 3 Active");
}

#[test]
fn a_root_is_replaced_before_its_life_ends_and_an_issuer_below_the_same_root() {
    let mut way = Way::begin();
    let first = way.slots.clone();
    way.pass(Duration::days(300));
    assert_eq!(way.go(&raised(1), &Heard::default()), None);
    let active = &way.slots.active().material;
    assert_eq!(active.root, first.active().material.root);
    assert_ne!(active.issuer, first.active().material.issuer);
    way.pass(LIFE * 2 / 3);
    way.go(&raised(1), &Heard::default());
    way.pass(TIMING.settle);
    way.go(&raised(1), &Heard::default());
    assert_eq!(way.slots.active().number, 2);
}

#[test]
fn an_authority_of_ones_own_takes_over_and_gives_back() {
    let mut way = Way::begin();
    let root = Material {
        root_key: None,
        ..made(way.now)
    };
    let mut wanted = Wanted {
        brought: Some(root.clone()),
        is_brought: true,
        ..raised(1)
    };
    way.go(&wanted, &Heard::default());
    way.pass(TIMING.settle);
    way.go(&wanted, &Heard::default());
    assert_eq!(way.slots.active().material, root);
    // Another issuer below the same root signs at once.
    let issuer = made(way.now).issuer;
    let renewed = Material { issuer, ..root };
    wanted.brought = Some(renewed.clone());
    way.go(&wanted, &Heard::default());
    assert_eq!(way.slots.active().material, renewed);
    // A root of the same kind is asked for, and nobody but its owner can bring one.
    wanted.root = 3;
    let waits = way.go(&wanted, &Heard::default());
    let said = "another root in the Secret fairlead-mesh-issuer";
    assert_eq!(waits.as_deref(), Some(said));
    // What cannot be used changes nothing.
    (wanted.root, wanted.brought) = (1, None);
    way.go(&wanted, &Heard::default());
    assert_eq!(way.slots.active().material, renewed);
    way.go(&raised(1), &Heard::default());
    way.pass(TIMING.settle);
    way.go(&raised(1), &Heard::default());
    assert_eq!(way.slots.active().number, 3);
    assert!(way.slots.active().material.root_key.is_some());
}

/// A proxy as the property below plays it.
#[derive(Debug, Clone)]
struct Proxy {
    believes: BTreeSet<u32>,
    signed_by: u32,
    end: OffsetDateTime,
    is_connected: bool,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    Pass(i64),
    Raise,
    Taint,
    Acknowledge(usize),
    Renew(usize),
    Connect(usize),
    Disconnect(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_i64..40_000).prop_map(Event::Pass),
        2 => Just(Event::Raise),
        1 => Just(Event::Taint),
        9 => (0_usize..3).prop_map(Event::Acknowledge),
        9 => (0_usize..3).prop_map(Event::Renew),
        2 => (0_usize..3).prop_map(Event::Connect),
        1 => (0_usize..3).prop_map(Event::Disconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever is connected believes what anybody may show that no tainted root signed.
    #[test]
    fn whatever_is_shown_is_believed(events in prop::collection::vec(event(), 1..120)) {
        let mut way = Way::begin();
        let mut wanted = raised(1);
        let mut proxies = vec![Proxy {
            believes: [1].into(),
            signed_by: 1,
            end: way.now + TIMING.leaf,
            is_connected: true,
        }; 3];
        for event in events {
            let roots: BTreeSet<u32> = way.slots.iter().map(|slot| slot.number).collect();
            match event {
                Event::Pass(seconds) => way.pass(Duration::seconds(seconds)),
                Event::Raise => wanted.root = way.slots.active().number + 1,
                Event::Taint => drop(wanted.tainted.insert(way.slots.active().number)),
                Event::Acknowledge(number) if proxies[number].is_connected => {
                    proxies[number].believes = roots;
                }
                Event::Renew(number) if proxies[number].is_connected => {
                    let own = &mut proxies[number];
                    own.signed_by = way.slots.active().number;
                    own.end = way.now + TIMING.leaf;
                }
                Event::Connect(number) => {
                    proxies[number].is_connected = true;
                    proxies[number].believes = roots;
                }
                Event::Disconnect(number) => proxies[number].is_connected = false,
                Event::Acknowledge(_) | Event::Renew(_) => {}
            }
            // Each step is told to everybody before the next one.
            loop {
                let roots: BTreeSet<u32> = way.slots.iter().map(|slot| slot.number).collect();
                let mut heard = Heard::default();
                for (number, own) in proxies.iter().enumerate() {
                    let name = number.to_string();
                    match (own.is_connected, own.believes == roots) {
                        (false, _) => drop(heard.absent.insert(name)),
                        (true, false) => drop(heard.lagging.insert(name)),
                        (true, true) => {}
                    }
                }
                let decided = decide(&way.slots, &wanted, &heard, &TIMING, way.now);
                let (step, _) = decided.expect("it is read");
                let next = taken(&way.slots, step, None, DOMAIN, LIFE, way.now);
                match next.expect("it is made") {
                    Some(next) => way.slots = next,
                    None => break,
                }
            }
            prop_assert!(way.slots.iter().count() <= MOST);
            for shown in proxies.iter().filter(|own| own.end > way.now) {
                if wanted.tainted.contains(&shown.signed_by) {
                    continue;
                }
                for seen in proxies.iter().filter(|own| own.is_connected) {
                    let is_hurried = !wanted.tainted.is_empty();
                    prop_assert!(
                        is_hurried || seen.believes.contains(&shown.signed_by),
                        "{shown:?} is shown to {seen:?}, and there are {}",
                        all(&way.slots)
                    );
                }
            }
        }
    }
}

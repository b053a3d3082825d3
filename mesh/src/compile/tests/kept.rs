//! What is kept between two times.

use fairlead_model::identity::SpiffeId;
use proptest::prelude::*;

use super::*;

/// Something that changes.
#[derive(Debug, Clone)]
enum Event {
    /// An endpoint of a service, or a whole service, with or without an address of its own.
    Endpoint {
        service: u8,
        last: u8,
        readiness: Readiness,
    },
    Service {
        service: u8,
        is_headless: bool,
    },
    Gone(u8),
    /// The node of a pod is silent, or heard of again.
    Unheard {
        last: u8,
        is_unheard: bool,
    },
    /// A pod, of one of two accounts.
    Pod {
        last: u8,
        is_there: bool,
        is_web: bool,
    },
    /// What is said of one service or, of none, of the namespace.
    Policy(Option<serde_json::Value>),
    Authorization(Option<u8>),
}

fn event() -> impl Strategy<Value = Event> {
    let target = prop_oneof![
        Just(json!({"kind": "Namespace", "name": "shop"})),
        (0..3u8).prop_map(|own| json!({"kind": "Service", "name": format!("s{own}")})),
    ];
    let said = prop_oneof![
        Just(json!({"timeouts": {"request": "2s"}})),
        Just(json!({"timeouts": {"request": "3s"}, "from": {"serviceAccounts": ["shop/web"]}})),
        Just(json!({"inbound": "Strict"})),
        Just(json!({"egress": "Deny"})),
        Just(json!({"mirror": {"service": "s0"}})),
    ];
    let policy = (target, said).prop_map(|(target, mut said)| {
        said["targetRefs"] = json!([target]);
        said
    });
    let readiness = prop_oneof![
        Just(Readiness::Ready),
        Just(Readiness::Ending),
        Just(Readiness::Not)
    ];
    prop_oneof![
        6 => (0..3u8, 1..4u8, readiness)
            .prop_map(|(service, last, readiness)| Event::Endpoint { service, last, readiness }),
        2 => (0..3u8, any::<bool>())
            .prop_map(|(service, is_headless)| Event::Service { service, is_headless }),
        1 => (0..3u8).prop_map(Event::Gone),
        2 => (1..4u8, any::<bool>())
            .prop_map(|(last, is_unheard)| Event::Unheard { last, is_unheard }),
        3 => (1..4u8, any::<bool>(), any::<bool>())
            .prop_map(|(last, is_there, is_web)| Event::Pod { last, is_there, is_web }),
        2 => proptest::option::weighted(0.8, policy).prop_map(Event::Policy),
        1 => proptest::option::of(0..3u8).prop_map(Event::Authorization),
    ]
}

fn happen(facts: &mut Facts, event: Event) {
    let named = |service: u8| key("shop", &format!("s{service}"));
    let pod = |last: u8| key("shop", &format!("pod-{last}"));
    match event {
        Event::Endpoint {
            service,
            last,
            readiness,
        } => {
            let own = Slice {
                ports: vec![("p80".into(), 8080)],
                endpoints: vec![endpoint(last, Some(pod(last)), readiness)],
            };
            let slices = facts.slices.entry(named(service)).or_default();
            slices.insert(format!("of-{last}").into(), Arc::new(own));
        }
        Event::Service {
            service,
            is_headless,
        } => {
            let own = super::service([10, 0, 0, service], &[(80, Spoken::Detected)]);
            let own = Arc::unwrap_or_clone(own);
            let addresses = if is_headless {
                BTreeSet::new()
            } else {
                own.addresses
            };
            let own = Service { addresses, ..own };
            facts.services.insert(named(service), Arc::new(own));
        }
        Event::Unheard {
            last,
            is_unheard: true,
        } => drop(facts.unheard.insert(pod(last))),
        Event::Unheard { last, .. } => drop(facts.unheard.remove(&pod(last))),
        Event::Gone(service) => drop(facts.services.remove(&named(service))),
        Event::Pod {
            last,
            is_there: false,
            ..
        } => drop(facts.pods.remove(&pod(last))),
        Event::Pod { last, is_web, .. } => {
            let own = Pod {
                id: id(if is_web { "web" } else { "cart" }),
                labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
                probes: Vec::new(),
            };
            facts.pods.insert(pod(last), Arc::new(own));
        }
        Event::Policy(spec) => {
            let policies = policies::with(spec.as_slice()).policies;
            facts.policies = policies
                .into_iter()
                .filter(|(_, all)| !all.is_empty())
                .collect();
        }
        Event::Authorization(service) => {
            let spec = |own: u8| {
                json!({
                    "targetRefs": [{"kind": "Service", "name": format!("s{own}")}],
                    "action": "Allow",
                    "rules": [{"from": {"serviceAccounts": ["shop/web"]}}],
                })
            };
            authorize(facts, service.map(spec).as_slice());
        }
    }
}

fn id(account: &str) -> SpiffeId {
    let id = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    id.parse().expect("an id")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// What was kept is what would be made anew, whatever changed before.
    #[test]
    fn what_is_kept_is_what_would_be_made(events in proptest::collection::vec(event(), 1..16)) {
        let mut facts = Facts::default();
        let mut compiler = Compiler::default();
        for event in events {
            happen(&mut facts, event);
            let now = Arc::new(facts.clone());
            let kept = compiler.compile(&now, "roots").expect("it compiles");
            let made = Compiler::default().compile(&now, "roots").expect("it compiles");
            prop_assert_eq!(&kept.shared, &made.shared);
            prop_assert_eq!(&kept.usual, &made.usual);
            prop_assert_eq!(&kept.callers, &made.callers);
            prop_assert_eq!(&kept.guarded, &made.guarded);
            for account in ["web", "cart"] {
                let [kept, made] = [&kept, &made].map(|own| own.programs.told(&id(account), 0));
                prop_assert_eq!(&kept.expect("it is made").resources, &made.expect("it is made").resources);
            }
        }
    }
}

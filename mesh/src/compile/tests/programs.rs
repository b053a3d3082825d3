//! What programs without a proxy are told.

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What a program of an account is told at a time.
fn told(facts: Facts, account: &str, now: u64) -> (View, Option<u64>) {
    let compiled = Compiler::default()
        .compile(&Arc::new(facts), "roots")
        .expect("it compiles");
    let told = compiled.by_name(&account.parse().expect("an id"), now);
    told.expect("it compiles")
}

fn names(view: &View, kind: Kind) -> Vec<String> {
    view.all(kind).map(|(name, _)| name.to_string()).collect()
}

#[test]
fn ports_that_may_speak_http_have_names_and_those_with_a_proxy_another() {
    let (view, until) = told(facts(), WEB, 0);
    assert_eq!(until, None);
    let listeners = ["cart.shop.mesh.fairlead.dev:80", "cart.shop:80"];
    assert_eq!(names(&view, Kind::Listener), listeners);
    let clusters = ["cart.shop:80/program", "cart.shop:80/secured"];
    assert_eq!(names(&view, Kind::Endpoints), clusters);
    // Nobody who asks for all there is is told of these.
    assert!(
        super::view(&facts())
            .get(Kind::Listener, "cart.shop:80")
            .is_none()
    );
}

#[test]
fn the_usual_port_is_the_only_one_or_that_for_grpc() {
    for (ports, has_usual) in [
        (vec![(80, "web")], true),
        (vec![(80, "web"), (81, "grpc-next")], true),
        (vec![(80, "web"), (81, "grpcs")], false),
        (vec![(80, "web"), (81, "grpc"), (82, "grpc-x")], true),
    ] {
        let mut facts = facts();
        let service = Service {
            ports: ports
                .iter()
                .map(|(number, name)| Port {
                    number: *number,
                    name: (*name).into(),
                    spoken: Spoken::Http2,
                })
                .collect(),
            ..(*facts.services[&key("shop", "cart")]).clone()
        };
        facts
            .services
            .insert(key("shop", "cart"), Arc::new(service));
        let (view, _) = told(facts, WEB, 0);
        let is_there = |name: &str| view.get(Kind::Listener, name).is_some();
        assert_eq!(is_there("cart.shop"), has_usual, "{ports:?}");
        for (number, _) in ports {
            assert!(is_there(&format!("cart.shop:{number}")), "{number}");
        }
    }
}

#[test]
fn faults_are_for_those_who_are_named_and_until_their_end() {
    let mut facts = facts();
    let own = json!({
        "apiVersion": "mesh.fairlead.dev/v1alpha1",
        "kind": "MeshPolicy",
        "metadata": {"name": "own", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "cart"}],
            "from": {"serviceAccounts": ["shop/web"]},
            "fault": {
                "abort": {"status": 503, "percent": 100},
                "until": "1970-01-01T00:01:00Z",
            },
        },
    });
    let own = serde_json::from_value(own).expect("a policy");
    facts.policies.insert("shop".into(), vec![Arc::new(own)]);
    let compiled = Compiler::default()
        .compile(&Arc::new(facts), "roots")
        .expect("it compiles");
    let told = |account: &str, now| {
        let id = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse();
        let told = compiled.by_name(&id.expect("an id"), now);
        let (view, until) = told.expect("it compiles");
        let listener = view.get(Kind::Listener, "cart.shop:80");
        (listener.expect("it is there").version().clone(), until)
    };
    let (usual, none) = told("till", 0);
    assert_eq!(none, None);
    let (faulty, until) = told("web", 59);
    assert_ne!(faulty, usual);
    assert_eq!(until, Some(60));
    assert_eq!(told("web", 60), (usual, None));
}

//! Who has the last word on a header.

mod support;

use std::sync::Arc;

use fairlead_model::listener::Routes;
use fairlead_model::route::{
    Action, HeaderChange, HeaderChanges, HeaderText, OnPresent, Route, RouteMatch, RouteTable,
    TableChanges, VirtualHost,
};
use http::{HeaderName, HeaderValue};
use support::{Endpoint, http, proxy, route, text_answer, to, up};

/// Says who it is in two headers: one it puts in the place of others', and one it adds to theirs.
fn says(who: &'static str) -> HeaderChanges {
    let set = |name, present| HeaderChange {
        name: HeaderName::from_static(name),
        value: HeaderText::Literal(HeaderValue::from_static(who)),
        present,
        only_if_present: false,
    };
    HeaderChanges {
        remove: Vec::new(),
        set: vec![
            set("x-last", OnPresent::Replace),
            set("x-all", OnPresent::Append),
        ],
    }
}

/// What the endpoint and the caller see of these headers.
async fn seen(most_exact_wins: bool) -> [(String, String); 2] {
    let endpoint = Endpoint::start(|request, _| async move {
        let all = |name: &str| -> Vec<String> {
            let values = request.headers().get_all(name).iter();
            values
                .map(|own| own.to_str().expect("text").to_owned())
                .collect()
        };
        text_answer(
            200,
            &format!("{}/{}", all("x-last").join(","), all("x-all").join(",")),
        )
    })
    .await;
    let own = Route {
        request_headers: says("route"),
        response_headers: says("route"),
        ..(*route(
            "all",
            RouteMatch::default(),
            Action::Forward(Box::new(to("up"))),
        ))
        .clone()
    };
    let host = VirtualHost {
        rates: Vec::new(),
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Arc::new(own)],
        request_headers: says("host"),
        response_headers: says("host"),
        filters: Default::default(),
        table: Arc::default(),
    };
    let table = RouteTable::new("all", vec![host], false).expect("a table");
    let table = table.changing(TableChanges {
        request_headers: says("table"),
        response_headers: says("table"),
        most_exact_wins,
        ..TableChanges::default()
    });
    let mut http = http(Vec::new());
    http.routes = Routes::Inline(Arc::new(table));
    let proxy = proxy(http, up(&[endpoint.address])).await;
    let (head, body) = proxy.get("/").await;
    let all = |name: &str| -> String {
        let values = head.headers.get_all(name).iter();
        let values: Vec<&str> = values.map(|own| own.to_str().expect("text")).collect();
        values.join(",")
    };
    let (last, every) = body.split_once('/').expect("two parts");
    [
        (last.to_owned(), every.to_owned()),
        (all("x-last"), all("x-all")),
    ]
}

#[tokio::test]
async fn the_least_exact_has_the_last_word_unless_the_table_says_otherwise() {
    for (most_exact_wins, last, all) in [
        (false, "table", "route,host,table"),
        (true, "route", "table,host,route"),
    ] {
        for found in seen(most_exact_wins).await {
            assert_eq!(found, (last.to_owned(), all.to_owned()));
        }
    }
}

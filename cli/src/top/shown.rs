//! Live figures as people and programs are told them.

use std::cmp::Reverse;
use std::fmt::Write as _;

use fairlead_xds::figures::{Row, TopResponse};
use serde::Serialize;

use super::Of;
use crate::output;

/// The figures as they are shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    /// How far back, in seconds.
    seconds: u32,
    /// How many replicas told theirs, and how many did not.
    replicas: u32,
    missing: u32,
    rows: Vec<Line>,
}

/// A row.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    requests: u64,
    failures: u64,
    requests_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_milliseconds: Option<f64>,
}

/// A workload, or a port of a service.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Named {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u32>,
}

impl Named {
    /// As it is called from a namespace; from none it has its own.
    fn text(&self, from: &str) -> String {
        let mut text = self.name.clone();
        if !self.namespace.is_empty() && self.namespace != from {
            let _ = write!(text, ".{}", self.namespace);
        }
        if let Some(port) = self.port {
            let _ = write!(text, ":{port}");
        }
        text
    }
}

impl Shown {
    /// The busiest first.
    pub(super) fn of(told: &TopResponse) -> Self {
        let rows = told.rows.iter();
        let mut rows: Vec<Line> = rows.map(|row| Line::of(row, told.seconds)).collect();
        rows.sort_by_cached_key(Line::order);
        Self {
            seconds: told.seconds,
            replicas: told.replicas,
            missing: told.missing,
            rows,
        }
    }

    /// As a table, with names as they are called from a namespace.
    pub(super) fn text(&self, of: Of, namespace: &str) -> String {
        let (caller, service) = match of {
            Of::Services | Of::Routes => (None, Some("SERVICE")),
            Of::Pairs => (Some("FROM"), Some("SERVICE")),
            Of::Workloads => (Some("WORKLOAD"), None),
            Of::Destinations => (Some("FROM"), Some("DESTINATION")),
        };
        let route = (of == Of::Routes).then_some("ROUTE");
        let figures: &[&str] = match of {
            Of::Destinations => &["CONNECTIONS/S", "SUCCESS"],
            _ => &["RPS", "SUCCESS", "P50", "P95", "P99"],
        };
        let head = caller
            .into_iter()
            .chain(service)
            .chain(route)
            .chain(figures.iter().copied());
        let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for line in &self.rows {
            let name = |own: &Option<Named>| {
                own.as_ref()
                    .map_or("outside".to_owned(), |own| own.text(namespace))
            };
            let mut cells = Vec::new();
            cells.extend(caller.map(|_| name(&line.caller)));
            cells.extend(service.map(|_| name(&line.service)));
            cells.extend(route.map(|_| line.route.clone().unwrap_or("-".to_owned())));
            let all = [
                format!("{:.1}", line.requests_per_second),
                line.success(),
                time(line.p50_milliseconds),
                time(line.p95_milliseconds),
                time(line.p99_milliseconds),
            ];
            cells.extend(all.into_iter().take(figures.len()));
            rows.push(cells);
        }
        let mut text = output::table(&rows);
        if self.rows.is_empty() {
            let what = match of {
                Of::Destinations => "connections to what is no service of the mesh",
                _ => "requests",
            };
            text = format!("no {what} within the last {} seconds\n", self.seconds);
        }
        if self.missing > 0 {
            let _ = writeln!(
                text,
                "\n{} of {} replicas of the control plane did not answer: this is not all.",
                self.missing,
                self.missing + self.replicas
            );
        }
        text
    }
}

impl Line {
    fn of(row: &Row, seconds: u32) -> Self {
        let pair = &row.pair;
        let named = |namespace: &str, name: &str, port: u32| {
            (!name.is_empty()).then(|| Named {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                port: Some(port).filter(|port| *port > 0),
            })
        };
        let requests = row.successes.saturating_add(row.failures);
        #[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
        let requests_per_second = requests as f64 / f64::from(seconds.max(1));
        Self {
            caller: named(&pair.caller_namespace, &pair.caller, 0),
            service: named(&pair.namespace, &pair.service, pair.port),
            route: Some(pair.route.clone()).filter(|route| !route.is_empty()),
            requests,
            failures: row.failures,
            requests_per_second,
            p50_milliseconds: row.p50,
            p95_milliseconds: row.p95,
            p99_milliseconds: row.p99,
        }
    }

    /// The busiest goes first, and then by name.
    fn order(&self) -> (Reverse<u64>, String, String, Option<String>) {
        let name = |own: &Option<Named>| own.as_ref().map_or_else(String::new, |own| own.text(""));
        (
            Reverse(self.requests),
            name(&self.service),
            name(&self.caller),
            self.route.clone(),
        )
    }

    /// The share that succeeded; all of them is said of all alone.
    fn success(&self) -> String {
        if self.requests == 0 {
            return "-".to_owned();
        }
        #[expect(clippy::cast_precision_loss, reason = "a share to look at")]
        let share = 100.0 - 100.0 * self.failures as f64 / self.requests as f64;
        match self.failures {
            0 => "100%".to_owned(),
            _ => format!("{:.2}%", share.min(99.99)),
        }
    }
}

/// A time as people read it.
fn time(milliseconds: Option<f64>) -> String {
    match milliseconds {
        None => "-".to_owned(),
        Some(own) if own < 10.0 => format!("{own:.1}ms"),
        Some(own) if own < 1_000.0 => format!("{own:.0}ms"),
        Some(own) => format!("{:.1}s", own / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_xds::figures::Pair;

    use super::*;

    fn row(caller: (&str, &str), service: (&str, &str), ends: (u64, u64), p50: f64) -> Row {
        Row {
            pair: Pair {
                caller_namespace: caller.0.to_owned(),
                caller: caller.1.to_owned(),
                namespace: service.0.to_owned(),
                service: service.1.to_owned(),
                port: if service.1.is_empty() { 0 } else { 80 },
                route: String::new(),
            },
            successes: ends.0,
            failures: ends.1,
            p50: (p50 > 0.0).then_some(p50),
            p95: (p50 > 0.0).then_some(p50 * 2.0),
            p99: (p50 > 0.0).then_some(p50 * 100.0),
        }
    }

    fn shown(rows: Vec<Row>) -> Shown {
        Shown::of(&TopResponse {
            seconds: 10,
            rows,
            replicas: 2,
            missing: 0,
        })
    }

    #[test]
    fn the_busiest_is_first() {
        let rows = vec![
            row(("", ""), ("shop", "till"), (9, 0), 0.0),
            row(("", ""), ("shop", "cart"), (99_999, 1), 7.5),
            row(("", ""), ("bank", "cart"), (9, 0), 80.0),
        ];
        assert_eq!(
            shown(rows).text(Of::Services, "shop"),
            "SERVICE       RPS      SUCCESS  P50    P95    P99\n\
             cart:80       10000.0  99.99%   7.5ms  15ms   750ms\n\
             cart.bank:80  0.9      100%     80ms   160ms  8.0s\n\
             till:80       0.9      100%     -      -      -\n"
        );
    }

    #[test]
    fn callers_outside_of_the_mesh_have_no_name() {
        let rows = vec![
            row(("shop", "web"), ("shop", "cart"), (2, 2), 1.0),
            row(("", ""), ("shop", "cart"), (1, 0), 1.0),
        ];
        let text = shown(rows).text(Of::Pairs, "");
        assert_eq!(
            text,
            "FROM      SERVICE       RPS  SUCCESS  P50    P95    P99\n\
             web.shop  cart.shop:80  0.4  50.00%   1.0ms  2.0ms  100ms\n\
             outside   cart.shop:80  0.1  100%     1.0ms  2.0ms  100ms\n"
        );
        let rows = vec![row(("shop", "web"), ("", ""), (1, 0), 1.0)];
        assert!(
            shown(rows)
                .text(Of::Workloads, "shop")
                .starts_with("WORKLOAD  RPS")
        );
    }

    #[test]
    fn destinations_are_counted_by_connections() {
        let rows = vec![row(("shop", "web"), ("", "api.example.com"), (2, 2), 0.0)];
        assert_eq!(
            shown(rows).text(Of::Destinations, "shop"),
            "FROM  DESTINATION         CONNECTIONS/S  SUCCESS\n\
             web   api.example.com:80  0.4            50.00%\n"
        );
    }

    #[test]
    fn routes_are_of_a_service() {
        let on = |route: &str, ends| {
            let mut row = row(("", ""), ("shop", "cart"), ends, 1.0);
            row.pair.route = route.to_owned();
            row
        };
        let rows = vec![
            on("outside/http1", (1, 0)),
            on("http1", (1, 3)),
            on("http2", (1, 0)),
            on("", (2, 0)),
        ];
        let shown = shown(rows);
        assert_eq!(
            shown.text(Of::Routes, "shop"),
            "SERVICE  ROUTE          RPS  SUCCESS  P50    P95    P99\n\
             cart:80  http1          0.4  25.00%   1.0ms  2.0ms  100ms\n\
             cart:80  -              0.2  100%     1.0ms  2.0ms  100ms\n\
             cart:80  http2          0.1  100%     1.0ms  2.0ms  100ms\n\
             cart:80  outside/http1  0.1  100%     1.0ms  2.0ms  100ms\n"
        );
        let told = serde_json::to_value(&shown).expect("plain data");
        assert_eq!(told["rows"][0]["route"], "http1");
        assert_eq!(told["rows"][1].get("route"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut none = shown(Vec::new());
        none.missing = 1;
        assert_eq!(
            none.text(Of::Services, "shop"),
            "no requests within the last 10 seconds\n\n\
             1 of 3 replicas of the control plane did not answer: this is not all.\n"
        );
    }
}

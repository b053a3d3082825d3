//! The overload manager of the bootstrap (`config.overload.v3`): memory, and what is given up for it.

use std::time::Duration;

use fairlead_model::overload::Overload;

use crate::field::{Field, Result};

/// How its settings are called.
pub(crate) const HEAP: &str = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";
/// What looks at the memory.
pub(crate) const MONITOR: &str = "envoy.resource_monitors.fixed_heap";
/// Requests are refused.
pub(crate) const REQUESTS: &str = "envoy.overload_actions.stop_accepting_requests";
/// Connections are refused.
pub(crate) const CONNECTIONS: &str = "envoy.overload_actions.stop_accepting_connections";
/// Connections end with their request.
pub(crate) const KEEP_ALIVE: &str = "envoy.overload_actions.disable_http_keepalive";

/// An `OverloadManager`.
pub(crate) fn read(field: &Field<'_>) -> Result<Overload> {
    let fields = field.fields()?;
    let mut overload = Overload {
        requests: None,
        connections: None,
        ..Overload::default()
    };
    if let Some(refresh) = fields.get("refresh_interval") {
        overload.refresh = refresh.duration()?;
        if overload.refresh < Duration::from_millis(1) {
            return Err(refresh.error("is too short; at least 0.001s is expected"));
        }
    }
    let monitors = fields.need("resource_monitors")?;
    let list = monitors.list()?;
    let [monitor] = list.as_slice() else {
        return Err(monitors.error(format!("{} monitors; {MONITOR} is supported", list.len())));
    };
    let own = monitor.fields()?;
    own.need("name")?.one_of(&[(MONITOR, ())])?;
    let (_, config) = own.need("typed_config")?.typed(&[HEAP])?;
    own.finish()?;
    let config = config.fields()?;
    let bytes = config.need("max_heap_size_bytes")?.number(1, u64::MAX)?;
    config.finish()?;
    overload.limit = Some(bytes);
    for own in fields.list("actions")? {
        action(&own, &mut overload)?;
    }
    fields.finish()?;
    Ok(overload)
}

fn action(field: &Field<'_>, overload: &mut Overload) -> Result<()> {
    let fields = field.fields()?;
    let which = fields
        .need("name")?
        .one_of(&[(REQUESTS, 0), (CONNECTIONS, 1), (KEEP_ALIVE, 2)])?;
    let triggers = fields.need("triggers")?;
    let list = triggers.list()?;
    let [trigger] = list.as_slice() else {
        return Err(triggers.error(format!("{} triggers; one is supported", list.len())));
    };
    let own = trigger.fields()?;
    own.need("name")?.one_of(&[(MONITOR, ())])?;
    let threshold = own.need("threshold")?.fields()?;
    own.finish()?;
    let value = threshold.need("value")?;
    threshold.finish()?;
    let share = value.decimal()?;
    if !(0.0..=1.0).contains(&share) {
        return Err(value.error(format!("{share} is no share from 0 to 1")));
    }
    fields.finish()?;
    match which {
        0 => overload.requests = Some(share),
        1 => overload.connections = Some(share),
        _ => overload.keep_alive = Some(share),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manager(actions: Value) -> Value {
        json!({
            "refresh_interval": "0.25s",
            "resource_monitors": [{
                "name": MONITOR,
                "typed_config": {
                    "@type": format!("type.googleapis.com/{HEAP}"),
                    "max_heap_size_bytes": "1000",
                },
            }],
            "actions": actions,
        })
    }

    fn of(value: &Value) -> std::result::Result<Overload, String> {
        read(&Field::root(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manager_is_read() {
        let trigger = |share: f64| json!([{"name": MONITOR, "threshold": {"value": share}}]);
        let value = manager(json!([
            {"name": REQUESTS, "triggers": trigger(0.98)},
            {"name": KEEP_ALIVE, "triggers": trigger(0.9)},
        ]));
        assert_eq!(
            of(&value),
            Ok(Overload {
                limit: Some(1000),
                refresh: Duration::from_millis(250),
                requests: Some(0.98),
                connections: None,
                keep_alive: Some(0.9),
            })
        );
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        for (actions, expected) in [
            (
                json!([{"name": "envoy.overload_actions.shrink_heap"}]),
                "actions[0].name: \"envoy.overload_actions.shrink_heap\" is not supported; ",
            ),
            (
                json!([{"name": REQUESTS, "triggers": [{"name": MONITOR, "scaled": {}}]}]),
                "actions[0].triggers[0].threshold: is required",
            ),
            (
                json!([{"name": REQUESTS, "triggers": [{"name": MONITOR, "threshold": {"value": 95}}]}]),
                "actions[0].triggers[0].threshold.value: 95 is no share from 0 to 1",
            ),
        ] {
            let found = of(&manager(actions));
            assert!(
                found
                    .as_ref()
                    .is_err_and(|error| error.starts_with(expected)),
                "{found:?}"
            );
        }
    }
}

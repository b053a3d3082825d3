//! Metrics under the names of a reference, as Prometheus' text form.

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::registry::Registry;

/// A metric as the documentation lists it: name, type, labels, help.
pub type Entry = (&'static str, &'static str, &'static str, &'static str);

/// The metrics of a process, or of a part of it.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    reference: &'static [Entry],
}

impl Exposition {
    /// Metrics of a reference, none of which is there yet.
    #[must_use]
    pub fn of(reference: &'static [Entry]) -> Self {
        Self {
            registry: Registry::default(),
            reference,
        }
    }

    /// Adds the metric of that name, with the help that the reference has for it.
    pub fn add<M>(&mut self, name: &str, metric: M)
    where
        M: EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
    {
        let mut entries = self.reference.iter();
        let help = entries
            .find(|(known, ..)| *known == name)
            .map_or("", |(.., help)| help);
        // Counters get their `_total` from the encoder.
        let family = name.strip_suffix("_total").unwrap_or(name);
        self.registry.register(family, help, metric);
    }

    /// All of them as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Several texts of metrics as one.
#[must_use]
pub fn join(texts: &[String]) -> String {
    let mut joined: String = texts
        .iter()
        .map(|text| text.trim_end().trim_end_matches("# EOF"))
        .collect();
    joined.push_str("# EOF\n");
    joined
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn joined_texts_end_once() {
        let text = || {
            let mut own = Exposition::of(&[("asked_total", "counter", "", "Asked")]);
            own.add("asked_total", Counter::<u64>::default());
            own.encode()
        };
        let joined = join(&[text(), text()]);
        assert_eq!(joined.matches("# EOF").count(), 1);
        assert!(joined.ends_with("\n# EOF\n"), "{joined}");
    }
}

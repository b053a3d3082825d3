//! Which workload made a pod, as the pod's labels and its name say.

use std::collections::BTreeMap;

use fairlead_crds::mesh::TargetKind;

/// The labels that say of a pod by which kind of workload it was made.
const TEMPLATE_HASH: &str = "pod-template-hash";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const REVISION_HASH: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// How many digits there are at least in the time that a CronJob gives to the names of its Jobs.
const CRON_DIGITS: usize = 8;

/// The name of the workload that made the pod called `name`: of a Deployment, StatefulSet, DaemonSet, CronJob or Job; the pod's own
/// where nothing did.
#[must_use]
pub fn workload<'a>(labels: &'a BTreeMap<String, String>, name: &'a str) -> &'a str {
    let before = |text: &'a str| text.rsplit_once('-').map_or(text, |(before, _)| before);
    if let Some(hash) = labels.get(TEMPLATE_HASH) {
        let set = before(name);
        let deployment = set.strip_suffix(hash.as_str());
        return deployment
            .and_then(|own| own.strip_suffix('-'))
            .unwrap_or(set);
    }
    if let Some(job) = labels.get(JOB_NAME) {
        let cron = job.rsplit_once('-').filter(|(_, time)| {
            time.len() >= CRON_DIGITS && time.bytes().all(|own| own.is_ascii_digit())
        });
        return cron.map_or(job, |(cron, _)| cron);
    }
    match labels.contains_key(REVISION_HASH) {
        true => before(name),
        false => name,
    }
}

/// The Deployment, StatefulSet or DaemonSet that made the pod called `name`; nothing where none of them did.
#[must_use]
pub fn made_by<'a>(
    labels: &'a BTreeMap<String, String>,
    name: &'a str,
) -> Option<(TargetKind, &'a str)> {
    let workload = workload(labels, name);
    if let Some(hash) = labels.get(TEMPLATE_HASH) {
        let rest = name.strip_prefix(workload)?.strip_prefix('-')?;
        let is_named = rest.strip_prefix(hash.as_str())?.starts_with('-');
        return is_named.then_some((TargetKind::Deployment, workload));
    }
    if labels.contains_key(JOB_NAME) || !labels.contains_key(REVISION_HASH) {
        return None;
    }
    let kind = match labels.contains_key(POD_NAME) {
        true => TargetKind::StatefulSet,
        false => TargetKind::DaemonSet,
    };
    Some((kind, workload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_of_the_workload_that_made_it() {
        for (name, label, expected) in [
            ("cart-6c9c5f7d7-x2x8q", (TEMPLATE_HASH, "6c9c5f7d7"), "cart"),
            ("odd-x2x8q", (TEMPLATE_HASH, "6c9c5f7d7"), "odd"),
            ("db-0", (REVISION_HASH, "db-5c7f"), "db"),
            ("agent-x2x8q", (REVISION_HASH, "5c7f"), "agent"),
            ("import-x2x8q", (JOB_NAME, "import"), "import"),
            (
                "backup-29381040-x2x8q",
                (JOB_NAME, "backup-29381040"),
                "backup",
            ),
            (
                "import-2026-x2x8q",
                (JOB_NAME, "import-2026"),
                "import-2026",
            ),
            ("debug-1", ("app", "debug"), "debug-1"),
        ] {
            let labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
            assert_eq!(workload(&labels, name), expected);
        }
    }

    #[test]
    fn a_pod_is_known_by_the_kind_of_its_workload() {
        use TargetKind::{DaemonSet, Deployment, StatefulSet};
        let hash = (TEMPLATE_HASH, "6c9c5f7d7");
        for (name, labels, expected) in [
            (
                "cart-6c9c5f7d7-x2x8q",
                &[hash][..],
                Some((Deployment, "cart")),
            ),
            // A ReplicaSet of nobody's.
            ("odd-x2x8q", &[hash], None),
            (
                "db-0",
                &[(REVISION_HASH, "db-5c7f"), (POD_NAME, "db-0")],
                Some((StatefulSet, "db")),
            ),
            (
                "agent-x2x8q",
                &[(REVISION_HASH, "5c7f")],
                Some((DaemonSet, "agent")),
            ),
            ("import-x2x8q", &[(JOB_NAME, "import")], None),
            ("debug-1", &[], None),
        ] {
            let labels = labels.iter();
            let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            assert_eq!(made_by(&labels.collect(), name), expected, "{name}");
        }
    }
}

//! The reference page of conditions and reasons.

use std::fmt::Write as _;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};

use crate::NOTICE;

/// The conditions that every kind has.
const COMMON: [ConditionType; 3] = [
    ConditionType::Ready,
    ConditionType::Accepted,
    ConditionType::Stalled,
];

struct Carriers(Vec<(&'static str, Vec<ConditionType>)>);

impl Visitor for Carriers {
    fn visit<K: Kind>(&mut self) {
        self.0.push((K::NAME.as_str(), K::CONDITIONS.to_vec()));
    }
}

/// The page.
pub(crate) fn page() -> String {
    let mut carriers = Carriers(Vec::new());
    registry::visit(&mut carriers);
    let mut page = format!(
        "<!-- {NOTICE} -->\n# Conditions\n\n\
         Every object says how it is in `status.conditions`, in the shape of `metav1.Condition`: a type, a status (`True`, `False`, `Unknown`),\n\
         the generation that was observed, a reason for programs and a message for people. They are there from the first visit.\n\n\
         ## Types\n\n| type | carried by | meaning |\n|---|---|---|\n"
    );
    for (type_, meaning) in ConditionType::ALL {
        let kinds: Vec<&str> = carriers
            .0
            .iter()
            .filter(|(_, own)| own.contains(type_))
            .map(|(kind, _)| *kind)
            .collect();
        let by = if COMMON.contains(type_) {
            "every kind".to_owned()
        } else {
            kinds.join(", ")
        };
        // Writing into a String does not fail.
        let _ = writeln!(page, "| `{type_}` | {by} | {} |", meaning.trim());
    }
    page.push_str("\n## Reasons\n\n| reason | meaning |\n|---|---|\n");
    for (reason, meaning) in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} |", meaning.trim());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_carried_by_some_kind() {
        assert!(
            !page().contains("|  |"),
            "a condition type that no kind carries:\n{}",
            page()
        );
    }
}

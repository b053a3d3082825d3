//! What an error of the API server means: its class, and a message that stays the same from pass to pass.

use fairlead_crds::condition::Reason;
use fairlead_crds::labels;
use fairlead_plan::{Class, ObjectKey, Problem};
use kube::Error;
use kube::core::ApiResource;

/// The problem that an error is, for a request about the object `key`.
pub(crate) fn problem_of(
    error: &Error,
    key: &ObjectKey,
    resource: Option<&ApiResource>,
) -> Problem {
    let problem = |class, reason, message: String| Problem {
        class,
        reason,
        message,
    };
    let Error::Api(status) = error else {
        return problem(
            Class::Transient,
            Reason::Unavailable,
            "the API server did not answer; it is tried again".to_owned(),
        );
    };
    let message = &status.message;
    match status.code {
        401 => problem(
            Class::Denied,
            Reason::MissingPermission,
            "the API server does not accept the operator's identity".to_owned(),
        ),
        403 if message.contains("is being terminated") || message.contains("being terminated") => {
            problem(
                Class::Transient,
                Reason::Terminating,
                format!("{key}: its namespace is being deleted"),
            )
        }
        403 if message.contains("is forbidden: User ") => problem(
            Class::Denied,
            Reason::MissingPermission,
            permission(key, resource),
        ),
        403 => problem(Class::Denied, Reason::Rejected, format!("{key}: {message}")),
        404 => problem(
            Class::Transient,
            Reason::NotFound,
            format!("{key}: {message}"),
        ),
        409 => problem(
            Class::Conflict,
            Reason::Conflict,
            format!("{key} changed in between; it is tried again"),
        ),
        413 => problem(
            Class::Invalid,
            Reason::Rejected,
            format!("{key}: the object is too large for the API server"),
        ),
        400 | 405 | 422 => problem(
            Class::Invalid,
            Reason::Rejected,
            format!("{key}: {message}"),
        ),
        429 => problem(
            Class::Transient,
            Reason::Unavailable,
            "the API server is busy; it is tried again".to_owned(),
        ),
        _ => problem(
            Class::Transient,
            Reason::Unavailable,
            format!("{key}: {message}"),
        ),
    }
}

/// The rule that is missing, as somebody would add it.
fn permission(key: &ObjectKey, resource: Option<&ApiResource>) -> String {
    let plural = resource.map_or_else(
        || format!("{}s", key.kind.to_lowercase()),
        |resource| resource.plural.clone(),
    );
    format!(
        "the operator may not make {} objects; add to a ClusterRole with the label {}: \"true\" the rule {{apiGroups: [\"{}\"], resources: [\"{plural}\"], verbs: [get, list, watch, create, patch, delete]}}",
        key.kind,
        labels::PROVISION,
        key.group(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn error(code: u16, message: &str) -> Error {
        Error::Api(Box::new(Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        }))
    }

    #[test]
    fn a_missing_right_prints_the_rule_to_add() {
        let key = ObjectKey::new("batch/v1", "CronJob", Some("a"), "x");
        let problem = problem_of(
            &error(
                403,
                "cronjobs.batch is forbidden: User \"x\" cannot create resource",
            ),
            &key,
            None,
        );
        assert_eq!(problem.class, Class::Denied);
        assert!(
            problem
                .message
                .contains("{apiGroups: [\"batch\"], resources: [\"cronjobs\"]"),
            "{}",
            problem.message
        );
    }

    #[test]
    fn a_namespace_that_goes_is_waited_for() {
        let key = ObjectKey::new("v1", "ConfigMap", Some("a"), "x");
        let problem = problem_of(
            &error(
                403,
                "configmaps x is forbidden: unable to create new content in namespace a because it is being terminated",
            ),
            &key,
            None,
        );
        assert_eq!(problem.class, Class::Transient);
    }
}

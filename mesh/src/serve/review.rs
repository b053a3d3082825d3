//! To whom a token belongs, and what that may do.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

/// How the names of service accounts begin.
const ACCOUNT: &str = "system:serviceaccount:";

/// Why nobody is known by a token.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is none, ran out, is meant for somebody else, or its pod is gone.
    #[error("the token is not valid for {audience}")]
    Refused {
        /// Whom it has to be meant for.
        audience: &'static str,
    },
    /// Nobody could be asked.
    #[error("failed to review a token or a right: {source}")]
    Failed {
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// A service account: its namespace, and its name.
pub type Account = (String, String);

/// Says to whom a token belongs, and what that may do.
pub trait Review: Send + Sync {
    /// Asks whose a token is that has to be meant for an audience.
    fn review(
        &self,
        token: String,
        audience: &'static str,
    ) -> BoxFuture<'_, Result<Account, ReviewError>>;

    /// Asks whether an account may get the services of a namespace, or of all of them.
    fn may_see<'a>(
        &'a self,
        account: &'a Account,
        namespace: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>>;
}

/// The API server's reviews.
#[derive(Clone)]
pub struct TokenReviews(pub Client);

impl Review for TokenReviews {
    fn review(
        &self,
        token: String,
        audience: &'static str,
    ) -> BoxFuture<'_, Result<Account, ReviewError>> {
        let api: Api<TokenReview> = Api::all(self.0.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        Box::pin(async move {
            let reviewed = api.create(&PostParams::default(), &review).await;
            let reviewed = reviewed.map_err(|source| ReviewError::Failed {
                source: Box::new(source),
            })?;
            account(reviewed, audience).ok_or(ReviewError::Refused { audience })
        })
    }

    fn may_see<'a>(
        &'a self,
        account: &'a Account,
        namespace: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        let api: Api<SubjectAccessReview> = Api::all(self.0.clone());
        Box::pin(async move {
            let review = access(account, namespace);
            let reviewed = api.create(&PostParams::default(), &review).await;
            let reviewed = reviewed.map_err(|source| ReviewError::Failed {
                source: Box::new(source),
            })?;
            Ok(reviewed.status.is_some_and(|status| status.allowed))
        })
    }
}

/// The question whether an account may get services.
fn access((of, name): &Account, namespace: Option<&str>) -> SubjectAccessReview {
    let groups = [
        "serviceaccounts",
        &format!("serviceaccounts:{of}"),
        "authenticated",
    ];
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("{ACCOUNT}{of}:{name}")),
            groups: Some(groups.map(|group| format!("system:{group}")).to_vec()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some("get".to_owned()),
                resource: Some("services".to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The service account of a review that found one.
fn account(review: TokenReview, audience: &str) -> Option<Account> {
    let status = review.status?;
    // One that knows nothing of audiences would let any token of the cluster pass.
    let is_meant = status
        .audiences
        .is_some_and(|all| all.iter().any(|own| own == audience));
    if status.authenticated != Some(true) || !is_meant {
        return None;
    }
    let name = status.user?.username?;
    let (namespace, account) = name.strip_prefix(ACCOUNT)?.split_once(':')?;
    Some((namespace.to_owned(), account.to_owned()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

    use fairlead_plan::mesh::{AUDIENCE, FIGURES_AUDIENCE};

    use super::*;

    #[test]
    fn only_a_service_account_with_our_audience_is_known() {
        let review = |authenticated, audience: &str, name: &str| TokenReview {
            status: Some(TokenReviewStatus {
                authenticated: Some(authenticated),
                audiences: Some(vec![audience.to_owned()]),
                user: Some(UserInfo {
                    username: Some(name.to_owned()),
                    ..UserInfo::default()
                }),
                ..TokenReviewStatus::default()
            }),
            ..TokenReview::default()
        };
        let cart = "system:serviceaccount:shop:cart";
        let known = account(review(true, AUDIENCE, cart), AUDIENCE);
        assert_eq!(known, Some(("shop".to_owned(), "cart".to_owned())));
        for (authenticated, audience, name) in [
            (false, AUDIENCE, cart),
            (true, "https://kubernetes.default.svc", cart),
            (true, FIGURES_AUDIENCE, cart),
            (true, AUDIENCE, "jane"),
            (true, AUDIENCE, "system:node:shop:cart"),
        ] {
            assert_eq!(
                account(review(authenticated, audience, name), AUDIENCE),
                None,
                "{name}"
            );
        }
        let mut nobody = review(true, AUDIENCE, cart);
        if let Some(status) = &mut nobody.status {
            status.audiences = None;
        }
        assert_eq!(account(nobody, AUDIENCE), None);
    }

    #[test]
    fn a_right_is_asked_for_as_the_account_has_it() {
        let account = ("shop".to_owned(), "viewer".to_owned());
        let review = access(&account, Some("bank"));
        assert_eq!(
            serde_json::to_value(&review.spec).expect("plain data"),
            serde_json::json!({
                "user": "system:serviceaccount:shop:viewer",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
                "resourceAttributes": {"verb": "get", "resource": "services", "namespace": "bank"},
            })
        );
        let whole = access(&account, None).spec.resource_attributes;
        assert_eq!(whole.and_then(|own| own.namespace), None);
    }
}

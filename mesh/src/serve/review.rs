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
/// How what a review says of a token's pod begins.
const POD: &str = "authentication.kubernetes.io/pod-";

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

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The service account.
    pub account: Account,
    /// The pod that it was given to, without which it is not valid; nothing of a token that was given to none.
    pub pod: Option<Given>,
}

/// A pod of the holder's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Says to whom a token belongs, and what that may do.
pub trait Review: Send + Sync {
    /// Asks whose a token is that has to be meant for an audience.
    fn review(
        &self,
        token: String,
        audience: &'static str,
    ) -> BoxFuture<'_, Result<Holder, ReviewError>>;

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
    ) -> BoxFuture<'_, Result<Holder, ReviewError>> {
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
            holder(reviewed, audience).ok_or(ReviewError::Refused { audience })
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

/// The holder of a token, of a review that found one.
fn holder(review: TokenReview, audience: &str) -> Option<Holder> {
    let status = review.status?;
    // One that knows nothing of audiences would let any token of the cluster pass.
    let is_meant = status
        .audiences
        .is_some_and(|all| all.iter().any(|own| own == audience));
    if status.authenticated != Some(true) || !is_meant {
        return None;
    }
    let user = status.user?;
    let name = user.username?;
    let (namespace, account) = name.strip_prefix(ACCOUNT)?.split_once(':')?;
    let mut said = user.extra.unwrap_or_default();
    let mut of_pod = |word: &str| said.remove(&format!("{POD}{word}"))?.pop();
    Some(Holder {
        account: (namespace.to_owned(), account.to_owned()),
        pod: of_pod("name")
            .zip(of_pod("uid"))
            .map(|(name, uid)| Given { name, uid }),
    })
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
        let known = holder(review(true, AUDIENCE, cart), AUDIENCE).expect("it is known");
        assert_eq!(known.account, ("shop".to_owned(), "cart".to_owned()));
        assert_eq!(known.pod, None);
        let mut given = review(true, AUDIENCE, cart);
        let user = given.status.as_mut().and_then(|own| own.user.as_mut());
        let extra = [("name", "cart-1"), ("uid", "7")];
        let extra = extra.map(|(word, own)| (format!("{POD}{word}"), vec![own.to_owned()]));
        user.expect("there is one").extra = Some(extra.into());
        let pod = holder(given, AUDIENCE).and_then(|own| own.pod);
        let (name, uid) = ("cart-1".to_owned(), "7".to_owned());
        assert_eq!(pod, Some(Given { name, uid }));
        for (authenticated, audience, name) in [
            (false, AUDIENCE, cart),
            (true, "https://kubernetes.default.svc", cart),
            (true, FIGURES_AUDIENCE, cart),
            (true, AUDIENCE, "jane"),
            (true, AUDIENCE, "system:node:shop:cart"),
        ] {
            assert_eq!(
                holder(review(authenticated, audience, name), AUDIENCE),
                None,
                "{name}"
            );
        }
        let mut nobody = review(true, AUDIENCE, cart);
        if let Some(status) = &mut nobody.status {
            status.audiences = None;
        }
        assert_eq!(holder(nobody, AUDIENCE), None);
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

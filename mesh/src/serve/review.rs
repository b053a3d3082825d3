//! To whom a token belongs.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

/// Whom a token has to be meant for.
pub use fairlead_plan::mesh::AUDIENCE;
/// How the names of service accounts begin.
const ACCOUNT: &str = "system:serviceaccount:";

/// Why nobody is known by a token.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is none, ran out, is meant for somebody else, or its pod is gone.
    #[error("the token is not valid for {AUDIENCE}")]
    Refused,
    /// Nobody could be asked.
    #[error("failed to review a token: {source}")]
    Failed {
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// Says to whom a token belongs: a namespace and a service account.
pub trait Review: Send + Sync {
    /// Asks.
    fn review(&self, token: String) -> BoxFuture<'_, Result<(String, String), ReviewError>>;
}

/// The API server's reviews.
#[derive(Clone)]
pub struct TokenReviews(pub Client);

impl Review for TokenReviews {
    fn review(&self, token: String) -> BoxFuture<'_, Result<(String, String), ReviewError>> {
        let api: Api<TokenReview> = Api::all(self.0.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token,
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        Box::pin(async move {
            let reviewed = api.create(&PostParams::default(), &review).await;
            let reviewed = reviewed.map_err(|source| ReviewError::Failed {
                source: Box::new(source),
            })?;
            account(reviewed).ok_or(ReviewError::Refused)
        })
    }
}

/// The service account of a review that found one.
fn account(review: TokenReview) -> Option<(String, String)> {
    let status = review.status?;
    // One that knows nothing of audiences would let any token of the cluster pass.
    let is_meant = status
        .audiences
        .is_some_and(|all| all.iter().any(|own| own == AUDIENCE));
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
        let known = account(review(true, AUDIENCE, cart));
        assert_eq!(known, Some(("shop".to_owned(), "cart".to_owned())));
        for (authenticated, audience, name) in [
            (false, AUDIENCE, cart),
            (true, "https://kubernetes.default.svc", cart),
            (true, AUDIENCE, "jane"),
            (true, AUDIENCE, "system:node:shop:cart"),
        ] {
            assert_eq!(
                account(review(authenticated, audience, name)),
                None,
                "{name}"
            );
        }
        let mut nobody = review(true, AUDIENCE, cart);
        if let Some(status) = &mut nobody.status {
            status.audiences = None;
        }
        assert_eq!(account(nobody), None);
    }
}

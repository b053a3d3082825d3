//! The Kubernetes client, with every request counted.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// A client for the cluster that the process runs in or that the kubeconfig names.
///
/// # Errors
/// When there is neither, or its TLS settings are unusable.
pub async fn connect(metrics: &Arc<Metrics>) -> Result<Client, kube::Error> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Counted {
            metrics: Arc::clone(metrics),
        })
        .build())
}

#[derive(Clone)]
struct Counted {
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Counted {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountedService {
            inner,
            metrics: Arc::clone(&self.metrics),
        }
    }
}

#[derive(Clone)]
struct CountedService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for CountedService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let metrics = Arc::clone(&self.metrics);
        let watch = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        let verb = if watch {
            "WATCH".to_owned()
        } else {
            request.method().as_str().to_owned()
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or_else(
                |_| "error".to_owned(),
                |answer| answer.status().as_u16().to_string(),
            );
            metrics.request(&verb, &code);
            answer
        })
    }
}
